"""Progress of a training: one curve for all loaders, each batch met alike."""

from fractions import Fraction
from math import inf

import pytest
from hypothesis import strategies as st

from nequip_decorr.training.progress import Progress, Scale, latest_end
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
