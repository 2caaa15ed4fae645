"""Start structures: what is refused, in one line, and how they are set in motion."""

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nequip_decorr.errors import UserError
from nequip_decorr.md.structures import (
    check_structures,
    kept_momenta,
    prepare_structures,
    read_structures,
    smallest_height_A,
    start_momenta,
    structure_hash,
)


def check(*structures, species=("Cu", "H", "O"), cutoff_A=None, ratio=0.6):
    return check_structures(
        structures, species=species, cutoff_A=cutoff_A, min_distance_ratio=ratio
    )


def refused(atoms, **options):
    with pytest.raises(UserError, match=r"^expected") as caught:
        check(atoms, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sound_structures_pass():
    assert check(bulk("Cu", cubic=True), molecule("H2O")) == []
    assert check(bulk("Cu", cubic=True), species=None) == []


def test_an_unknown_element():
    message = refused(molecule("CH3CH2OH"))
    assert "Cu, H, O" in message
    assert "got C in structure 0" in message


def test_numbers_that_are_none():
    atoms = bulk("Cu", cubic=True)
    atoms.positions[2, 1] = np.nan
    assert "finite positions" in refused(atoms)


def test_cells_without_volume():
    assert "a cell with non-zero volume" in refused(Atoms("Cu", pbc=True))
    flat = Atoms("Cu", cell=[[3, 0, 0], [6, 0, 0], [0, 0, 3]], pbc=True)
    assert "a cell with non-zero volume" in refused(flat)
    assert check(Atoms("Cu", cell=[3, 3, 0], pbc=(True, True, False))) == []


def test_start_structures_that_overlap():
    atoms = molecule("H2O")
    atoms.positions[1] = atoms.positions[0] + [0, 0, 0.5]
    message = refused(atoms)
    assert "O0" in message
    assert "H1" in message
    assert "0.500 A" in message
    assert check(atoms, ratio=None) == []


def test_overlap_across_the_boundary():
    atoms = Atoms("Cu2", [[0.1, 0, 0], [9.9, 0, 0]], cell=[10, 10, 10], pbc=True)
    assert "0.200 A" in refused(atoms)


def test_constraints_empty_and_massless():
    held = bulk("Cu", cubic=True)
    held.set_constraint(FixAtoms([0]))
    assert "FixAtoms; --drop-constraints" in refused(held)
    assert "expected atoms" in refused(Atoms())
    light = bulk("Cu", cubic=True)
    light.set_masses([0, 1, 1, 1])
    assert "masses > 0" in refused(light)
    with pytest.raises(UserError, match="at least one start structure"):
        check()


def test_a_small_cell_is_warned_of_once():
    small = bulk("Cu", cubic=True)  # 3.61 A
    lines = check(small, small, small * (3, 3, 3), cutoff_A=3.0)
    assert len(lines) == 1
    assert "structure 0 and of 1 more" in lines[0]
    assert "3.6 A" in lines[0]
    assert "cutoff of 3 A" in lines[0]
    assert check(molecule("H2O"), cutoff_A=6.0) == []


def test_the_height_of_a_skewed_cell():
    """A rhombic prism with an angle of 60 degrees is a sin(60) high."""
    atoms = Atoms("Cu", cell=[[4, 0, 0], [2, np.sqrt(12), 0], [0, 0, 9]], pbc=True)
    assert smallest_height_A(atoms) == pytest.approx(4 * np.sqrt(3) / 2)
    atoms.pbc = (False, False, True)
    assert smallest_height_A(atoms) == pytest.approx(9.0)


def test_reading(tmp_path):
    path = tmp_path / "many.extxyz"
    ase.io.write(path, [bulk("Cu") for _ in range(5)])
    assert [a.info["name"] for a in read_structures(path)][3] == "many.extxyz#3"
    assert len(read_structures(f"{path}@1:4")) == 3
    assert len(read_structures(f"{path}@2")) == 1
    with pytest.raises(UserError, match="which does not exist"):
        read_structures(tmp_path / "none.xyz")
    with pytest.raises(UserError, match="which is a folder; give the file's path"):
        read_structures(tmp_path)
    for name, text in (("junk.xyz", "no\nstructure\n"), ("junk", "hi"), ("e.cif", "")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=r"^expected") as caught:
            read_structures(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"^expected"):
        read_structures(f"{path}@9")


def test_names_say_which_frame_was_picked(tmp_path):
    path = tmp_path / "many.extxyz"
    ase.io.write(path, [bulk("Cu") for _ in range(5)])
    assert [a.info["name"] for a in read_structures(f"{path}@1:5:2")] == [
        "many.extxyz@1:5:2#0",
        "many.extxyz@1:5:2#1",
    ]


def moving(seed=0, name=None):
    """Copper with velocities, and a name as a file gives."""
    atoms = bulk("Cu", cubic=True)
    atoms.set_momenta(np.random.default_rng(seed).normal(size=(4, 3)))
    if name is not None:
        atoms.info["name"] = name
    return atoms


def prepared(*structures, keep=False, drop=False):
    return prepare_structures(structures, keep_velocities=keep, drop_constraints=drop)


def test_velocities_that_are_not_used_are_said_and_no_part_of_a_structure():
    still = bulk("Cu", cubic=True)
    at_rest = still.copy()
    at_rest.set_momenta(np.zeros((4, 3)))
    found, lines = prepared(still, at_rest)
    assert lines == []
    given = moving(name="a.traj#1")
    found, lines = prepared(still, given, moving(1))
    assert len(lines) == 1
    assert lines[0].startswith("velocities of a.traj#1 and of 1 more are not used")
    assert "--keep-velocities" in lines[0]
    assert {structure_hash(atoms) for atoms in found} == {structure_hash(still)}
    assert given.get_momenta().any()


def test_velocities_that_are_kept_are_a_part_of_a_structure():
    one, other = moving(0), moving(1)
    found, lines = prepared(one, other, keep=True)
    assert lines == []
    np.testing.assert_array_equal(found[0].get_momenta(), one.get_momenta())
    hashes = {structure_hash(atoms) for atoms in (*found, bulk("Cu", cubic=True))}
    assert len(hashes) == 3


def test_velocities_to_keep_that_are_none():
    still = bulk("Cu", cubic=True)
    at_rest, broken = still.copy(), moving()
    at_rest.set_momenta(np.zeros((4, 3)))
    broken.arrays["momenta"][1, 2] = np.nan
    for atoms, message in (
        (still, "velocities in structure 1 to keep, got none"),
        (at_rest, "velocities in structure 1 to keep, got none"),
        (broken, "finite velocities in structure 1"),
    ):
        with pytest.raises(UserError, match=message):
            prepared(moving(), atoms, keep=True)


def test_a_column_of_velocities_has_no_unit(tmp_path):
    path = tmp_path / "gpumd.xyz"
    path.write_text("1\nProperties=species:S:1:pos:R:3:vel:R:3\nAr 0 0 0 0.1 0 0\n")
    (line,) = prepared(*read_structures(path))[1]
    assert line.startswith("velocities of gpumd.xyz#0 are not used")
    with pytest.raises(UserError, match="got a column 'vel' without a unit"):
        prepared(*read_structures(path), keep=True)


@pytest.mark.parametrize("conserve_total", [False, True])
def test_kept_momenta_lose_the_motion_of_the_whole_at_most(conserve_total):
    atoms = molecule("H2O")
    atoms.set_velocities(np.random.default_rng(3).normal(0.5, size=(3, 3)))
    whole = atoms.get_momenta().sum(axis=0) / atoms.get_masses().sum()
    expected = atoms.get_velocities() - (whole if conserve_total else 0.0)
    found = kept_momenta(atoms, conserve_total=conserve_total)
    np.testing.assert_allclose(found / atoms.get_masses()[:, None], expected)


def test_constraints_are_dropped_when_asked():
    held = moving(name="slab.vasp#0")
    held.set_constraint(FixAtoms([0]))
    found, lines = prepared(held, drop=True, keep=True)
    assert lines == ["constraints of slab.vasp#0 are dropped: all atoms move"]
    assert not found[0].constraints
    assert check(*found) == []
    assert held.constraints


def test_hash_sees_the_last_bit():
    atoms = bulk("Cu", cubic=True)
    same, moved, flagged = atoms.copy(), atoms.copy(), atoms.copy()
    moved.positions[0, 0] = np.nextafter(moved.positions[0, 0], 1)
    flagged.pbc = (True, True, False)
    assert structure_hash(atoms) == structure_hash(same)
    assert len({structure_hash(a) for a in (atoms, moved, flagged)}) == 3


@given(st.integers(0, 2**32 - 1), st.floats(1.0, 3000.0))
@settings(deadline=None, max_examples=20)
def test_the_total_momentum_is_taken_away(seed, temperature_K):
    atoms = molecule("H2O")
    momenta = start_momenta(
        atoms, temperature_K, np.random.default_rng(seed), conserve_total=True
    )
    scale = np.abs(momenta).max()
    np.testing.assert_allclose(momenta.sum(axis=0), 0, atol=1e-12 * scale)


@pytest.mark.parametrize("conserve_total", [False, True])
def test_momenta_are_maxwell_boltzmann(conserve_total):
    """sum p^2 / (m kT) is chi-square with 3N (3N - 3) degrees of freedom."""
    atoms = molecule("CH3CH2OH")
    rng = np.random.default_rng(11)
    kT = units.kB * 450.0
    masses = atoms.get_masses()[:, None]
    sums = [
        (
            start_momenta(atoms, 450.0, rng, conserve_total=conserve_total) ** 2
            / masses
        ).sum()
        / kT
        for _ in range(2000)
    ]
    dof = 3 * len(atoms) - 3 * conserve_total
    assert stats.kstest(sums, stats.chi2(dof).cdf).pvalue > 1e-3
