"""The running average of the rest of the loss, against its definition."""

import json
from math import inf, nan

import numpy as np
import pytest
from hypothesis import strategies as st

from nequip_decorr.training.relative import DECAY, RunningLoss
from tests.support.reference import holds_for


def after(*values, loss=None):
    loss = RunningLoss() if loss is None else loss
    for value in values:
        loss.add(value, stepped=True)
    return loss


STEADY = st.lists(st.floats(1.0, 2.0), min_size=1, max_size=80)


@holds_for(STEADY)
def test_it_is_the_weighted_mean_with_falling_weights(values):
    weights = DECAY ** np.arange(len(values))[::-1]
    assert after(*values).value == pytest.approx(np.average(values, weights=weights))


@holds_for(STEADY, st.integers(-60, 60))
def test_it_has_the_units_of_the_loss(values, power):
    scaled = [value * 2.0**power for value in values]
    assert after(*scaled).value == after(*values).value * 2.0**power


def test_it_is_0_before_the_first_step_and_the_first_value_after_it():
    assert RunningLoss().value == 0
    assert after(7.0).value == pytest.approx(7.0, rel=1e-12)


def test_a_step_counts_by_the_mean_of_its_batches():
    loss = RunningLoss()
    for value, stepped in ((1.0, False), (3.0, True), (5.0, False), (11.0, True)):
        loss.add(value, stepped)
    assert loss.value == after(2.0, 8.0).value


def test_batches_that_wait_for_a_step_do_not_count_yet():
    loss = after(2.0)
    loss.add(100.0, stepped=False)
    assert loss.value == after(2.0).value


@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_a_step_that_is_not_finite_does_not_count(bad):
    assert after(bad).value == 0
    assert after(3.0, bad, 3.5).value == after(3.0, 3.5).value


def test_a_spike_counts_as_ten_times_the_average_at_most():
    before = after(*[2.0] * 200)
    spiked = after(1e30, loss=before).value
    expected = 2.0 * (DECAY + (1 - DECAY) * 10)
    assert spiked == pytest.approx(expected, rel=0.02)  # 200 steps: nearly steady
    assert spiked < 1.2 * 2.0


def test_a_loss_that_stays_larger_is_followed():
    assert after(*[1.0] * 100, *[1e6] * 400).value == pytest.approx(1e6, rel=0.1)


@pytest.mark.parametrize("nothing", [0.0, -5.0])
def test_a_loss_of_0_is_0_and_not_the_end(nothing):
    loss = after(*[nothing] * 5)
    assert loss.value == 0
    assert after(4.0, loss=loss).value > 0


def test_a_restart_continues_bit_by_bit():
    values = np.random.default_rng(0).lognormal(size=40).tolist()
    whole = after(*values)
    resumed = RunningLoss()
    resumed.restore(json.loads(json.dumps(after(*values[:17]).state())))
    assert after(*values[17:], loss=resumed).value == whole.value
