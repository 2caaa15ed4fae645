"""What sets the coefficient: schedules are stateless, a controller resumes exactly."""

import json

import pytest
from hypothesis import strategies as st

from nequip_decorr.errors import UserError
from nequip_decorr.training.schedules import ControlLaw, Guard, Schedule
from nequip_decorr.training.steering import Scheduled, Steering, Targeted
from tests.support.reference import holds_for

NAN, INF = float("nan"), float("inf")
LAW = ControlLaw(target=0.05, rate=0.1)

EVENTS = st.lists(
    st.tuples(st.just("measured"), st.floats(-1, 1))
    | st.tuples(st.just("validated"), st.floats(0, 10) | st.just(NAN)),
    max_size=30,
)


def targeted(initial=1.0, delay=0.0, band=0.05, law=LAW) -> Steering:
    return Targeted(law, initial, delay, band)


def play(steering, events):
    trace = []
    for name, value in events:
        line = getattr(steering, name)(value)
        trace.append((steering.coefficient(100, 1000), line))
    return trace


def test_scheduled_takes_the_horizon_where_none_is_set():
    open_ended = Scheduled(Schedule("linear", 2.0, "up"))
    assert open_ended.coefficient(50, 200) == pytest.approx(0.5)
    assert open_ended.coefficient(50, 100) == pytest.approx(1.0)
    fixed = Scheduled(Schedule("linear", 2.0, "up", stop=400))
    assert fixed.coefficient(50, 200) == pytest.approx(0.25)


def test_scheduled_refuses_a_horizon_before_its_start():
    with pytest.raises(UserError, match=r"stop 100.* <= start 300"):
        Scheduled(Schedule("cosine", 1.0, delay=300)).coefficient(0, 100)


def test_a_constant_coefficient_goes_with_a_training_without_an_end():
    assert Scheduled(Schedule("constant", 0.3)).coefficient(10**9, INF) == 0.3


@holds_for(EVENTS)
def test_scheduled_has_no_state(events):
    steering = Scheduled(Schedule("cosine", 1.0, stop=200))
    before = steering.coefficient(70, 200)
    assert all(line is None for _, line in play(steering, events))
    assert steering.coefficient(70, 200) == before
    assert steering.state() == {}
    assert not steering.needs_measurement
    # the state of a controller, when the schedule was changed at a restart
    steering.restore(targeted().state())
    assert steering.coefficient(70, 200) == before


def test_targeted_is_off_before_its_delay():
    steering = targeted(initial=0.7, delay=10)
    assert steering.needs_measurement
    assert [steering.coefficient(p, 100) for p in (0, 9.9, 10, 99)] == [0, 0, 0.7, 0.7]


@holds_for(EVENTS, EVENTS)
def test_a_restart_continues_bit_for_bit(before, after):
    running = targeted()
    play(running, before)
    saved = json.loads(json.dumps(running.state(), allow_nan=False))
    resumed = targeted(initial=5.0)
    resumed.restore(saved)
    assert play(resumed, after) == play(running, after)
    assert resumed.state() == running.state()


def test_a_restart_keeps_to_the_bounds_of_the_present_law():
    running = targeted(initial=8.0)
    resumed = targeted(law=ControlLaw(target=0.05, maximum=2.0))
    resumed.restore(running.state())
    assert resumed.coefficient(0, 1) == 2.0


def test_a_restart_from_a_schedule_begins_anew():
    steering = targeted(initial=0.4)
    steering.restore(Scheduled(Schedule("constant", 3.0)).state())
    assert steering.state() == targeted(initial=0.4).state()


@holds_for(EVENTS)
def test_the_coefficient_stays_within_the_law_and_finite(events):
    for coeff, _ in play(targeted(), events):
        assert LAW.minimum <= coeff <= LAW.maximum


def test_out_of_the_band_it_is_halved_and_kept_from_rising_until_back():
    steering = targeted(initial=1.0, band=0.1)
    assert steering.validated(2.0) is None
    steering.measured(0.9)
    raised = steering.coefficient(0, 1)
    assert raised > 1
    line = steering.validated(2.3)
    assert "2.3 " in line
    assert "10%" in line
    assert "(2)" in line
    halved = steering.coefficient(0, 1)
    assert halved == raised / 2
    for _ in range(20):
        steering.measured(0.9)
    assert steering.coefficient(0, 1) == halved
    # still outside: halved again, but said once
    assert steering.validated(2.3) is None
    assert steering.coefficient(0, 1) == halved / 2
    assert "back within 10%" in steering.validated(2.1)
    steering.measured(0.9)
    assert steering.coefficient(0, 1) > halved / 2


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_first_validation_that_is_not_finite_also_guards(bad):
    steering = targeted(initial=1.0)
    line = steering.validated(bad)
    assert "none yet" in line
    assert steering.coefficient(0, 1) == 0.5
    assert steering.state()["best"] is None
    assert "back within" in steering.validated(3.0)
    assert steering.guard == Guard(best=3.0, active=False)


def test_halving_stops_at_the_minimum():
    steering = targeted(initial=1.0)
    steering.validated(1.0)
    for _ in range(60):
        steering.validated(NAN)
    assert steering.coefficient(0, 1) == LAW.minimum


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial": -1}, "`coeff` >= 0, got -1"),
        ({"initial": NAN}, "`coeff` >= 0, got nan"),
        ({"initial": True}, "`coeff` to be a number >= 0, got True"),
        ({"delay": -1}, "`delay` >= 0, got -1"),
        ({"delay": INF}, "`delay` >= 0, got inf"),
        ({"band": -0.1}, "`guard_band` >= 0, got -0.1"),
        ({"band": NAN}, "`guard_band` >= 0, got nan"),
    ],
)
def test_bad_options_get_one_line(options, message):
    with pytest.raises(UserError, match=message):
        targeted(**options)


@pytest.mark.parametrize("initial", [30.0, 1e-6])
def test_an_initial_coefficient_outside_the_bounds_is_refused(initial):
    with pytest.raises(UserError, match=f"`max_coeff` 10.0 .* got {initial}"):
        targeted(initial)
    assert targeted(0.0).coefficient(0, 1) == 0  # no term: it only monitors
