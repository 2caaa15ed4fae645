"""Cells that change from frame to frame, as at constant pressure."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from nequip_decorr.md import Criteria, Protocol, preset
from tests.md.trajectories.test_formats import FORMATS, judge
from tests.support import trajectories as made


def squeezed(n, shrink_A):
    """A crystal whose cell shrinks along x from frame to frame, atoms along with it."""
    frames = []
    for number in range(n):
        atoms = made.oxide(skew=0.5)
        cell = atoms.cell.array.copy()
        cell[0] *= 1 - number * shrink_A / cell[0, 0]
        atoms.set_cell(cell, scale_atoms=True)
        frames.append(atoms)
    return frames


@pytest.mark.parametrize("name", ["dump x", "dump xs", "extxyz", "XDATCAR"])
def test_a_cell_that_shrinks(tmp_path, name):
    """At constant pressure: neighbours across the boundary meet as those inside do."""
    write, reading = FORMATS[name]
    frames = squeezed(12, 0.4)
    radii = np.where(frames[0].symbols == "Hf", 1.75, 0.66)
    limits = 0.6 * (radii[:, None] + radii) - 99 * np.eye(64)
    too_near = [(a.get_all_distances(mic=True) < limits).any() for a in frames]
    first = too_near.index(True)
    assert 3 < first < 11
    criteria = replace(Protocol().criteria, max_displacement_A=None)
    path = write(tmp_path, frames, 10)
    (replica,) = judge(path, protocol=Protocol(criteria=criteria), **reading).replicas
    assert (replica.unphysical.cause, replica.unphysical.step) == (
        "overlap",
        10 * first,
    )


def test_a_cell_that_collapses(tmp_path):
    """As of a barostat with a bad model: atoms pile up, and in the end it explodes."""
    frames = made.script(made.oxide(), 9, drift_A=0.0)
    made.give(frames)
    scales = [0.5, 0.1, 1e-2, 1e-3, 1e-3, 1e-9]
    for atoms, factor in zip(frames[3:], scales, strict=True):
        atoms.set_cell(atoms.cell.array * factor, scale_atoms=True)
    path = made.write_ase(tmp_path / "md.extxyz", frames, "extxyz")
    tracemalloc.start()
    try:
        (replica,) = judge(path, interval_steps=10).replicas
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (replica.unphysical.cause, replica.unphysical.step) == ("overlap", 30)
    # the last cell has no volume
    assert (replica.explosion.cause, replica.explosion.step) == ("nonfinite", 80)
    assert peak < 20e6


def test_a_cell_that_collapses_at_once(tmp_path):
    """To a millionth of its volume between two frames: where all pairs do not fit."""
    frames = made.script(made.oxide(), 4, drift_A=0.0)
    for atoms in frames[2:]:
        atoms.set_cell(atoms.cell.array * 0.01, scale_atoms=True)
    path = made.write_ase(tmp_path / "md.extxyz", frames, "extxyz")
    (replica,) = judge(path, interval_steps=10).replicas
    assert (replica.unphysical.cause, replica.unphysical.step) == ("overlap", 20)
    assert (replica.explosion, replica.censored_by) == (None, "horizon")


def test_a_cell_that_explodes(tmp_path):
    """As of a barostat with a bad model: first it tears, then it is almost empty."""
    frames = made.script(made.oxide(), 8, drift_A=0.0)
    for atoms, factor in zip(frames[3:], [1.6, 1e2, 1e4, 1e6, 1e9], strict=True):
        atoms.set_cell(atoms.cell.array * factor, scale_atoms=True)
    # two atoms stay where they are, across the boundary of the last cell
    frames[-1].positions[:2] = [[0.1, 0, 0], [-0.1, 0, 0]]
    path = made.write_ase(tmp_path / "md.extxyz", frames, "extxyz")
    criteria = Protocol().criteria
    for limits, cause, frame in (
        (criteria, "dissociation", 3),
        (replace(criteria, isolation_ratio=None), "overlap", 7),
    ):
        protocol = Protocol(criteria=limits)
        (replica,) = judge(path, protocol=protocol, interval_steps=10).replicas
        event = replica.unphysical
        assert (event.cause, event.step) == (cause, 10 * frame)


@pytest.mark.parametrize("criterion", ["bonds", "fragments", "isolation"])
def test_a_box_that_flips(tmp_path, criterion):
    """LAMMPS tilts a box back by a whole vector; the lattice stays what it was."""
    frames = []
    for tilt_A in (4.6, 5.2, -4.8, -4.4):
        cell = [[10.0, 0, 0], [tilt_A, 9.0, 0], [0, 0, 8.0]]
        # across the boundary along the second vector
        atoms = Atoms("N2", np.zeros((2, 3)), cell=cell, pbc=True)
        atoms.positions[1] = -1.1 * np.array(cell[1]) / np.linalg.norm(cell[1])
        frames.append(atoms)
    limits = {
        "bonds": {"max_bond_deviation_A": 0.5, "bond_confirm_fs": 0.5},
        "fragments": {"fragment_ratio": 1.5},
        "isolation": {"isolation_ratio": 1.5},
    }
    off = {"max_displacement_A": None, "isolation_ratio": None}
    criteria = Criteria(**off | limits[criterion])
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames, coordinates="x")
    assert judge(path, protocol=Protocol(criteria=criteria)).replicas[0].first is None
    # and a bond that breaks in the same step is broken
    for atoms in frames[2:]:
        atoms.positions[1] *= 2.5
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames, coordinates="x")
    (replica,) = judge(path, protocol=Protocol(criteria=criteria), warned=[]).replicas
    assert replica.unphysical.cause == "dissociation"


def test_bonds_follow_a_cell_that_grows(tmp_path):
    """A molecule across the boundary of a box that grows keeps its bond."""
    frames = []
    for number in range(6):
        atoms = molecule("H2", cell=[6.0 + number, 6.5, 7.0], pbc=True)
        atoms.positions -= atoms.positions.mean(axis=0)
        atoms.rotate(90, "y")
        frames.append(atoms)
    protocol = replace(
        preset("molecule"), temperatures_K=(300.0,), timestep_fs=1.0, horizon_ps=1.0
    )
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames, coordinates="x")
    assert judge(path, protocol=protocol).replicas[0].first is None
