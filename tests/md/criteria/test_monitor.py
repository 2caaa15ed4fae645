"""When a trajectory has failed: each explosion and overlap, its limit and its order."""

from dataclasses import replace

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from nequip_decorr.md import Criteria
from nequip_decorr.md.criteria.extremes import Extremes
from tests.support.watching import AT_REST, OFF, T0, frame, momenta_at, watch


@pytest.mark.parametrize("criteria", [OFF, Criteria()])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", ["energy", "forces", "momenta"])
def test_what_is_no_number_fails(copper, criteria, bad, what):
    values = np.zeros((len(copper), 3))
    values[7, 1] = bad
    given = {what: bad if what == "energy" else values}
    violation = watch(copper, criteria).after_step(frame(copper, **given))
    assert violation.cause == "nonfinite"
    assert violation.atoms == (() if what == "energy" else (7,))


@pytest.mark.parametrize("criteria", [OFF, Criteria()])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_positions_that_are_no_numbers_fail_before_the_model(copper, criteria, bad):
    watching = watch(copper, criteria)
    assert watching.before_forces(copper.positions) is None
    positions = copper.positions.copy()
    positions[3, 2] = bad
    violation = watching.before_forces(positions)
    assert (violation.cause, violation.atoms) == ("nonfinite", (3,))


@given(st.floats(0.01, 3.0), st.integers(0, 31), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_a_step_too_long(way, index, seed):
    copper = bulk("Cu", cubic=True) * (2, 2, 2)
    direction = np.random.default_rng(seed).normal(size=3)
    positions = copper.positions.copy()
    positions[index] += way * direction / np.linalg.norm(direction)
    watching = watch(copper, Criteria())
    assert watching.before_forces(copper.positions) is None
    violation = watching.before_forces(positions)
    if way < 0.4999:
        assert violation is None
    elif way > 0.5001:
        assert (violation.cause, violation.atoms) == ("blowup", (index,))
        assert violation.value == pytest.approx(way)


def test_many_short_steps_are_no_blowup(copper):
    watching = watch(copper, Criteria())
    for step in range(20):
        assert watching.before_forces(copper.positions + 0.28 * step) is None


@pytest.mark.parametrize(("force", "fails"), [(99.9, False), (100.1, True)])
def test_force(copper, force, fails):
    forces = np.zeros((len(copper), 3))
    forces[5] = force * np.array([0.6, 0.0, -0.8])
    violation = watch(copper, Criteria()).after_step(frame(copper, forces=forces))
    assert bool(violation) is fails
    if fails:
        assert (violation.cause, violation.atoms) == ("blowup", (5,))
        assert violation.value == pytest.approx(force)
        assert "Cu5" in violation.message


@pytest.mark.parametrize(("distance", "fails"), [(1.59, False), (1.58, True)])
def test_overlap(copper, distance, fails):
    """Copper's covalent radius is 1.32 A: 0.6 x 2.64 A is 1.584 A."""
    positions = copper.positions.copy()
    positions[1] = positions[0] + [0, 0, distance]
    violation = watch(copper, Criteria()).after_step(frame(copper, positions=positions))
    assert bool(violation) is fails
    if fails:
        assert (violation.cause, sorted(violation.atoms)) == ("overlap", [0, 1])
        assert violation.limit == pytest.approx(1.584)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
@settings(deadline=None, max_examples=50)
def test_hot_for_50_fs(hot):
    """10 sigma for 3 x 32 degrees of freedom is T0 (1 + 10 sqrt(2 / 96))."""
    copper = bulk("Cu", cubic=True) * (2, 2, 2)
    limit = T0 * (1 + 10 * np.sqrt(2 / 96))
    watching = watch(copper, AT_REST, timestep_fs=5.0)
    for step, is_hot in enumerate(hot):
        momenta = momenta_at(copper, limit * (1.001 if is_hot else 0.999))
        violation = watching.after_step(frame(copper, step, momenta=momenta))
        # 50 fs lie between the first and the last of 11 frames, 5 fs apart
        fails = step >= 10 and all(hot[step - 10 : step + 1])
        assert bool(violation) is fails
        assert watching.calm is not is_hot
        if fails:
            assert violation.cause == "runaway"
            assert violation.value == pytest.approx(1.001 * limit)
            return


@pytest.mark.parametrize(("temperature_K", "fails"), [(9_990, False), (10_010, True)])
def test_too_hot_for_any_time(copper, temperature_K, fails):
    criteria = replace(OFF, max_temperature_K=10_000.0)
    momenta = momenta_at(copper, temperature_K)
    violation = watch(copper, criteria).after_step(frame(copper, momenta=momenta))
    assert bool(violation) is fails


@pytest.mark.parametrize(
    ("temperature_K", "limit_eV"),
    [(300.0, 10.0), (9000.0, 40 * units.kB * 9000.0)],
    ids=["more than a bond holds", "more than 40 kT"],
)
@pytest.mark.parametrize("share", [0.999, 1.001])
def test_one_hot_atom(copper, temperature_K, limit_eV, share):
    momenta = np.zeros((len(copper), 3))
    momenta[9, 2] = np.sqrt(2 * copper.get_masses()[9] * share * limit_eV)
    watching = watch(copper, AT_REST, temperature_K=temperature_K)
    violation = watching.after_step(frame(copper, momenta=momenta))
    assert bool(violation) is (share > 1)
    if violation:
        assert (violation.cause, violation.atoms) == ("runaway", (9,))
        assert violation.value == pytest.approx(share * limit_eV)
        assert violation.limit == pytest.approx(limit_eV)


@pytest.mark.parametrize(("temperature_K", "fails"), [(4500, False), (5000, True)])
def test_a_start_may_hold_heat(copper, temperature_K, fails):
    """10 sigma of 96 degrees of freedom is 432 K at 300 K; 0.5 eV/atom is 3868 K."""
    watching = watch(copper, replace(OFF, runaway_sigma=10.0), timestep_fs=25.0)
    momenta = momenta_at(copper, temperature_K)
    found = [
        watching.after_step(frame(copper, step, momenta=momenta)) for step in range(3)
    ]
    assert [bool(violation) for violation in found] == [False, False, fails]


@pytest.mark.parametrize(("timestep_fs", "fails"), [(1.0, True), (2.0, False)])
def test_a_light_atom_may_leap(timestep_fs, fails):
    """14 eV (40 k 4168 K) moves hydrogen by 0.53 A in 1 fs, by 1.05 A in 2 fs."""
    hydrogen = molecule("H2")
    watching = watch(hydrogen, Criteria(), timestep_fs=timestep_fs)
    assert watching.before_forces(hydrogen.positions) is None
    moved = hydrogen.positions + np.array([0.6, 0, 0])
    assert bool(watching.before_forces(moved)) is fails


def test_the_first_of_several_causes_is_told(copper):
    """Overlap and runaway and no number at once: the order is that of CAUSES."""
    positions = copper.positions.copy()
    positions[1] = positions[0] + 0.1
    hot = momenta_at(copper, 50_000.0)
    forces = np.full((len(copper), 3), 1e9)

    def cause(**given):
        return watch(copper, Criteria()).after_step(frame(copper, **given)).cause

    assert cause(positions=positions, momenta=hot, forces=forces, energy=np.nan) == (
        "nonfinite"
    )
    assert cause(positions=positions, momenta=hot, forces=forces) == "blowup"
    assert cause(positions=positions, momenta=hot) == "overlap"
    assert cause(momenta=hot) == "runaway"


def test_past_an_unphysical_geometry_explosions_alone_are_found(copper):
    positions = copper.positions.copy()
    positions[1] = positions[0] + 0.1
    calm = frame(copper, positions=positions)
    hot = frame(copper, positions=positions, momenta=momenta_at(copper, 50_000.0))
    for met, then in ((calm, None), (hot, "runaway")):
        watching = watch(copper, Criteria())
        assert watching.after_step(met).cause == "overlap"
        rest = watching.past_unphysical(met)
        assert (rest and rest.cause) == then
        assert watching.after_step(replace(calm, step=1)) is None
        assert watching.after_step(replace(hot, step=2)).cause == "runaway"
        gone = replace(calm, step=3, energy_eV=np.nan)
        assert watching.after_step(gone).cause == "nonfinite"


def test_state_goes_on_where_it_was(copper):
    """A watch restored in the middle of a hot spell fails at the same step."""
    momenta = momenta_at(copper, 2.0 * T0 * (1 + 10 * np.sqrt(2 / 96)))
    first, second = (watch(copper, AT_REST, timestep_fs=5.0) for _ in range(2))
    for step in range(7):
        assert first.after_step(frame(copper, step, momenta=momenta)) is None
    seen = Extremes.from_arrays(first.seen.arrays())
    second.restore(first.state(), copper.positions, seen)
    assert not second.calm
    steps = range(7, 12)
    found = [
        [bool(w.after_step(frame(copper, s, momenta=momenta))) for s in steps]
        for w in (first, second)
    ]
    assert found[0] == found[1] == [False, False, False, True, True]
