"""The ratio of two models' times: where most fail, invariances, and simulations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nequip_decorr.md.statistics.time_ratio import (
    MIN_FAILED,
    log_time_differences,
    pseudo_log_times,
)
from nequip_decorr.md.statistics.times import Times
from tests.support.comparisons import (
    EARLY,
    HORIZON,
    MID,
    RARE,
    STEP,
    Design,
    rejections,
)
from tests.support.ratios import TAU, drawn, paired, ratio_of, times

# --- where most fail -----------------------------------------------------------------


def test_mean_log_ratio_of_structures():
    first, second = times([2, 4, 1, 9, 3, 3]), times([1, 1, 1, 3, 2, 6])
    found = ratio_of(first, second, unit=[0, 0, 1, 1, 2, 2])
    d = np.log([2 * 4, 1 * 3, (3 / 2) * (3 / 6)]) / 2
    expected = np.exp(stats.ttest_1samp(d, 0.0).confidence_interval(0.95))
    assert (found.method, found.units) == ("log times", 3)
    assert found.value == pytest.approx(18 ** (1 / 6))
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.sign_flip_p is None
    assert found.longer is None


def test_survivors_count_to_the_horizon_and_nothing_is_faster_than_a_step():
    first, second = times([20, 2, 2, 2, 2, 2]), times([5, 0, 0.0004, 1, 1, 1])
    found = ratio_of(first, second, step=0.001)
    assert found.method == "log times"
    expected = [10 / 5, 2 / 0.001, 2 / 0.001, 2, 2, 2]
    assert found.value == pytest.approx(stats.gmean(expected))


def test_less_than_eighty_percent_of_one_model_is_too_few():
    assert MIN_FAILED == 0.8
    second = times([1] * 10)
    assert ratio_of(times([2] * 8 + [20] * 2), second).method == "log times"
    assert ratio_of(times([2] * 7 + [20] * 3), second).method == "hazards"
    assert ratio_of(second, times([2] * 7 + [20] * 3)).method == "hazards"


def test_pseudo_values_by_hand():
    """Failures at 1 and 4, one censored at 2, up to 10."""
    found = pseudo_log_times(
        Times(np.array([1.0, 2.0, 4.0]), np.array([True, False, True])), TAU, 1.0
    )
    everybody = 2 / 3 * np.log(4)  # S = 2/3 up to 4, then 0; log 1 = 0
    without = [np.log(4), np.log(4) / 2, np.log(10) / 2]
    assert found == pytest.approx([3 * everybody - 2 * w for w in without])


def test_pseudo_values_are_the_values_while_nobody_is_lost():
    found = pseudo_log_times(times([0.5, 20, 3, 3]), TAU, 0.1)
    assert found == pytest.approx(np.log([5, 100, 30, 30]))


def test_lost_replicas_do_not_shorten_a_models_times():
    """Interrupted at any time in half of the cases: the mean of log T, on average."""
    rng = np.random.default_rng(2)
    kept, dropped = [], []
    for _ in range(400):
        time = np.minimum(rng.exponential(0.3 * TAU, size=30), TAU)
        end = np.where(rng.random(30) < 0.5, TAU * rng.random(30), TAU)
        seen = Times(np.minimum(time, end), time <= end)
        kept.append(np.mean(pseudo_log_times(seen, TAU, 1e-3)))
        dropped.append(np.mean(np.log(seen.time[seen.failed] / 1e-3)))
    sample = np.minimum(rng.exponential(0.3 * TAU, size=400_000), TAU)
    truth = np.mean(np.log(sample / 1e-3))
    error = np.std(kept) / np.sqrt(len(kept))
    assert np.mean(kept) == pytest.approx(truth, abs=4 * error)
    assert np.mean(dropped) < truth - 10 * error


def test_a_model_that_was_stopped_is_compared_as_far_as_it_came():
    first = Times(np.array([2.0, 5.0, 5.0]), np.array([True, False, False]))
    second = times([1, 4, 8])
    found = log_time_differences(paired(first, second))
    assert found == pytest.approx(np.log([2 / 1, 5 / 4, 5 / 5]))


# --- invariances ---------------------------------------------------------------------

cases = st.tuples(
    st.sampled_from([EARLY, MID, 2.0]),
    st.sampled_from([1.0, 2.0]),
    st.integers(3, 10),
    st.integers(1, 2),
    st.integers(0, 1000),
)


def same(found, expected):
    for side in ("value", "low", "high", "sign_flip_p"):
        a, b = getattr(found, side), getattr(expected, side)
        assert (a is None) == (b is None)
        assert a is None or a == pytest.approx(b, rel=1e-3)


@settings(deadline=None, max_examples=25)
@given(cases)
def test_swapping_the_models_inverts_the_ratio(case):
    first, second = drawn(*case)
    unit = np.repeat(np.arange(case[2]), case[3])
    forward = ratio_of(first, second, unit, tau=HORIZON, step=STEP)
    backward = ratio_of(second, first, unit, tau=HORIZON, step=STEP)
    same(backward.inverse, forward)
    assert {forward.longer, backward.longer} in ({None}, {0, 1})


@settings(deadline=None, max_examples=25)
@given(cases, st.sampled_from([1e-3, 0.3, 1000.0]))
def test_the_unit_of_time_does_not_matter(case, scale):
    first, second = drawn(*case)
    unit = np.repeat(np.arange(case[2]), case[3])
    scaled = [Times(scale * side.time, side.failed) for side in (first, second)]
    same(
        ratio_of(*scaled, unit, tau=scale * HORIZON, step=scale * STEP),
        ratio_of(first, second, unit, tau=HORIZON, step=STEP),
    )


@settings(deadline=None, max_examples=25)
@given(cases, st.randoms(use_true_random=False))
def test_order_and_names_of_structures_do_not_matter(case, random):
    first, second = drawn(*case)
    names = list(range(case[2]))
    random.shuffle(names)
    unit = np.repeat(names, case[3])
    order = list(range(len(unit)))
    random.shuffle(order)
    moved = [Times(side.time[order], side.failed[order]) for side in (first, second)]
    same(
        ratio_of(*moved, unit[order], tau=HORIZON, step=STEP),
        ratio_of(first, second, unit, tau=HORIZON, step=STEP),
    )


# --- simulation ----------------------------------------------------------------------

N = 800


def not_above(count, share):
    """Whether a count of N does not contradict a share of at most this (1 %)."""
    return stats.binom.sf(count - 1, N, share) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("interaction", [False, True], ids=["", "interaction"])
@pytest.mark.parametrize(
    ("median", "size"),
    [(EARLY, (16, 1)), (EARLY, (8, 4)), (MID, (16, 1)), (MID, (8, 4))],
)
def test_coverage_and_false_verdicts(median, size, interaction):
    """Coverage of 93 to 97 % at a ratio of two, at most 6 % false verdicts."""
    design = Design(*size, (median,), interaction)
    assert not_above(rejections(design, 1.0, 1.0, N, seed=5), 0.06)
    missed = rejections(design, 2.0, 2.0, N, seed=6)
    assert not_above(missed, 0.07)
    assert not_above(N - missed, 0.97)


@pytest.mark.slow
@pytest.mark.parametrize("interaction", [False, True], ids=["", "interaction"])
@pytest.mark.parametrize("median", RARE)
def test_rare_failures_are_never_covered_too_little(median, interaction):
    design = Design(16, 1, (median,), interaction)
    assert not_above(rejections(design, 1.0, 1.0, N, seed=5), 0.06)
    assert not_above(rejections(design, 2.0, 2.0, N, seed=6), 0.07)


@pytest.mark.slow
@pytest.mark.parametrize(
    "design",
    [
        Design(8, 1, (EARLY, 2.0)),
        Design(8, 2, (EARLY, 2.0), interaction=True),
        Design(8, 2, (EARLY,), lost=0.2),
        Design(8, 2, (MID,), lost=0.2),
    ],
    ids=["temperatures", "temperatures-interaction", "early-lost", "mid-lost"],
)
def test_temperatures_and_lost_replicas(design):
    assert not_above(rejections(design, 1.0, 1.0, N, seed=5), 0.06)
    assert not_above(rejections(design, 2.0, 2.0, N, seed=6), 0.07)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "at_least"), [((16, 1), 0.75), ((8, 1), 0.43), ((8, 4), 0.93)]
)
def test_a_factor_of_two_among_early_failures_is_seen(size, at_least):
    """The score's interval saw it in none of these."""
    design = Design(*size, (EARLY,))
    assert rejections(design, 2.0, 1.0, N, seed=7) >= at_least * N
