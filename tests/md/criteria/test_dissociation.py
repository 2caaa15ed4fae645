"""When a bond has broken, a piece has come off or an atom has left, and when not."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from nequip_decorr.md import Criteria, preset
from tests.support.watching import OFF, frame, watch

MOLECULE = preset("molecule").criteria


@given(st.lists(st.sampled_from([0.0, 0.45, 0.55, -0.55]), min_size=1, max_size=40))
@settings(deadline=None, max_examples=50)
def test_a_bond_off_for_10_fs(off):
    """H2 is 0.74 A long; a bond 0.55 A off at the frames of 10 fs has broken."""
    hydrogen = molecule("H2")
    start = hydrogen.get_distance(0, 1)
    criteria = replace(OFF, max_bond_deviation_A=0.5)
    watching = watch(hydrogen, criteria, timestep_fs=2.0)
    direction = (hydrogen.positions[1] - hydrogen.positions[0]) / start
    for step, by in enumerate(off):
        positions = hydrogen.positions.copy()
        positions[1] += by * direction
        violation = watching.after_step(frame(hydrogen, step, positions=positions))
        fails = step >= 5 and all(abs(o) > 0.5 for o in off[step - 5 : step + 1])
        assert bool(violation) is fails
        if fails:
            assert (violation.cause, sorted(violation.atoms)) == (
                "dissociation",
                [0, 1],
            )
            first = (step - 5) * 2 / 1000
            assert f"first crossed at {first:.4g} ps" in violation.message
            return


def test_a_piece_comes_off():
    ethanol = molecule("CH3CH2OH")
    watching = watch(ethanol, replace(MOLECULE, max_bond_deviation_A=None))
    assert watching.after_step(frame(ethanol)) is None
    torn = ethanol.positions.copy()
    torn[3] += torn[3] - torn[2]  # the hydroxyl hydrogen, twice as far from its oxygen
    hydroxyl = np.linalg.norm(torn[3] - torn[2])
    assert hydroxyl > 1.5 * (0.31 + 0.66)
    violation = watching.after_step(frame(ethanol, positions=torn))
    assert (violation.cause, violation.atoms) == ("dissociation", (3,))
    assert (violation.value, violation.limit) == (2.0, 1.0)


def test_an_atom_leaves_a_solid(copper):
    del copper[0]  # room for it
    copper.center(vacuum=6.0)
    copper.pbc = False
    watching = watch(copper, Criteria())
    assert watching.after_step(frame(copper)) is None
    positions = copper.positions.copy()
    positions[4] = positions.min(axis=0) - 4.0
    violation = watching.after_step(frame(copper, positions=positions))
    assert (violation.cause, violation.atoms) == ("dissociation", (4,))


@pytest.mark.parametrize("temperature_K", [900.0, 1100.0])
@pytest.mark.parametrize("vacuum_A", [0.0, 8.0])
def test_an_atom_evaporates(temperature_K, vacuum_A):
    """From a hot surface it may; where there is no surface it may not."""
    atoms = bulk("Cu", cubic=True) * (3, 3, 3)
    if vacuum_A:
        atoms.center(vacuum=vacuum_A, axis=2)
    criteria = replace(Criteria(), min_distance_ratio=None)
    watching = watch(atoms, criteria, temperature_K=temperature_K)
    middle = atoms.positions.mean(axis=0)
    away = np.linalg.norm(atoms.positions - middle, axis=1)
    positions = atoms.positions.copy()
    positions[away < 5.0] += 5.4  # room for one
    alone = int(np.argmin(away))
    positions[alone] = middle
    violation = watching.after_step(frame(atoms, positions=positions))
    fails = not (vacuum_A and temperature_K > 1000)
    assert bool(violation) is fails
    if fails:
        assert (violation.cause, violation.atoms) == ("dissociation", (alone,))


def test_what_has_no_bonds_is_not_isolated():
    xenon = bulk("Xe", cubic=True, a=6.2) * (2, 2, 2)
    positions = xenon.positions * 1.0
    positions[5] += 3.0
    assert (
        watch(xenon, Criteria()).after_step(frame(xenon, positions=positions)) is None
    )


def test_molecules_that_touch_at_the_start_may_part():
    """Iodine atoms of two molecules, 3.6 A apart: less than 1.5 x 2 x 1.39 A."""
    iodine = Atoms("I4", [[0, 0, z] for z in (0, 2.67, 6.27, 8.94)])
    watching = watch(iodine, MOLECULE)
    apart = iodine.positions.copy()
    apart[2:, 2] += 3.0
    assert watching.after_step(frame(iodine, positions=apart)) is None
    torn = apart.copy()
    torn[3, 2] += 4.0
    violation = watching.after_step(frame(iodine, positions=torn))
    assert violation.cause == "dissociation"


def test_dissociation_is_tested_at_its_interval(copper):
    copper.pbc = False
    watching = watch(copper, Criteria(), every=4)
    positions = copper.positions.copy()
    positions[4] -= 50.0
    found = [
        bool(watching.after_step(frame(copper, step, positions=positions)))
        for step in range(1, 5)
    ]
    assert found == [False, False, False, True]


def test_a_bond_off_its_length_keeps_no_frame_from_being_good_past_that():
    nitrogen = molecule("N2")
    longer = nitrogen.positions * 1.6
    watching = watch(nitrogen, replace(OFF, max_bond_deviation_A=0.5))
    for step in range(11):
        found = watching.after_step(frame(nitrogen, step, positions=longer))
    assert found.cause == "dissociation"
    assert not watching.calm
    assert watching.past_unphysical(frame(nitrogen, 10, positions=longer)) is None
    assert watching.calm
