"""The ratio of two models' times where many replicas survive, by their hazards."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.duration.survfunc import SurvfuncRight

from nequip_decorr.md.statistics.time_ratio import (
    hazard_differences,
    martingale_residuals,
    time_ratio,
    unit_differences,
)
from nequip_decorr.md.statistics.times import Times
from nequip_decorr.md.statistics.units import student_t, t_limit
from tests.support.comparisons import EARLY, HORIZON, MID, STEP
from tests.support.published import PLACEBO, SIX_MP
from tests.support.ratios import drawn, paired, ratio_of, times


@pytest.mark.parametrize("stratum", [None, 0, 1, 2])
def test_residuals_sum_to_observed_minus_expected(stratum):
    """Kleinbaum and Klein: the log-rank tests of the remission times."""
    observed, expected = {
        None: (9, 19.25),
        0: (None, 2.91),
        1: (None, 7.36),
        2: (None, 6.11),
    }[stratum]

    def chosen(patients):
        return [
            (week, relapse)
            for week, relapse, count in patients
            if stratum in (None, int(count > 2.30) + int(count > 3.00))
        ]

    first, second = chosen(SIX_MP), chosen(PLACEBO)
    table = np.array(first + second, dtype=float)
    residuals = martingale_residuals(table[:, 0], table[:, 1] == 1)
    relapses = sum(relapse for _, relapse in first)
    assert observed in (None, relapses)
    found = residuals[: len(first)].sum()
    assert found == pytest.approx(relapses - expected, abs=0.005)
    assert residuals.sum() == pytest.approx(0, abs=1e-12)


def test_residuals_in_strata_have_the_hazard_of_statsmodels():
    rng = np.random.default_rng(1)
    # rounded: there are ties
    first, second = (times(rng.exponential(8, 40).round(0) + 1) for _ in range(2))
    stratum = np.tile([0, 1], 20)
    pairs = paired(first, second, stratum=stratum)
    found = hazard_differences(pairs, np.zeros(1))[0]
    expected = np.zeros(40)
    for label in (0, 1):
        rows = stratum == label
        time = np.concatenate([first.time[rows], second.time[rows]])
        failed = np.concatenate([first.failed[rows], second.failed[rows]])
        curve = SurvfuncRight(time, failed)
        hazard = [
            sum((curve.n_events / curve.n_risk)[curve.surv_times <= t]) for t in time
        ]
        residuals = failed - np.array(hazard)
        expected[rows] = residuals[:20] - residuals[20:]
    assert found == pytest.approx(expected, abs=1e-12)


def test_several_ratios_at_once():
    first, second = drawn(1.0, 1.5)
    strata, ratios = np.arange(16) % 2, np.array([-0.3, 0.0, 0.4])
    options = {"stratum": strata, "tau": HORIZON, "step": STEP}
    together = hazard_differences(paired(first, second, **options), ratios)
    for row, ratio in zip(together, ratios, strict=True):
        # the same by hand: stretch the second model, and cut both
        end = HORIZON * min(1, np.exp(ratio))
        stretched = second.time * np.exp(ratio)
        sides = [
            Times(np.minimum(time, end), failed & (time <= end * (1 + 1e-12)))
            for time, failed in ((first.time, first.failed), (stretched, second.failed))
        ]
        alone = hazard_differences(paired(*sides, **options), np.zeros(1))
        assert row == pytest.approx(alone[0])


@pytest.mark.parametrize("median", [MID, 1.0, 2.0])
def test_the_interval_is_what_is_not_rejected(median):
    sides = drawn(median, 2.0, structures=12, replicas=2, seed=3)
    pairs = paired(*sides, np.repeat(np.arange(12), 2), tau=HORIZON, step=STEP)
    found = time_ratio(pairs)
    assert found.method == "hazards"

    def t(ratio):
        values = unit_differences(pairs, np.log([ratio]))
        return float(student_t(values)[0])

    limit = t_limit(12)
    assert abs(t(found.low)) <= limit < abs(t(found.low * 0.999))
    assert t(found.value * 0.995) <= 0 <= t(found.value * 1.005)
    if found.high is not None:
        assert abs(t(found.high)) <= limit < abs(t(found.high * 1.001))


def test_no_failures_say_nothing():
    found = ratio_of(times([20] * 16), times([20] * 16))
    assert (found.value, found.low, found.high) == (None, None, None)
    assert found.longer is None
    assert found.sign_flip_p == 1


def test_failures_of_one_model_alone_bound_the_ratio():
    survived, failed = times([20] * 16), times(np.linspace(0.01, 0.3, 16))
    found = ratio_of(survived, failed)
    # all fail within 3 % of the horizon, and none would have at 20 times the time
    assert found.low == pytest.approx(np.exp(3))
    assert (found.value, found.high, found.longer) == (None, None, 0)
    # half of them, throughout: the ratio may be any that is large enough
    half = times([*np.linspace(0.5, 9.5, 8), *[20] * 8])
    found = ratio_of(survived, half)
    assert 1 < found.low < 10
    assert (found.value, found.high, found.longer) == (None, None, 0)
    found = ratio_of(half, survived)
    assert 0.1 < found.high < 1
    assert (found.value, found.low, found.longer) == (None, None, 1)


def test_one_ratio_in_all_structures():
    """Where the first fails just twice as late in all of them nothing else fits."""
    base = np.linspace(1.0, 2.0, 12)
    second = times([*base, *base * 20])
    first = times([*(2 * base), *base * 20])
    found = ratio_of(first, second, unit=np.tile(np.arange(12), 2))
    assert found.method == "hazards"
    assert found.value == pytest.approx(2, rel=0.02)
    assert found.low <= 2 * 1.001
    assert found.high >= 2 / 1.001


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_structures_have_no_limits(n):
    for median in (EARLY, 1.0):
        first, second = drawn(median, 2.0, structures=n, replicas=16)
        unit = np.repeat(np.arange(n), 16)
        found = ratio_of(first, second, unit, tau=HORIZON, step=STEP)
        assert found.value == pytest.approx(2, rel=0.6)
        assert (found.low, found.high, found.units) == (None, None, n)


def test_a_temperature_without_failures_does_not_hide_another():
    first, second = drawn(EARLY, 2.0, structures=12)
    cold = Times(np.full(12, HORIZON), np.zeros(12, dtype=bool))
    sides = [
        Times(*(np.concatenate(pair) for pair in zip(hot, cold, strict=True)))
        for hot in (first, second)
    ]
    unit, kelvin = np.tile(np.arange(12), 2), np.repeat([1, 0], 12)
    limits = {"tau": HORIZON, "step": STEP}
    both = paired(*sides, unit, kelvin, **limits)
    alone = hazard_differences(paired(first, second, **limits), np.zeros(1))[0]
    together = unit_differences(both, np.zeros(1))[0]
    assert time_ratio(both).method == "hazards"
    assert together == pytest.approx(alone / 2)
