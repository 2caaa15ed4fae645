"""Schedule ``target``: the law, a simulated plant, the guard, exact resumes."""

import json
from math import exp, log

import pytest
from hypothesis import strategies as st

from nequip_decorr.errors import UserError
from nequip_decorr.training.course import Course
from nequip_decorr.training.feedback import (
    MAX_CHANGE,
    MIN_COEFF,
    Controller,
    Guard,
    Target,
    control,
    guard,
)
from nequip_decorr.training.schedules import Constant
from tests.support.reference import holds_for

NAN, INF = float("nan"), float("inf")


# --- the feedback law ---


def test_one_update_by_hand():
    law = Target(level=0.1, rate=0.02)
    # average = 0.9 * 0.04 + 0.1 * (0.2 - 0.1) = 0.046; change = 0.02 * 0.046 / 0.1
    coeff, average = control(law, 2.0, 0.04, 0.2, hold=False)
    assert average == pytest.approx(0.046, rel=1e-12)
    assert coeff == pytest.approx(2 * exp(0.0092), rel=1e-12)


@pytest.mark.parametrize("start", [1e-3, 1.0, 9.0])
@pytest.mark.parametrize("target", [0.02, 0.1, 0.3])
def test_it_holds_a_simulated_correlation_at_the_target(start, target):
    # a plant that decorrelates the more the larger the coefficient, and lags behind
    law = Target(level=target, rate=0.05)
    coeff, average, level = start, 0.0, 0.5
    seen = []
    for _ in range(4000):
        level += 0.05 * (0.5 / (1 + coeff * 10) - level)
        coeff, average = control(law, coeff, average, level, hold=False)
        seen.append(level)
    assert seen[-1] == pytest.approx(target, rel=0.01)
    # the coefficient that this plant needs
    assert coeff == pytest.approx((0.5 / target - 1) / 10, rel=0.05)


LAWS = st.builds(
    Target,
    level=st.floats(1e-3, 0.999),
    rate=st.floats(1e-4, 100),
)
MEASURED = st.floats(-2, 1)


@holds_for(LAWS, st.floats(1e-4, 10), st.floats(-2, 2), MEASURED, st.booleans())
def test_a_change_is_bounded_and_holding_never_raises(law, coeff, before, seen, hold):
    after, average = control(law, coeff, before, seen, hold)
    assert MIN_COEFF <= after <= law.max_coeff
    assert abs(log(after / coeff)) <= MAX_CHANGE + 1e-12
    assert min(before, seen - law.level) - 1e-12 <= average
    assert average <= max(before, seen - law.level) + 1e-12
    if hold:
        assert after <= coeff


@holds_for(LAWS, st.floats(1e-3, 1), st.sampled_from([-1, 1]))
def test_it_moves_towards_the_target(law, coeff, side):
    after, _ = control(law, coeff, 0.0, law.level * (1 + side * 0.5), hold=False)
    assert (after > coeff) == (side > 0)
    assert (after < coeff) == (side < 0)


@holds_for(
    LAWS, st.floats(1e-4, 10), st.floats(-2, 2), st.sampled_from([NAN, INF, -INF])
)
def test_a_measurement_that_is_not_finite_changes_nothing(law, coeff, before, bad):
    assert control(law, coeff, before, bad, hold=False) == (coeff, before)


# --- the guard ---


def test_the_guard_follows_the_best_error():
    state = Guard()
    history = [(1.0, 1.0, False), (1.04, 1.0, False), (1.06, 1.0, True)]
    history += [(1.05, 1.0, False), (0.5, 0.5, False), (0.6, 0.5, True)]
    for error, best, active in history:
        state = guard(state, error, band=0.05)
        assert state == Guard(best, active), error


@pytest.mark.parametrize("bad", [NAN, INF])
def test_an_error_that_is_not_finite_activates_the_guard(bad):
    assert guard(Guard(), bad, 0.05) == Guard(None, True)
    assert guard(Guard(best=1.0), bad, 0.05) == Guard(1.0, True)
    assert guard(Guard(best=1.0, active=True), 1.0, 0.05) == Guard(1.0, False)


@holds_for(st.lists(st.floats(0, 10), min_size=1), st.floats(0, 1))
def test_best_is_the_smallest_error_so_far(errors, band):
    state = Guard()
    for i, error in enumerate(errors):
        best_before = min(errors[:i], default=error)
        state = guard(state, error, band)
        assert state.best == min(errors[: i + 1])
        assert state.active == (error > best_before * (1 + band))


# --- during a training ---

EVENTS = st.lists(
    st.tuples(st.just("measured"), st.floats(-1, 1))
    | st.tuples(st.just("validated"), st.floats(0, 10) | st.just(NAN)),
    max_size=30,
)


def controller(initial=1.0, **options):
    options = {"level": 0.05, "rate": 0.1, **options}
    return Controller(Target(coeff=initial, **options))


def play(steering, events):
    trace = []
    for name, value in events:
        line = getattr(steering, name)(value)
        trace.append((steering.coefficient(100), line))
    return trace


def test_it_is_off_before_its_delay():
    steering = controller(initial=0.7, delay=10)
    assert [steering.coefficient(p) for p in (0, 9.9, 10, 99)] == [0, 0, 0.7, 0.7]


@holds_for(EVENTS, EVENTS)
def test_a_restart_continues_bit_for_bit(before, after):
    running = controller()
    play(running, before)
    saved = json.loads(json.dumps(running.state(), allow_nan=False))
    resumed = controller(initial=5.0)
    resumed.restore(saved)
    assert play(resumed, after) == play(running, after)
    assert resumed.state() == running.state()


def test_a_restart_keeps_to_the_bounds_of_the_present_law():
    running = controller(initial=8.0)
    resumed = controller(max_coeff=2.0)
    resumed.restore(running.state())
    assert resumed.coefficient(0) == 2.0


def test_before_its_delay_the_guard_keeps_the_best_error_and_halves_nothing():
    steering = controller(initial=0.3, delay=20)
    for position, error in enumerate([2.0, 2.5, 1.0, 3.0, NAN]):
        assert steering.validated(error, position) is None
    assert steering.coefficient(20) == 0.3
    assert steering.guard == Guard(best=1.0)
    assert "halved to 0.15" in steering.validated(3.0, 20)


def test_a_restart_from_a_schedule_begins_anew():
    steering = controller(initial=0.4)
    steering.restore(Course(Constant()).state()["feedback"])
    assert steering.state() == controller(initial=0.4).state()


@holds_for(EVENTS)
def test_the_coefficient_stays_within_the_law_and_finite(events):
    for coeff, _ in play(controller(), events):
        assert MIN_COEFF <= coeff <= 10


def test_out_of_the_band_it_is_halved_and_kept_from_rising_until_back():
    steering = controller(initial=1.0, guard_band=0.1)
    assert steering.validated(2.0) is None
    steering.measured(0.9)
    raised = steering.coefficient(0)
    assert raised > 1
    line = steering.validated(2.3)
    assert "2.3 " in line
    assert "10%" in line
    assert "(2)" in line
    halved = steering.coefficient(0)
    assert halved == raised / 2
    for _ in range(20):
        steering.measured(0.9)
    assert steering.coefficient(0) == halved
    # still outside: halved again, but said once
    assert steering.validated(2.3) is None
    assert steering.coefficient(0) == halved / 2
    assert "within 10% of its best again" in steering.validated(2.1)
    steering.measured(0.9)
    assert steering.coefficient(0) > halved / 2


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_first_validation_that_is_not_finite_also_guards(bad):
    steering = controller(initial=1.0)
    line = steering.validated(bad)
    assert "none yet" in line
    assert steering.coefficient(0) == 0.5
    assert steering.state()["best"] is None
    assert "best again" in steering.validated(3.0)
    assert steering.guard == Guard(best=3.0, active=False)


def test_halving_stops_at_the_minimum():
    steering = controller(initial=1.0)
    steering.validated(1.0)
    for _ in range(60):
        steering.validated(NAN)
    assert steering.coefficient(0) == MIN_COEFF


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 0}, "`schedule.level` to be a finite number > 0 and < 1, got 0"),
        ({"level": 1}, "`schedule.level`.* < 1, got 1"),
        ({"level": -0.1}, "`schedule.level`.*got -0.1"),
        ({"level": NAN}, "`schedule.level`.*got nan"),
        ({"level": INF}, "`schedule.level`.*got inf"),
        ({"level": None}, "`schedule.level`.*got None"),
        ({"level": True}, "`schedule.level`.*got True"),
        ({"level": "low"}, "`schedule.level`.*got 'low'"),
        ({"rate": 0}, "`schedule.rate` to be a finite number > 0, got 0"),
        ({"rate": NAN}, "`schedule.rate` to be a finite number > 0, got nan"),
        ({"rate": INF}, "`schedule.rate` to be a finite number > 0, got inf"),
        ({"rate": "fast"}, "`schedule.rate` to be a finite number > 0, got 'fast'"),
        ({"max_coeff": NAN}, "`schedule.max_coeff` to be a finite number > 0, got nan"),
        ({"max_coeff": INF}, "`schedule.max_coeff` to be a finite number > 0, got inf"),
        ({"max_coeff": 1e-5}, "`schedule.max_coeff` 1e-05, got 1.0"),
        ({"initial": -1}, "`schedule.coeff` to be a finite number >= 0, got -1"),
        ({"initial": NAN}, "`schedule.coeff` to be a finite number >= 0, got nan"),
        ({"initial": True}, "`schedule.coeff` to be a finite number >= 0, got True"),
        ({"initial": 30.0}, "`schedule.max_coeff` 10.0, got 30.0"),
        ({"initial": 1e-6}, "`schedule.max_coeff` 10.0, got 1e-06"),
        ({"delay": -1}, "`schedule.delay` to be a finite number >= 0, got -1"),
        ({"delay": INF}, "`schedule.delay` to be a finite number >= 0, got inf"),
        (
            {"guard_band": -0.1},
            "`schedule.guard_band` to be a finite number >= 0, got -0.1",
        ),
        (
            {"guard_band": NAN},
            "`schedule.guard_band` to be a finite number >= 0, got nan",
        ),
    ],
)
def test_bad_options_get_one_line(options, message):
    with pytest.raises(UserError, match=message) as error:
        controller(**options)
    assert "\n" not in str(error.value)


def test_a_coefficient_of_0_only_monitors():
    assert controller(0.0).coefficient(0) == 0
