"""What is kept of a replica finds the step at which any limit is first passed."""

import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from nequip_decorr.md.criteria.extremes import Extremes
from nequip_decorr.md.criteria.violation import Violation

SEEDS = st.integers(0, 2**32 - 1)


def alloy():
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.symbols[::3] = "Al"
    return atoms


def first(values, limit):
    """The first step at which a limit is passed, None: never."""
    passed = np.flatnonzero(values > limit)
    return int(passed[0]) if len(passed) else None


@given(seed=SEEDS, limit=st.floats(0.0, 4.0))
@settings(deadline=None, max_examples=60)
def test_the_first_step_beyond_any_limit(seed, limit):
    """Ways have a limit for each mass, so that there is a record for each."""
    rng = np.random.default_rng(seed)
    atoms = alloy()
    seen = Extremes(atoms)
    ways, forces = rng.exponential(size=(2, 60, len(atoms)))
    for step in range(60):
        seen.note_ways(ways[step])
        worst = int(forces[step].argmax())
        seen.note_force(step, worst, float(forces[step, worst]))
        seen.temperature_K.append(300.0)
    rows = [row for row in seen.force if row[2] > limit]
    assert (rows[0][0] if rows else None) == first(forces.max(axis=1), limit)
    for step, atom, square in rows[:1]:
        assert (atom, square) == (forces[step].argmax(), forces[step].max())
    for mass in np.unique(atoms.get_masses()):
        members = np.flatnonzero(atoms.get_masses() == mass)
        rows = [row for row in seen.way if row[1] in members and row[2] > limit]
        known = first(ways[:, members].max(axis=1), limit)
        assert (rows[0][0] if rows else None) == known
        for step, atom, square in rows[:1]:
            assert atom == members[ways[step, members].argmax()]
            assert square == ways[step, members].max()


def test_what_is_no_number_breaks_no_record():
    seen = Extremes(alloy())
    ways = np.full(8, np.nan)
    ways[2] = 1.0
    seen.note_ways(ways)
    seen.note_force(0, 3, np.nan)
    assert seen.way == [(0, 2, 1.0)]
    assert seen.force == []


@pytest.mark.parametrize("gone", [None, (7, Violation("dissociation", "m", (1, 2)))])
def test_arrays_are_all_of_it(gone):
    """Written and read in the middle, it goes on as if it had not been."""
    rng = np.random.default_rng(0)
    one = Extremes(alloy(), start_excess_K=12.5)
    for step in range(20):
        one.note_ways(rng.exponential(size=8))
        one.note_force(step, step % 8, float(rng.exponential()))
        one.temperature_K.append(float(rng.normal(300)))
        one.distance.append((step, 0, 1, 2.0 - step / 100))
        one.kinetic.append((step, 3, 1.0 + step))
    one.dissociation = gone
    other = Extremes.from_arrays(one.arrays())
    for seen in (one, other):
        rng = np.random.default_rng(1)
        for _ in range(20):
            seen.note_ways(rng.exponential(size=8))
            seen.note_force(seen.last_step + 1, 0, float(rng.exponential()))
            seen.temperature_K.append(300.0)
    names = ("way", "force", "distance", "kinetic", "temperature_K", "dissociation")
    for name in (*names, "start_excess_K"):
        assert getattr(one, name) == getattr(other, name), name
    assert (one.masses == other.masses).all()
    assert (one.numbers == other.numbers).all()
    assert one.last_step == 39
