"""Schedules: closed forms, bounds, refusals."""

from math import cos, pi

import pytest
from hypothesis import strategies as st

from nequip_decorr.errors import UserError
from nequip_decorr.training.options import SCHEDULES, read_schedule
from nequip_decorr.training.schedules import (
    COSINE,
    DIRECTIONS,
    LINEAR,
    Constant,
    Cosine,
    Cyclical,
    Linear,
)
from tests.support.reference import holds_for

NAN, INF = float("nan"), float("inf")


def ramp(kind, coeff, direction="down", **options):
    return SCHEDULES[kind](coeff=coeff, direction=direction, **options)


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
    shapes = {"linear": LINEAR, "cosine": COSINE}
    assert set(HEIGHTS) == {(kind, d) for kind in shapes for d in shapes[kind]}


@pytest.mark.parametrize("shape", list(HEIGHTS))
def test_closed_forms(shape):
    kind, direction = shape
    s = ramp(kind, 3.0, direction, floor=1.0, start=100, stop=500)
    for quarter, height in enumerate(HEIGHTS[shape]):
        position = 100 + 100 * quarter
        assert s.at(position) == pytest.approx(1 + 2 * height, abs=1e-12)


@pytest.mark.parametrize("shape", list(HEIGHTS))
def test_the_first_value_holds_before_and_the_last_after(shape):
    kind, direction = shape
    s = ramp(kind, 3.0, direction, delay=10, start=100, stop=500)
    assert s.at(9.999) == 0
    assert s.at(10) == s.at(99) == s.at(100)
    assert s.at(500) == s.at(501) == s.at(1e9)


def test_the_end_of_a_falling_schedule_is_exactly_0():
    # 0 takes the term out of the loss; 1e-17 would compute it for nothing
    for kind in ("linear", "cosine", "cyclical"):
        assert ramp(kind, 3.0, stop=7).at(7) == 0


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_monotonic(kind):
    up = [ramp(kind, 2.0, "up", stop=300).at(i) for i in range(301)]
    down = [ramp(kind, 2.0, "down", stop=300).at(i) for i in range(301)]
    bump = [ramp(kind, 2.0, "bump", stop=300).at(i) for i in range(301)]
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
    extra = {"cycles": cycles} if kind == "cyclical" else {}
    s = ramp(
        kind,
        coeff,
        direction,
        floor=floor,
        delay=delay,
        start=start,
        stop=start + length,
        **extra,
    )
    value = s.at(position)
    if position < delay:
        assert value == 0
    else:
        slack = 1e-12 * coeff
        assert floor - slack <= value <= coeff + slack


@holds_for(st.floats(0, 10), st.floats(0, 100), st.floats(0, 1000))
def test_constant(coeff, delay, position):
    s = Constant(coeff=coeff, delay=delay)
    assert s.at(position) == (0 if position < delay else coeff)


@pytest.mark.parametrize("end", [1, 1000, INF])
def test_a_constant_needs_no_end(end):
    s = Constant(coeff=0.3, delay=5)
    assert not s.open_ended
    assert [s.at(position, end) for position in (4, 5, 1e12)] == [0, 0.3, 0.3]


def test_a_cyclical_schedule_restarts():
    s = Cyclical(coeff=1.0, cycles=4, start=0, stop=400)
    for cycle in range(4):
        assert s.at(100 * cycle) == 1
        assert s.at(100 * cycle + 50) == pytest.approx(0.5, abs=1e-12)
        assert s.at(100 * cycle + 99) == pytest.approx((1 + cos(0.99 * pi)) / 2)
    assert s.at(400) == s.at(999) == 0


@holds_for(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000))
def test_a_cycle_begins_at_its_step_exactly(cycles, period, start):
    # 1/49 * 49 < 1: a restart must not come a step late by rounding
    s = Cyclical(coeff=2.0, cycles=cycles, start=start, stop=start + cycles * period)
    assert all(s.at(start + k * period) == 2 for k in range(cycles))


def test_one_cycle_is_a_cosine():
    for direction in DIRECTIONS:
        one = Cyclical(coeff=2.0, direction=direction, cycles=1, stop=50)
        plain = Cosine(coeff=2.0, direction=direction, stop=50)
        assert [one.at(i) for i in range(60)] == [plain.at(i) for i in range(60)]


def test_the_end_of_the_training_is_the_stop_that_was_left_open():
    open_ended = Linear(coeff=1.0, delay=10)
    assert open_ended.open_ended
    assert open_ended.at(60, end=110) == pytest.approx(0.5)
    closed = Linear(coeff=1.0, delay=10, stop=20)
    assert not closed.open_ended
    for end in (110, INF):
        assert closed.at(15, end) == pytest.approx(0.5)


def test_an_open_end_is_an_error_not_a_guess():
    with pytest.raises(UserError, match="over a training without an end in steps; set"):
        Cosine(coeff=1.0).at(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "cosin"}, "`schedule.kind` to be one of constant.*got 'cosin'"),
        ({"unit": "batch"}, "`schedule.unit` to be one of step, epoch, fraction, got"),
        ({"direction": "sideways"}, "to be one of up, down, bump, got 'sideways'"),
        ({"coeff": -1.0}, "`schedule.coeff` to be a finite number >= 0, got -1"),
        ({"coeff": NAN}, "`schedule.coeff` to be a finite number >= 0, got nan"),
        ({"coeff": INF}, "`schedule.coeff` to be a finite number >= 0, got inf"),
        ({"coeff": True}, "`schedule.coeff` to be a finite number >= 0, got True"),
        ({"coeff": "3"}, "`schedule.coeff` to be a finite number >= 0, got '3'"),
        ({"coeff": None}, "`schedule.coeff` to be a finite number >= 0, got None"),
        ({"floor": -0.1}, "`schedule.floor` to be a finite number >= 0, got -0.1"),
        ({"floor": NAN}, "`schedule.floor` to be a finite number >= 0, got nan"),
        ({"floor": 1.5}, "`schedule.floor` <= `schedule.coeff`, got 1.5 > 1.0; lower"),
        ({"delay": -1}, "`schedule.delay` to be a finite number >= 0, got -1"),
        ({"delay": NAN}, "`schedule.delay` to be a finite number >= 0, got nan"),
        ({"delay": 7, "start": 3}, "`schedule.start` >= `schedule.delay`, got 3 < 7"),
        ({"start": NAN}, "`schedule.start` to be a finite number >= 0, got nan"),
        ({"stop": NAN}, "`schedule.stop` to be a finite number >= 0, got nan"),
        ({"stop": INF}, "`schedule.stop` to be a finite number >= 0, got inf"),
        ({"stop": "long"}, "`schedule.stop` to be a finite number >= 0, got 'long'"),
        ({"stop": 0}, "stop 0 <= start 0"),
        ({"start": 8, "stop": 8}, "stop 8 <= start 8 in steps; set a later"),
        ({"start": 8, "stop": 5}, "stop 5 <= start 8"),
        ({"delay": 8, "stop": 5}, "stop 5 <= start 8"),
        (
            {"kind": "cyclical", "cycles": 0},
            "`schedule.cycles` to be a whole number >= 1, got 0",
        ),
        ({"kind": "cyclical", "cycles": NAN}, "`schedule.cycles`.*got nan"),
        ({"kind": "cyclical", "cycles": 2.5}, "`schedule.cycles`.*whole.*got 2.5"),
        ({"kind": "cyclical", "cycles": True}, "`schedule.cycles`.*got True"),
    ],
)
def test_bad_options_get_one_line(options, message):
    with pytest.raises(UserError, match=message) as error:
        read_schedule({"kind": "cosine", "coeff": 1.0, **options})
    assert "\n" not in str(error.value)


def test_an_end_before_the_start_is_refused():
    with pytest.raises(UserError, match="stop 100 <= start 200"):
        Cosine(coeff=1.0, delay=200).at(0, end=100)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "cyclical"])
def test_a_warmup_is_a_straight_line_to_what_the_schedule_would_be(kind):
    given = {"kind": kind, "coeff": 2.0, "delay": 10}
    end = 110
    cold, warm = (read_schedule({**given, "warmup": w}) for w in (0, 20))
    assert warm.at(9.9, end) == 0
    for position, share in ((10, 0), (15, 0.25), (20, 0.5), (30, 1), (70, 1)):
        expected = share * cold.at(position, end)
        assert warm.at(position, end) == pytest.approx(expected, abs=1e-12)
