"""LAMMPS reads back the start state that `md` has."""

import itertools

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.cell import Cell

from nequip_decorr.errors import UserError
from nequip_decorr.md.lammps.data import data_file
from nequip_decorr.md.lammps.model import LammpsModel
from nequip_decorr.md.lammps.write import write_runs
from nequip_decorr.md.protocol import Protocol
from nequip_decorr.md.running.replica import start_state
from nequip_decorr.md.running.run import plan_replicas
from tests.support import lammps_runs

#: LAMMPS' constants (units metal) and ase's differ in the sixth digit.
CONSTANTS = 3e-6


def random_crystal(seed, pbc=True, flip=False, n_atoms=8):
    rng = np.random.default_rng(seed)
    cell = Cell(7 * np.eye(3) + rng.uniform(-2, 2, (3, 3)))
    cell = cell[[1, 0, 2]] if flip else cell
    symbols = [("Hf", "O", "O")[i % 3] for i in range(n_atoms)]
    # also outside of the cell, as positions of a run are
    return Atoms(
        symbols, scaled_positions=np.zeros((n_atoms, 3)), cell=cell, pbc=pbc
    ), (rng.uniform(-1.5, 2.5, (n_atoms, 3)) @ cell)


def case(name):
    if name == "cubic":
        atoms = bulk("Cu", cubic=True).repeat(2)
        atoms.rattle(0.1, seed=1)
        return atoms
    if name == "skewed":
        atoms = bulk("Cu").repeat(2)
        atoms.set_cell(atoms.cell.array + np.outer([0, 1, 0], 2 * atoms.cell[0]))
        atoms.rattle(0.1, seed=1)
        return atoms
    if name == "molecule":
        atoms = molecule("CH3CH2OH")
        atoms.positions -= 30.0
        return atoms
    if name == "slab":
        atoms = fcc111("Cu", (2, 2, 3), orthogonal=False)
        atoms.pbc = (True, True, False)
        atoms.rattle(0.1, seed=1)
        return atoms
    options = {
        "triclinic": {"seed": 2},
        "left-handed": {"seed": 2, "flip": True},
        "plane": {"seed": 3, "pbc": (False, True, True)},
        "wire": {"seed": 4, "pbc": (False, True, False), "flip": True},
        "lines": {"seed": 5, "pbc": (True, False, True)},
    }
    atoms, positions = random_crystal(**options[name])
    atoms.positions = positions
    return atoms


CASES = [
    "cubic",
    "skewed",
    "molecule",
    "slab",
    "triclinic",
    "left-handed",
    "plane",
    "wire",
    "lines",
]


def nearest(atoms):
    """Distances of nearest images, of all those within six cells."""
    ranges = [range(-6, 7) if periodic else [0] for periodic in atoms.pbc]
    images = np.array(list(itertools.product(*ranges))) @ atoms.cell.array
    between = atoms.positions[:, None] - atoms.positions
    return np.linalg.norm(between[..., None, :] + images, axis=-1).min(axis=-1)


def volume(a, b, c):
    return np.linalg.det(np.array([a, b, c]))


@lammps_runs.needs_lammps
@pytest.mark.parametrize("name", CASES)
def test_lammps_starts_where_md_starts(tmp_path, name):
    atoms = case(name)
    (tmp_path / "model").write_text("")
    elements = {symbol: symbol for symbol in ("O", "Hf", "Cu", "C", "H")}
    model = LammpsModel(tmp_path / "model", "allegro", elements, 5.0)
    protocol = Protocol(
        ensemble="nve", horizon_ps=1e-6, timestep_fs=1e-3, replicas=1,
        temperatures_K=(500.0,), frame_interval_steps=1,
    )  # fmt: skip
    (folder,) = write_runs(model, [atoms], protocol, tmp_path / "runs")
    lammps_runs.run(folder, lammps_runs.FREE)
    (plan,) = plan_replicas([atoms], protocol)
    state = start_state(plan, protocol)
    found = lammps_runs.frames(folder)[0]

    assert list(found.symbols) == list(atoms.symbols)
    assert list(found.pbc) == list(atoms.pbc)
    # axes are LAMMPS' own: compare what no rotation changes, and no reflection keeps
    expected = np.concatenate(
        [
            atoms.positions - atoms.positions[0],
            100 * state.momenta / atoms.get_masses()[:, None],
        ]
    )
    got = np.concatenate(
        [found.positions - found.positions[0], 100 * found.get_velocities()]
    )
    np.testing.assert_allclose(got @ got.T, expected @ expected.T, atol=2e-6)
    three = (1, 2, len(atoms))
    assert volume(*got[list(three)]) == pytest.approx(
        volume(*expected[list(three)]), rel=1e-6
    )
    np.testing.assert_allclose(nearest(found), nearest(atoms), atol=1e-6)
    kinetic_eV = 0.5 * (state.momenta**2 / atoms.get_masses()[:, None]).sum()
    log = lammps_runs.thermo(folder)
    assert log["TotEng"][0] - log["PotEng"][0] == pytest.approx(
        kinetic_eV, rel=CONSTANTS
    )
    if atoms.pbc.all():
        assert found.get_volume() == pytest.approx(atoms.get_volume())


def test_a_tilt_that_is_small_is_kept(tmp_path):
    """A ten-thousandth of the cell is no rounding error."""
    atoms = bulk("Cu", cubic=True).repeat(2)
    tilted = atoms.cell.array.copy()
    tilted[1, 0] = 1e-4 * tilted[0, 0]
    atoms.set_cell(tilted)
    text = data_file(atoms, atoms.positions, np.zeros((len(atoms), 3)), ["Cu"])
    (line,) = [line for line in text.splitlines() if line.endswith("xy xz yz")]
    assert float(line.split()[0]) == pytest.approx(tilted[1, 0], rel=1e-9)


def test_several_masses_of_one_element_are_refused():
    atoms = molecule("H2O")
    atoms.set_masses([16.0, 1.0, 2.0])
    with pytest.raises(UserError, match=r"one mass for all H atoms.*got 1 to 2 amu"):
        data_file(atoms, atoms.positions, np.zeros((3, 3)), ["O", "H"])


def test_masses_of_the_file_are_kept(tmp_path):
    atoms = molecule("H2O")
    atoms.set_masses([16.0, 2.0, 2.0])
    text = data_file(atoms, atoms.positions, np.zeros((3, 3)), ["O", "H"])
    path = tmp_path / "data.lammps"
    path.write_text(text)
    read = ase.io.read(path, format="lammps-data")
    assert read.get_masses() == pytest.approx([16.0, 2.0, 2.0])
    assert list(read.symbols) == ["O", "H", "H"]
