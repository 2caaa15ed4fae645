"""A start structure that is given: its images, and its masses."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc100, molecule
from ase.constraints import FixAtoms

from nequip_decorr import UserError
from nequip_decorr.md import Criteria, Protocol
from tests.md.trajectories.test_formats import judge
from tests.support import trajectories as made

BONDS = Protocol(
    criteria=Criteria(
        max_bond_deviation_A=0.5,
        bond_confirm_fs=0.5,
        fragment_ratio=1.5,
        isolation_ratio=1.5,
    )
)


@pytest.mark.parametrize("coordinates", ["x", "xu", "xs", "xsu"])
def test_a_molecule_that_was_wrapped_before_the_run(tmp_path, coordinates):
    """Whole in the start structure, in two parts in the data file of the run."""
    start = molecule("N2", cell=[9.0, 9.5, 10.0], pbc=True)
    start.positions += [1.0, 1.0, -0.3] - start.positions.min(axis=0)
    frames = made.script(start, 6, drift_A=0.3)
    for atoms in frames:
        atoms.positions[np.argmin(start.positions[:, 2])] += start.cell[2]
    path = tmp_path / "dump.lammpstrj"
    made.write_dump(path, frames, coordinates=coordinates, wrap=False)
    (replica,) = judge(path, protocol=BONDS, start=start).replicas
    assert replica.first is None
    for atoms in frames[3:]:
        atoms.positions[1, 1] += 3.0
    made.write_dump(path, frames, coordinates=coordinates, wrap=False)
    (replica,) = judge(path, protocol=BONDS, start=start, warned=[]).replicas
    assert (replica.unphysical.cause, replica.unphysical.step) == ("dissociation", 30)


def test_a_start_with_other_atoms_is_refused(tmp_path):
    frames = made.script(made.oxide(), 3)
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames, labels="element mass")
    with pytest.raises(UserError, match=r"the atoms of .* in the same order"):
        judge(path, start=made.oxide()[:-1])


def slab(pbc):
    """Odd layers, so that the lowest and the highest would lie upon each other."""
    start = fcc100("Al", (3, 3, 3), a=4.05, vacuum=0.0)
    start.center(vacuum=0.3, axis=2)
    start.pbc = pbc
    return start


def test_a_slab_whose_start_structure_is_said_to_be_periodic(tmp_path):
    """As by a POSCAR or a data file, which are always periodic in all directions."""
    frames = made.script(slab([True, True, False]), 6, drift_A=0.0)
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames)
    for start in (slab(True), slab([True, True, False])):
        (replica,) = judge(path, start=start).replicas
        assert replica.first is None


def test_a_molecule_whose_start_structure_is_said_to_be_alone(tmp_path):
    """Then an overlap across the boundary is one."""
    start = Atoms("Ar2", [[0.5, 2, 2], [5.5, 2, 2]], cell=[9.0] * 3, pbc=True)
    frames = made.script(start, 6, drift_A=0.0)
    for atoms in frames[3:]:
        atoms.positions[1, 0] = 9.0
    criteria = Criteria(max_displacement_A=None, isolation_ratio=None)
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames)
    start.pbc = False
    protocol = Protocol(criteria=criteria)
    (replica,) = judge(path, protocol=protocol, start=start).replicas
    assert (replica.unphysical.cause, replica.unphysical.step) == ("overlap", 30)


def test_a_start_structure_with_fixed_atoms(tmp_path):
    """As a POSCAR with selective dynamics: where they stay is in the trajectory."""
    start = made.oxide()
    frames = made.script(start, 4, drift_A=0.0)
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames)
    start.set_constraint(FixAtoms([0, 1]))
    (replica,) = judge(path, start=start).replicas
    assert replica.first is None


@pytest.mark.parametrize("coordinates", ["x", "xu"])
def test_a_box_that_flips_under_a_molecule_that_was_wrapped(tmp_path, coordinates):
    frames = []
    for tilt_A in (4.6, 5.2, -4.8, -4.4):
        cell = [[10.0, 0, 0], [tilt_A, 9.0, 0], [0, 0, 8.0]]
        atoms = Atoms("N2", [[1, 1, 1], [1, 1, 2.1]], cell=cell, pbc=True)
        frames.append(atoms)
    start = frames[0].copy()
    # one whole vector away, whichever way the box is described now
    for atoms in frames:
        atoms.positions[1] += [atoms.cell[1, 0] + 10.0 * (atoms.cell[1, 0] < 0), 9, 0]
    path = tmp_path / "dump.lammpstrj"
    made.write_dump(path, frames, coordinates=coordinates, wrap=False)
    (replica,) = judge(path, protocol=BONDS, start=start).replicas
    assert replica.first is None


def test_temperatures_are_those_of_the_masses_of_the_dump(tmp_path):
    """Heavy water's hydrogen; the start structure says nothing of masses."""
    places = np.indices((6, 6, 6)).reshape(3, -1).T * 3.0
    start = Atoms("H216", places, cell=[18.0] * 3, pbc=True)
    heavy = start.copy()
    heavy.set_masses([2.014] * len(heavy))
    frames = made.script(heavy, 12, drift_A=0.0)
    made.give(frames, temperature_K=1200.0)
    protocol = Protocol(
        temperatures_K=(1200.0,),
        criteria=Criteria(isolation_ratio=None, stored_energy_eV_per_atom=0.0),
    )
    path = tmp_path / "dump.lammpstrj"
    made.write_dump(path, frames, labels="element mass")
    for given in (None, start):
        (replica,) = judge(path, protocol=protocol, start=given).replicas
        assert replica.first is None
    # at twice the temperature it is a runaway
    made.give(frames[1:], temperature_K=2400.0)
    made.write_dump(path, frames, labels="element mass")
    (replica,) = judge(path, protocol=protocol, start=start, warned=[]).replicas
    assert replica.explosion.cause == "runaway"
