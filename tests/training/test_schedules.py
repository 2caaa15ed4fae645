"""Schedules and the feedback law: closed forms, bounds, a simulated plant, refusals."""

from math import cos, exp, log, pi

import pytest
from hypothesis import strategies as st

from nequip_decorr.errors import UserError
from nequip_decorr.training.schedules import (
    DIRECTIONS,
    SHAPES,
    ControlLaw,
    Guard,
    Schedule,
    control,
    guard,
    refuse_unused,
)
from tests.support.reference import holds_for

NAN, INF = float("nan"), float("inf")
# (kind, direction): height at 0, 1/4, 1/2, 3/4, 1; cos(pi/4) = sqrt(1/2)
LOW, HIGH = (1 - 0.5**0.5) / 2, (1 + 0.5**0.5) / 2
HEIGHTS = {
    ("linear", "up"): (0, 0.25, 0.5, 0.75, 1),
    ("linear", "down"): (1, 0.75, 0.5, 0.25, 0),
    ("linear", "bump"): (0, 0.5, 1, 0.5, 0),
    ("cosine", "up"): (0, LOW, 0.5, HIGH, 1),
    ("cosine", "down"): (1, HIGH, 0.5, LOW, 0),
    ("cosine", "bump"): (0, 0.5, 1, 0.5, 0),
}


def test_every_shape_is_in_the_table():
    assert set(HEIGHTS) == set(SHAPES)


@pytest.mark.parametrize("shape", list(HEIGHTS))
def test_closed_forms(shape):
    kind, direction = shape
    s = Schedule(kind, 3.0, direction, floor=1.0, start=100, stop=500)
    for quarter, height in enumerate(HEIGHTS[shape]):
        position = 100 + 100 * quarter
        assert s.at(position) == pytest.approx(1 + 2 * height, abs=1e-12)


@pytest.mark.parametrize("shape", list(HEIGHTS))
def test_the_first_value_holds_before_and_the_last_after(shape):
    kind, direction = shape
    s = Schedule(kind, 3.0, direction, delay=10, start=100, stop=500)
    assert s.at(9.999) == 0
    assert s.at(10) == s.at(99) == s.at(100)
    assert s.at(500) == s.at(501) == s.at(1e9)


def test_the_end_of_a_falling_schedule_is_exactly_0():
    # 0 takes the term out of the loss; 1e-17 would compute it for nothing
    for kind in ("linear", "cosine", "cyclical"):
        assert Schedule(kind, 3.0, stop=7).at(7) == 0


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_monotonic(kind):
    up = [Schedule(kind, 2.0, "up", stop=300).at(i) for i in range(301)]
    down = [Schedule(kind, 2.0, "down", stop=300).at(i) for i in range(301)]
    bump = [Schedule(kind, 2.0, "bump", stop=300).at(i) for i in range(301)]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    assert bump[:151] == sorted(bump[:151])
    assert bump[150:] == sorted(bump[150:], reverse=True)
    for height in (up, down, bump):
        assert len(set(height)) > 100


@holds_for(
    st.sampled_from(["linear", "cosine", "cyclical"]),
    st.sampled_from(DIRECTIONS),
    st.floats(0, 100),
    st.floats(0, 1),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.floats(1e-3, 1e6),
    st.integers(1, 20),
    st.floats(0, 4e6),
)
def test_between_floor_and_coefficient(
    kind, direction, coeff, share, delay, wait, length, cycles, position
):
    floor = coeff * share
    start = delay + wait
    if start + length == start:
        length = start
    s = Schedule(kind, coeff, direction, floor, delay, start, start + length, cycles)
    value = s.at(position)
    if position < delay:
        assert value == 0
    else:
        slack = 1e-12 * coeff
        assert floor - slack <= value <= coeff + slack


@holds_for(st.floats(0, 10), st.floats(0, 100), st.floats(0, 1000))
def test_constant(coeff, delay, position):
    s = Schedule("constant", coeff, delay=delay)
    assert s.at(position) == (0 if position < delay else coeff)


@pytest.mark.parametrize("horizon", [1, 1000, INF])
def test_a_constant_needs_no_horizon(horizon):
    s = Schedule("constant", 0.3, delay=5).until(horizon)
    assert [s.at(4), s.at(5), s.at(1e12)] == [0, 0.3, 0.3]


def test_a_cyclical_schedule_restarts():
    s = Schedule("cyclical", 1.0, "down", cycles=4, start=0, stop=400)
    for cycle in range(4):
        assert s.at(100 * cycle) == 1
        assert s.at(100 * cycle + 50) == pytest.approx(0.5, abs=1e-12)
        assert s.at(100 * cycle + 99) == pytest.approx((1 + cos(0.99 * pi)) / 2)
    assert s.at(400) == s.at(999) == 0


@holds_for(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000))
def test_a_cycle_begins_at_its_step_exactly(cycles, period, start):
    # 1/49 * 49 < 1: a restart must not come a step late by rounding
    s = Schedule(
        "cyclical", 2.0, cycles=cycles, start=start, stop=start + cycles * period
    )
    assert all(s.at(start + k * period) == 2 for k in range(cycles))


def test_one_cycle_is_a_cosine():
    for direction in DIRECTIONS:
        one = Schedule("cyclical", 2.0, direction, cycles=1, stop=50)
        plain = Schedule("cosine", 2.0, direction, stop=50)
        assert [one.at(i) for i in range(60)] == [plain.at(i) for i in range(60)]


def test_until_fills_what_was_left_open_only():
    open_ended = Schedule("linear", 1.0, delay=10)
    assert open_ended.until(110).at(60) == pytest.approx(0.5)
    closed = Schedule("linear", 1.0, delay=10, stop=20)
    assert closed.until(110) == closed
    assert closed.until(INF) == closed


def test_an_open_end_is_an_error_not_a_guess():
    with pytest.raises(UserError, match="`stop`"):
        Schedule("cosine", 1.0).at(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "cosin"}, "one of .*cosine.*got cosin"),
        ({"kind": "target"}, "expected `schedule`.*got target"),
        ({"direction": "sideways"}, "one of .*bump.*got 'sideways'"),
        ({"coeff": -1.0}, "`coeff` >= 0, got -1"),
        ({"coeff": NAN}, "finite `coeff` >= 0, got nan"),
        ({"coeff": INF}, "finite `coeff` >= 0, got inf"),
        ({"coeff": True}, "`coeff` to be a number >= 0, got True"),
        ({"coeff": "3"}, "`coeff` to be a number >= 0, got '3'"),
        ({"coeff": None}, "`coeff` to be a number >= 0, got None"),
        ({"floor": -0.1}, "`floor` >= 0, got -0.1"),
        ({"floor": NAN}, "`floor` >= 0, got nan"),
        ({"floor": 1.5}, "`floor` <= `coeff`, got 1.5 > 1.0; lower"),
        ({"delay": -1}, "`delay` >= 0, got -1"),
        ({"delay": NAN}, "`delay` >= 0, got nan"),
        ({"delay": 7, "start": 3}, "`start` >= `delay`, got 3 < 7"),
        ({"start": NAN}, "`start` >= 0, got nan"),
        ({"stop": NAN}, "`stop` >= 0, got nan"),
        ({"stop": INF}, "`stop` >= 0, got inf"),
        ({"stop": 0}, "stop 0 <= start 0"),
        ({"start": 8, "stop": 8}, "stop 8 <= start 8; set a later `stop`"),
        ({"start": 8, "stop": 5}, "stop 5 <= start 8"),
        ({"delay": 8, "stop": 5}, "stop 5 <= start 8"),
        ({"cycles": 0}, "`cycles`.*at least 1, got 0"),
        ({"cycles": NAN}, "`cycles`.*at least 1, got nan"),
        ({"cycles": 2.5}, "`cycles`.*whole.*got 2.5"),
        ({"cycles": True}, "`cycles`.*got True"),
    ],
)
def test_bad_options_get_one_line(options, message):
    with pytest.raises(UserError, match=message) as error:
        Schedule(**{"kind": "cosine", "coeff": 1.0, **options})
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("expected ")


def test_a_horizon_before_the_start_is_refused():
    with pytest.raises(UserError, match="stop 100 <= start 200"):
        Schedule("cosine", 1.0, delay=200).until(100)


# --- the feedback law ---


def test_one_update_by_hand():
    law = ControlLaw(target=0.1, rate=0.02, memory=0.5)
    # average = 0.5 * 0.04 + 0.5 * (0.2 - 0.1) = 0.07; change = 0.02 * 0.07 / 0.1
    coeff, average = control(law, 2.0, 0.04, 0.2, hold=False)
    assert average == pytest.approx(0.07, rel=1e-12)
    assert coeff == pytest.approx(2 * exp(0.014), rel=1e-12)


@pytest.mark.parametrize("start", [1e-3, 1.0, 9.0])
@pytest.mark.parametrize("target", [0.02, 0.1, 0.3])
def test_it_holds_a_simulated_correlation_at_the_target(start, target):
    # a plant that decorrelates the more the larger the coefficient, and lags behind
    law = ControlLaw(target=target, rate=0.05, memory=0.9)
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
    ControlLaw,
    target=st.floats(1e-3, 0.999),
    rate=st.floats(1e-4, 100),
    memory=st.floats(0, 0.999),
)
MEASURED = st.floats(-2, 1)


@holds_for(LAWS, st.floats(1e-4, 10), st.floats(-2, 2), MEASURED, st.booleans())
def test_a_change_is_bounded_and_holding_never_raises(law, coeff, before, seen, hold):
    after, average = control(law, coeff, before, seen, hold)
    assert law.minimum <= after <= law.maximum
    assert abs(log(after / coeff)) <= law.max_change + 1e-12
    assert min(before, seen - law.target) - 1e-12 <= average
    assert average <= max(before, seen - law.target) + 1e-12
    if hold:
        assert after <= coeff


@holds_for(LAWS, st.floats(1e-3, 1), st.sampled_from([-1, 1]))
def test_it_moves_towards_the_target(law, coeff, side):
    after, _ = control(law, coeff, 0.0, law.target * (1 + side * 0.5), hold=False)
    assert (after > coeff) == (side > 0)
    assert (after < coeff) == (side < 0)


@holds_for(
    LAWS, st.floats(1e-4, 10), st.floats(-2, 2), st.sampled_from([NAN, INF, -INF])
)
def test_a_measurement_that_is_not_finite_changes_nothing(law, coeff, before, bad):
    assert control(law, coeff, before, bad, hold=False) == (coeff, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 0}, "`target`.*between 0 and 1, got 0"),
        ({"target": 1}, "`target`.*got 1"),
        ({"target": -0.1}, "`target`.*got -0.1"),
        ({"target": NAN}, "`target`.*got nan"),
        ({"target": INF}, "`target`.*got inf"),
        ({"target": None}, "`target`.*got None"),
        ({"target": True}, "`target`.*got True"),
        ({"target": "low"}, "`target`.*got low"),
        ({"rate": 0}, "`rate`.* > 0, got 0"),
        ({"rate": NAN}, "`rate` >= 0, got nan"),
        ({"rate": INF}, "`rate` >= 0, got inf"),
        ({"rate": "fast"}, "`rate` to be a number >= 0, got 'fast'"),
        ({"memory": 1}, r"`memory` in \[0, 1\), got 1"),
        ({"memory": NAN}, "`memory` >= 0, got nan"),
        ({"max_change": 0}, "`max_change` > 0, got .* 0"),
        ({"max_change": NAN}, "`max_change` >= 0, got nan"),
        ({"max_change": -1}, "`max_change` >= 0, got -1"),
        ({"minimum": 0}, "0 < `minimum` <= `maximum`, got 0"),
        ({"minimum": 20}, "`minimum` <= `maximum`, got 20 and 10"),
        ({"maximum": NAN}, "`maximum` >= 0, got nan"),
        ({"maximum": INF}, "`maximum` >= 0, got inf"),
    ],
)
def test_bad_laws_get_one_line(options, message):
    with pytest.raises(UserError, match=message) as error:
        ControlLaw(**{"target": 0.1, **options})
    assert "\n" not in str(error.value)


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


DEFAULTS = {
    "direction": "down",
    "floor": 0.0,
    "start": None,
    "stop": None,
    "horizon": None,
    "cycles": 4,
    "target": None,
    "rate": 0.01,
    "max_coeff": 10.0,
    "guard_monitor": "val0_epoch/forces_rmse",
    "guard_band": 0.05,
}


@pytest.mark.parametrize(
    ("schedule", "name", "value", "used"),
    [
        ("constant", "stop", 1000, False),
        ("constant", "floor", 0.1, False),
        ("constant", "target", 0.05, False),
        ("cosine", "cycles", 3, False),
        ("cosine", "stop", 1000, True),
        ("linear", "direction", "up", True),
        ("cyclical", "cycles", 3, True),
        ("target", "direction", "up", False),
        ("target", "horizon", 100, False),
        ("target", "max_coeff", 3.0, True),
    ],
)
def test_an_option_that_a_schedule_does_not_use_is_refused(schedule, name, value, used):
    given = {**DEFAULTS, name: value}
    refuse_unused(schedule, DEFAULTS, DEFAULTS)
    if used:
        refuse_unused(schedule, given, DEFAULTS)
        return
    with pytest.raises(UserError, match=f"no `{name}` with schedule {schedule}"):
        refuse_unused(schedule, given, DEFAULTS)
