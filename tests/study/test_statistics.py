"""Statistics over seeds against simulations, statsmodels and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from nequip_decorr.md.statistics.times import PairedTimes, Times
from nequip_decorr.study.statistics import (
    POWER,
    holm,
    power,
    ratio_effect,
    seeds_for_power,
    time_effect,
)

#: Of a binomial share: three standard errors of N_STUDIES studies.
N_STUDIES = 800
THREE_ERRORS = 3 * (0.05 * 0.95 / N_STUDIES) ** 0.5


def logs(rng: np.random.Generator, seeds: int, shift: float, spread: float):
    """Two variants: seeds differ much, and variants differ within a seed."""
    common = rng.normal(0, 1.0, seeds)
    pairs = common + rng.normal(shift, spread, seeds), common
    return [dict(enumerate(np.exp(values))) for values in pairs]


@pytest.mark.parametrize("seeds", [3, 8])
def test_ratio_covers(seeds):
    rng = np.random.default_rng(seeds)
    truth, inside, false = 0.4, 0, 0
    for _ in range(N_STUDIES):
        found = ratio_effect(*logs(rng, seeds, truth, 0.3))
        inside += found.low <= np.exp(truth) <= found.high
        false += ratio_effect(*logs(rng, seeds, 0.0, 0.3)).p_value < 0.05
    assert inside / N_STUDIES == pytest.approx(0.95, abs=THREE_ERRORS)
    assert false / N_STUDIES == pytest.approx(0.05, abs=THREE_ERRORS)


def times(rng, seeds, replicas, log_ratio, tau, model_sd):
    """log T = model + structure + Weibull; the variants share the structures."""
    structure = rng.normal(0, 0.4, (1, replicas))
    sides = []
    for shift in (log_ratio, 0.0):
        model = rng.normal(0, model_sd, (seeds, 1))
        noise = np.log(rng.weibull(2, (seeds, replicas)))
        time = np.exp(shift + model + structure + noise).ravel()
        sides.append(Times(np.minimum(time, tau), time < tau))
    seed = np.repeat(np.arange(seeds), replicas)
    return PairedTimes(*sides, seed, np.zeros_like(seed), tau, 1e-3)


@pytest.mark.parametrize(
    ("tau", "method", "studies"),
    [(20.0, "log ratios", 250), (0.7, "hazards", 120)],
    ids=["early", "rare"],
)
def test_time_ratio_covers(tau, method, studies):
    """Where replicas fail early, and where most survive: then at least as often."""
    rng = np.random.default_rng(5)
    inside = false = 0
    limit = 3 * (0.05 * 0.95 / studies) ** 0.5
    for _ in range(studies):
        found = time_effect(times(rng, 8, 8, np.log(1.5), tau, 0.2))
        assert found.method == method
        inside += (found.low or 0) <= 1.5 <= (found.high or np.inf)
        found = time_effect(times(rng, 8, 8, 0.0, tau, 0.2))
        false += found.p_value < 0.05
    assert inside / studies >= 0.95 - limit
    assert false / studies <= 0.05 + limit


def test_holm_keeps_the_family_wise_error():
    """At most 5 % of studies of ten null questions say anything, however correlated."""
    rng = np.random.default_rng(11)
    wrong = 0
    for _ in range(N_STUDIES):
        shared = rng.normal(0, 0.2, 8)
        p_values = []
        for _ in range(10):
            other = shared + rng.normal(0, 0.2, 8)
            one = dict(enumerate(np.exp(other)))
            p_values.append(ratio_effect(one, dict.fromkeys(range(8), 1.0)).p_value)
        wrong += min(holm(p_values)) < 0.05
    assert wrong / N_STUDIES <= 0.05 + THREE_ERRORS


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p_values):
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(list(expected), abs=1e-12)


@pytest.mark.parametrize("ratio", [1.1, 1.3, 2.0, 0.5])
@pytest.mark.parametrize("spread", [0.27, 0.98])
@pytest.mark.parametrize("seeds", [3, 8, 20])
def test_power_is_that_of_statsmodels(ratio, spread, seeds):
    shift = np.log(ratio)
    expected = TTestPower().power(
        abs(shift) / spread, seeds, 0.05, alternative="two-sided"
    )
    assert power(shift, spread, seeds) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("spread", "ratio", "seeds"),
    [(0.27, 1.3, 11), (0.27, 2.0, 4), (0.98, 1.3, 112), (0.98, 2.0, 18)],
)
def test_seeds_needed(spread, ratio, seeds):
    """Numbers worked out by simulation of the benchmark's seeds, by others."""
    found = seeds_for_power(np.log(ratio), spread)
    assert abs(found - seeds) <= 1
    assert power(np.log(ratio), spread, found) >= POWER
    assert power(np.log(ratio), spread, found - 1) < POWER


def test_simulated_power():
    rng = np.random.default_rng(2)
    shown = sum(
        ratio_effect(*logs(rng, 8, np.log(1.3), 0.3)).p_value < 0.05
        for _ in range(N_STUDIES)
    )
    expected = power(np.log(1.3), 0.3, 8)
    error = (expected * (1 - expected) / N_STUDIES) ** 0.5
    assert shown / N_STUDIES == pytest.approx(expected, abs=3 * error)


def test_no_interval_from_two_seeds():
    found = ratio_effect({1: 2.0, 2: 3.0}, {1: 1.0, 2: 1.5})
    assert found.value == pytest.approx(2.0)
    assert (found.low, found.high, found.p_value, found.seeds) == (None, None, None, 2)


def test_only_common_seeds_count():
    found = ratio_effect({1: 2.0, 2: 2.0, 7: 100.0}, {1: 1.0, 2: 1.0, 3: 0.001})
    assert (found.value, found.seeds) == (pytest.approx(2.0), 2)
    assert ratio_effect({1: 2.0}, {2: 1.0}) is None
    assert ratio_effect({1: float("nan"), 2: 0.0}, {1: 1.0, 2: 1.0}) is None


@given(
    st.lists(
        st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=3, max_size=9
    ),
    st.floats(0.01, 100),
)
def test_units_cancel_and_sides_swap(pairs, scale):
    first = {i: a * scale for i, (a, _) in enumerate(pairs)}
    second = {i: b * scale for i, (_, b) in enumerate(pairs)}
    there, back = ratio_effect(first, second), ratio_effect(second, first)
    plain = ratio_effect(*({i: p[k] for i, p in enumerate(pairs)} for k in (0, 1)))
    assert there.value == pytest.approx(plain.value)
    assert there.value * back.value == pytest.approx(1.0)
    assert there.low * back.high == pytest.approx(1.0)
    assert there.p_value == pytest.approx(back.p_value, abs=1e-9)
