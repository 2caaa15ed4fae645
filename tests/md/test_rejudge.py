"""Judged again as a run with these limits would have judged."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nequip_decorr.errors import UserError
from nequip_decorr.md import Protocol, RunStoppedError, run_stability
from nequip_decorr.md.rejudge import rejudge
from nequip_decorr.md.results import KINDS, load
from nequip_decorr.md.running.folder import extremes_path, read_arrays
from nequip_decorr.md.structures import start_momenta
from tests.support.potentials import AtCall, Beyond, Einstein, flyer
from tests.support.watching import OFF

#: Nothing but a number that is not finite or an atom alone is an event.
NO_LIMITS = replace(OFF, isolation_ratio=1.5)
SPRINGS = Protocol(
    temperatures_K=(300.0,),
    timestep_fs=2.0,
    horizon_ps=0.16,
    replicas=2,
    record_interval_steps=3,
    frame_interval_steps=None,
    criteria=NO_LIMITS,
)


def alloy():
    """32 atoms of two masses on fcc sites."""
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.symbols[::3] = "Al"
    return atoms


def strained(amplitude_A=0.4):
    """Where the springs would have the atoms: they start on a lattice instead, and a
    part of the 1 to 2 eV an atom becomes heat; atoms meet on their way.
    """
    atoms = alloy()
    atoms.rattle(amplitude_A, seed=1)
    return atoms.positions


def springs(call=10**9, what=""):
    return AtCall(strained(), 6.0, call, what)


def run(folder, protocol, criteria=None, model=None):
    how = protocol if criteria is None else replace(protocol, criteria=criteria)
    return run_stability(model or springs(), alloy(), how, output=folder)


def again(result, folder, **limits):
    return rejudge(result, folder / "result.json", limits)


def bare(event):
    """An event without its frame, which a run with other limits keeps elsewhere."""
    return event and replace(event, last_good_frame=None)


def assert_alike(found, run):
    """What was judged again is what a run with these limits finds, as far as known."""
    for mine, theirs in zip(found.replicas, run.replicas, strict=True):
        for kind in KINDS:
            one, other = bare(mine.event(kind)), bare(theirs.event(kind))
            later = other is not None and other.time_ps > mine.time_ps
            if mine.censored_by == "not_followed" and later:
                assert one is None
            else:
                assert one == other
        if mine.censored_by == "not_followed":
            assert theirs.time_ps > mine.time_ps
        else:
            assert mine.censored_by == theirs.censored_by
            assert mine.time_ps == theirs.time_ps
            assert mine.trace == theirs.trace


@pytest.mark.parametrize("until", ["first", "explosion"])
@pytest.mark.parametrize(
    "limits",
    [
        {"min_distance_ratio": 0.7},
        {"min_distance_ratio": 0.2},
        {"max_force_eV_per_A": 6.0},
        {"max_displacement_A": 0.05},
        {
            "max_displacement_A": 0.03,
            "max_atom_kinetic_eV": 2.0,
            "stored_energy_eV_per_atom": 0.0,
        },
        {"max_temperature_K": 4000.0},
        {"max_atom_kinetic_eV": 2.0, "stored_energy_eV_per_atom": 0.0},
        {"runaway_sigma": 3.0, "runaway_time_fs": 4.0},
        {"runaway_sigma": 3.0, "runaway_time_fs": 0.5},
        {
            "runaway_sigma": 5.0,
            "runaway_time_fs": 10.0,
            "stored_energy_eV_per_atom": 0.05,
        },
        {"min_distance_ratio": 0.7, "max_temperature_K": 5000.0},
    ],
)
def test_narrower_limits_give_the_event_of_a_run_with_them(tmp_path, limits, until):
    protocol = replace(SPRINGS, until=until)
    wide = run(tmp_path / "wide", protocol)
    assert [r.censored_by for r in wide.replicas] == ["horizon"] * 2
    narrow = run(tmp_path / "narrow", protocol, replace(NO_LIMITS, **limits))
    assert any(r.first for r in narrow.replicas), "nothing to find"
    found = again(wide, tmp_path / "wide", **limits)
    assert_alike(found, narrow)
    assert found.protocol["criteria"] == narrow.protocol["criteria"]
    # and back: what is not known from there on is said
    back = again(
        narrow, tmp_path / "narrow", **dict.fromkeys(limits, None) | kept(limits)
    )
    assert_alike(back, wide)
    ended = [r.censored_by is None for r in narrow.replicas]
    assert [r.censored_by == "not_followed" for r in back.replicas] == ended


def kept(limits):
    """The limits that cannot be switched off by themselves."""
    return {
        name: value
        for name, value in limits.items()
        if name in ("runaway_time_fs", "stored_energy_eV_per_atom")
    }


LIMITS = st.fixed_dictionaries(
    {
        "min_distance_ratio": st.none() | st.floats(0.1, 0.97),
        "max_force_eV_per_A": st.none() | st.floats(6.0, 8.0),
        "max_displacement_A": st.none() | st.floats(0.03, 0.07),
        "max_temperature_K": st.none() | st.floats(1000.0, 6000.0),
        "max_atom_kinetic_eV": st.none() | st.floats(0.5, 4.0),
        "runaway_sigma": st.none() | st.floats(0.1, 12.0),
        "runaway_time_fs": st.floats(0.5, 60.0),
        "stored_energy_eV_per_atom": st.floats(0.0, 0.6),
    }
)


@given(
    first=LIMITS,
    second=LIMITS,
    until=st.sampled_from(["first", "explosion"]),
    ensemble=st.sampled_from(["langevin", "nve", "ramp"]),
    bonds_A=st.sampled_from([None, 0.6]),
)
@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.slow
def test_any_limits_after_any_others(
    tmp_path_factory, first, second, until, ensemble, bonds_A
):
    folder = tmp_path_factory.mktemp("runs")
    protocol = replace(
        SPRINGS,
        until=until,
        ensemble=ensemble,
        ramp_end_temperature_K=900.0 if ensemble == "ramp" else None,
        criteria=replace(NO_LIMITS, max_bond_deviation_A=bonds_A),
    )
    runs = {}
    for name, limits in (("a", first), ("b", second)):
        criteria = replace(protocol.criteria, **limits)
        try:
            runs[name] = run(folder / name, protocol, criteria)
        except UserError:
            runs[name] = None
    if runs["a"] is None:
        return
    assert again(runs["a"], folder / "a", **first).replicas == runs["a"].replicas
    if runs["b"] is None:
        with pytest.raises(UserError, match="the start structures satisfy"):
            again(runs["a"], folder / "a", **second)
        return
    assert_alike(again(runs["a"], folder / "a", **second), runs["b"])


@pytest.mark.slow
@pytest.mark.parametrize("until", ["first", "explosion"])
def test_copper_with_a_step_too_long(tmp_path, until):
    """EMT that explodes: every narrower limit is passed where a run says it is."""
    copper = bulk("Cu", cubic=True) * (2, 2, 2)
    copper.rattle(0.02, seed=0)
    how = Protocol(
        temperatures_K=(3500.0,),
        timestep_fs=25.0,
        horizon_ps=0.5,
        replicas=2,
        until=until,
        record_interval_steps=1,
    )
    wide = run_stability(EMT(), copper, how, output=tmp_path / "wide")
    assert any(r.first for r in wide.replicas)
    changed = []
    for name, value in (
        ("min_distance_ratio", 0.75),
        ("max_force_eV_per_A", 20.0),
        ("max_temperature_K", 4500.0),
    ):
        criteria = replace(how.criteria, **{name: value})
        folder = tmp_path / name
        narrow = run_stability(
            EMT(), copper, replace(how, criteria=criteria), output=folder
        )
        found = again(wide, tmp_path / "wide", **{name: value})
        assert_alike(found, narrow)
        changed.append(found.replicas != wide.replicas)
        assert_alike(again(narrow, folder, **{name: getattr(how.criteria, name)}), wide)
    assert any(changed)


@pytest.mark.parametrize("what", ["nan-forces", "nan-energy", "raise"])
def test_what_no_limit_decides_stays(tmp_path, what):
    """A hole that atoms fly into, and a limit that they pass a step before or after."""
    model = Beyond(1.0, what)
    how = replace(SPRINGS, ensemble="nve", temperatures_K=(2000.0,), replicas=6)
    wide = run_stability(model, flyer(), how, output=tmp_path / "wide")
    assert 0 < sum(r.explosion is not None for r in wide.replicas) < 6
    unchanged = again(wide, tmp_path / "wide", max_force_eV_per_A=1e3)
    assert unchanged.replicas == wide.replicas
    (way, *_), *_ = read_arrays(extremes_path(tmp_path / "wide/result.json", 0))["way"]
    narrow = again(wide, tmp_path / "wide", max_displacement_A=1e-3)
    assert {r.explosion.cause for r in narrow.replicas} == {"blowup"}
    assert {r.explosion.step for r in narrow.replicas} == {1}
    assert way == 1


def test_the_start_of_kept_velocities_counts(tmp_path):
    """Velocities of 2000 K add to what the temperature may be for a while."""
    atoms = alloy()
    rng = np.random.default_rng(0)
    atoms.set_momenta(start_momenta(atoms, 2000.0, rng, conserve_total=True))
    how = replace(SPRINGS, keep_velocities=True)
    limits = {
        "runaway_sigma": 2.0,
        "runaway_time_fs": 1.0,
        "stored_energy_eV_per_atom": 0.1,
    }
    wide = run_stability(springs(), atoms, how, output=tmp_path / "wide")
    how = replace(how, criteria=replace(NO_LIMITS, **limits))
    narrow = run_stability(springs(), atoms, how, output=tmp_path / "narrow")
    assert all(r.explosion for r in narrow.replicas)
    assert_alike(again(wide, tmp_path / "wide", **limits), narrow)


def test_what_was_seen_survives_an_interrupt_to_the_bit(tmp_path):
    whole = run(tmp_path / "whole", SPRINGS)
    with pytest.raises(RunStoppedError) as stopped:
        run(tmp_path / "halves", SPRINGS, model=springs(50, "interrupt"))
    # what is there of an unfinished run can be judged, too
    partial = stopped.value.result
    limits = {"max_temperature_K": 3000.0}
    found = again(partial, tmp_path / "halves", **limits)
    known = again(whole, tmp_path / "whole", **limits)
    assert found.replicas[0].explosion == known.replicas[0].explosion is not None
    resumed = run(tmp_path / "halves", SPRINGS)
    assert resumed.replicas == whole.replicas
    for index in range(2):
        one, other = (
            read_arrays(extremes_path(tmp_path / name / "result.json", index))
            for name in ("whole", "halves")
        )
        assert one.keys() == other.keys()
        for name, values in one.items():
            assert values.tobytes() == other[name].tobytes(), name


def test_few_steps_are_kept_of_many(tmp_path):
    how = replace(SPRINGS, horizon_ps=2.0, replicas=1)
    run_stability(Einstein(alloy().positions, 6.0), alloy(), how, output=tmp_path)
    seen = read_arrays(extremes_path(tmp_path / "result.json", 0))
    assert seen["temperature_K"].shape == (1001,)
    for name in ("way", "force", "distance", "kinetic"):
        assert len(seen[name]) < 100, name


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"isolation_ratio": 1.4}, "isolation_ratio as in the run .1.5., got 1.4"),
        ({"max_bond_deviation_A": 0.5}, "max_bond_deviation_A as in the run"),
        ({"min_distance_ratio": 1.1}, "min_distance_ratio <= 1, got 1.1"),
        ({"min_distance_ratio": 0.98}, "the start structures satisfy"),
        ({"min_distance": 0.9}, "did you mean 'min_distance_ratio'"),
        ({"max_force_eV_per_A": -1.0}, "max_force_eV_per_A` to be a finite number > 0"),
        ({"max_temperature_K": 40.0}, "temperatures below criteria.max_temperature_K"),
    ],
)
def test_refused(tmp_path, limits, message):
    result = run(tmp_path, replace(SPRINGS, horizon_ps=0.01))
    with pytest.raises(UserError, match=message) as no:
        again(result, tmp_path, **limits)
    assert "\n" not in str(no.value)


def test_a_run_without_what_was_seen_is_refused(tmp_path):
    run(tmp_path, replace(SPRINGS, horizon_ps=0.01))
    extremes_path(tmp_path / "result.json", 1).unlink()
    with pytest.raises(UserError, match="the extremes of replica 1"):
        again(load(tmp_path / "result.json"), tmp_path, max_force_eV_per_A=5.0)
