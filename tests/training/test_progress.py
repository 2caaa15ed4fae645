"""Progress of a training: one curve for all loaders, each batch met alike."""

from fractions import Fraction
from math import inf

import pytest
from hypothesis import strategies as st

from nequip_decorr.errors import UserError
from nequip_decorr.training.progress import Progress, Scale, latest_end
from nequip_decorr.training.schedules import Schedule
from nequip_decorr.training.steering import Course, Scheduled
from tests.support.reference import holds_for

UNITS = st.sampled_from(["step", "epoch"])
LENGTHS = st.integers(1, 500)


def at(epoch, step, length, before=0):
    """Progress with a loader of ``length`` steps after ``before`` steps of others."""
    return Progress(epoch, step, length, before + epoch * (length or 0) + step)


def test_by_hand():
    now = at(epoch=2, step=3, length=4)
    assert Scale("epoch", 10).position(now) == 2.75
    # steps as they were when the training started, ten in an epoch
    assert Scale("step", 10).position(now) == 27.5
    assert Scale("step", 10).end(now, 4, -1) == 40
    # 5 of 16 steps are left, which are 5/4 epochs
    assert Scale("epoch", 10).end(now, -1, 16) == 4
    assert Scale("step", 10).end(now, 3, 16) == 30


@holds_for(UNITS, LENGTHS, st.integers(0, 1000), LENGTHS, st.integers(1, 20), st.data())
def test_equal_progress_is_one_position_with_any_loader(
    unit, start, epoch, length, finer, data
):
    step = data.draw(st.integers(0, length - 1))
    scale = Scale(unit, start)
    coarse, fine = at(epoch, step, length), at(epoch, step * finer, length * finer)
    assert scale.position(coarse) == scale.position(fine)
    assert scale.end(coarse, 2000, -1) == scale.end(fine, 2000, -1)


@holds_for(LENGTHS, st.integers(0, 100), st.data())
def test_with_one_loader_a_step_is_an_optimizer_step(length, epoch, data):
    now = at(epoch, data.draw(st.integers(0, length - 1)), length)
    assert Scale("step", length).position(now) == now.global_step
    assert Scale("step", length).end(now, 101, -1) == 101 * length


@holds_for(UNITS, LENGTHS, LENGTHS, st.integers(0, 10**6), st.integers(1, 10**4))
def test_what_max_steps_leaves_is_the_same_at_every_step(
    unit, start, length, before, left
):
    # after other loaders made `before` steps, in however many epochs
    ends = {
        Scale(unit, start).end(at(3 + k, j, length, before), -1, before + left)
        for k, j in ((0, 0), (0, length - 1), (1, 0), (7, length // 2))
    }
    assert len(ends) == 1


@holds_for(UNITS, LENGTHS, LENGTHS, st.integers(0, 10**4), st.data())
def test_a_position_is_the_nearest_float(unit, start, length, epoch, data):
    step = data.draw(st.integers(0, length - 1))
    units = start if unit == "step" else 1
    exact = float((epoch + Fraction(step, length)) * units)
    assert Scale(unit, start).position(at(epoch, step, length)) == exact


def test_a_loader_without_a_length_counts_what_there_is():
    now = Progress(epoch=3, step=17, steps_per_epoch=None, global_step=1017)
    assert Scale("step", None).position(now) == 1017
    assert Scale("epoch", None).position(now) == 3
    assert Scale("step", None).end(now, 5, -1) == inf
    assert Scale("step", None).end(now, 5, 2000) == 2000
    assert Scale("epoch", None).end(now, 5, 2000) == 5
    assert Scale("epoch", None).end(now, -1, 2000) == inf
    # nor can it be told apart from one that got or lost its length at a restart
    assert Scale("step", 10).position(now) == 1017
    assert Scale("step", None).position(at(3, 1, 10)) == 31


@pytest.mark.parametrize(
    ("unit", "max_epochs", "max_steps", "end"),
    [
        ("step", -1, -1, inf),
        ("epoch", -1, -1, inf),
        ("step", 5, -1, None),
        ("step", 5, 100, 100),
        ("epoch", 5, 100, 5),
        ("epoch", -1, 100, None),
    ],
)
def test_the_latest_end_by_the_limits_alone(unit, max_epochs, max_steps, end):
    assert latest_end(unit, max_epochs, max_steps) == end


@holds_for(st.integers(1, 12), st.integers(1, 40), st.integers(0, 50))
def test_in_so_many_epochs_each_batch_is_met_once(every, batches, first):
    met = [
        step
        for epoch in range(first, first + every)
        for step in range(batches)
        if at(epoch, step, batches).enters(every)
    ]
    assert sorted(met) == list(range(batches))


def test_each_step_is_entered_where_every_is_1():
    assert all(at(epoch, step, 7).enters(1) for epoch in range(3) for step in range(7))


# --- a course over a training that is interrupted ---


def curve(course, loaders, max_epochs):
    """Coefficients by progress; ``loaders`` are the steps of each epoch in turn."""
    found, made = {}, 0
    for epoch, length in enumerate(loaders):
        for step in range(length):
            now = Progress(epoch, step, length, made)
            course.locate(now, max_epochs, -1)
            found[epoch + Fraction(step, length)] = course.coefficient()
            made += 1
    return found


def course(unit="step", horizon=None, **options):
    options = {"kind": "cosine", "coeff": 3.0, **options}
    return Course(Scheduled(Schedule(**options)), unit, horizon)


@pytest.mark.parametrize("unit", ["step", "epoch"])
@pytest.mark.parametrize("loaders", [[5, 5, 2, 2], [2, 2, 5, 5], [10, 1, 3, 10]])
def test_a_change_of_loader_does_not_bend_the_curve(unit, loaders):
    whole = curve(course(unit), [30] * 4, 4)
    changed = curve(course(unit), loaders, 4)
    assert len(changed) == sum(loaders)
    for epochs, coefficient in changed.items():
        assert coefficient == pytest.approx(whole[epochs], rel=1e-12)


def test_both_units_give_one_curve():
    by_step = curve(course("step", delay=10, stop=30), [10] * 4, 4)
    by_epoch = curve(course("epoch", delay=1, stop=3), [10] * 4, 4)
    assert by_step == pytest.approx(by_epoch, rel=1e-12)


def test_a_restart_keeps_the_scale_of_steps():
    first = course(delay=10, stop=30)
    curve(first, [10], 4)
    resumed = course(delay=10, stop=30)
    resumed.restore(first.state())
    resumed.locate(Progress(2, 1, 4, 25), 4, -1)  # 4 steps an epoch from now on
    assert resumed.position == 22.5
    assert resumed.end == 40
    fresh = course(delay=10, stop=30)
    fresh.locate(Progress(2, 1, 4, 25), 4, -1)
    assert fresh.position == 9


def test_a_state_from_before_the_first_batch_has_no_scale():
    resumed = course()
    resumed.restore(course().state())
    resumed.locate(at(0, 3, 10), 4, -1)
    assert resumed.position == 3


def test_a_horizon_takes_the_place_of_the_end():
    short = course(horizon=20)
    short.locate(at(1, 0, 10), 4, -1)
    assert short.end == 40
    assert short.horizon == 20
    assert short.coefficient() == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "batch"}, "`unit` to be step or epoch, got 'batch'"),
        ({"horizon": -1}, "`horizon` >= 0, got -1"),
        ({"horizon": "long"}, "`horizon` to be a number >= 0, got 'long'"),
        ({"horizon": 10, "delay": 10}, "stop 10.0 <= start 10"),
    ],
)
def test_a_bad_course_is_refused_when_it_is_made(options, message):
    with pytest.raises(UserError, match=message):
        course(**options)


@pytest.mark.parametrize(
    ("options", "limits", "message"),
    [
        ({}, (-1, -1), "without an end in steps; set trainer.max_steps, or `horizon`"),
        ({"unit": "epoch"}, (-1, -1), "in epochs; set trainer.max_epochs"),
        ({"unit": "epoch", "delay": 5}, (5, -1), "stop 5.0 <= start 5"),
        ({"delay": 100}, (-1, 100), "stop 100.0 <= start 100"),
    ],
)
def test_limits_that_are_too_short_are_known_before_the_data(options, limits, message):
    with pytest.raises(UserError, match=message) as error:
        course(**options).check(*limits, restarts=False)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "limits", "restarts"),
    [
        ({"horizon": 10}, (-1, -1), False),
        ({"stop": 10}, (-1, -1), False),
        ({"kind": "constant"}, (-1, -1), False),
        ({"delay": 100}, (100, -1), False),  # steps, of a loader not seen yet
        ({"delay": 100}, (-1, 100), True),  # steps, of which a restart made longer ones
    ],
)
def test_what_cannot_be_known_is_not_refused(options, limits, restarts):
    course(**options).check(*limits, restarts=restarts)
