"""Survival curves and scores: published examples, plain loops, and properties."""

from __future__ import annotations

from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nequip_decorr.md.statistics.score import restricted_mean
from nequip_decorr.md.statistics.survival import (
    estimate_survival,
    hazard_bound,
    kaplan_meier,
    survival_by_temperature,
    survival_interval,
)
from tests.support.published import HORIZON, SIX_MP, as_replicas
from tests.support.synthetic import replica, run

TAU = 10.0


def loop_kaplan_meier(time, failed, at):
    survival = 1.0
    for t in sorted({x for x, f in zip(time, failed, strict=True) if f and x <= at}):
        at_risk = sum(x >= t for x in time)
        deaths = sum(x == t and f for x, f in zip(time, failed, strict=True))
        survival *= 1 - deaths / at_risk
    return survival


def loop_restricted_mean(time, failed, tau):
    edges = sorted({0.0, tau, *(t for t in time if t < tau)})
    area = sum(loop_kaplan_meier(time, failed, a) * (b - a) for a, b in pairwise(edges))
    return area / tau


# --- a published worked example ------------------------------------------------------


def test_curve_of_the_published_example():
    """Kleinbaum and Klein, table of the 6-MP group: t, n at risk, S(t)."""
    result = estimate_survival(as_replicas(SIX_MP), HORIZON, "unphysical")
    assert result.curve.time_ps == (0, 6, 7, 10, 13, 16, 22, 23, 35)
    assert result.curve.at_risk == (21, 21, 17, 15, 12, 11, 7, 6, 1)
    assert result.curve.survival == pytest.approx(
        (1, 0.8571, 0.8067, 0.7529, 0.6902, 0.6275, 0.5378, 0.4482, 0.4482), abs=5e-5
    )
    assert result.median_ps == 23


def test_limits_of_the_published_example():
    """Log-log limits as Stata's `sts list` prints them for the same data."""
    curve = estimate_survival(as_replicas(SIX_MP), HORIZON, "unphysical").curve
    # from 7 weeks on somebody has been censored before
    assert curve.low[2:8] == pytest.approx(
        (0.5631, 0.5032, 0.4316, 0.3675, 0.2678, 0.1881), abs=5e-5
    )
    assert curve.high[2:8] == pytest.approx(
        (0.9228, 0.8894, 0.8491, 0.8049, 0.7468, 0.6801), abs=5e-5
    )


def test_score_of_the_published_example():
    """23.3 weeks is the restricted mean (rmean) that R's survival::survfit prints."""
    result = estimate_survival(as_replicas(SIX_MP), HORIZON, "unphysical")
    assert result.score.value * HORIZON == pytest.approx(23.3, abs=0.05)
    assert result.score.low < result.score.value < result.score.high


def test_score_interval_is_near_the_published_standard_error():
    """R prints se(rmean) = 2.83 for the same data; the bootstrap is a little wider."""
    score = estimate_survival(
        as_replicas(SIX_MP, stratified=False), HORIZON, "unphysical"
    ).score
    assert (score.high - score.low) * HORIZON / (2 * 1.96) == pytest.approx(
        2.83, rel=0.2
    )


def test_hazard_bound_of_the_published_tables():
    """Exact Poisson upper limits (Pearson and Hartley): 3.00, 4.74, 6.30, 7.75."""
    uppers = [hazard_bound(d, 1.0) for d in range(4)]
    assert uppers == pytest.approx([3.00, 4.74, 6.30, 7.75], abs=0.006)


# --- against loops -------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_curve_and_score_equal_loops(seed):
    rng = np.random.default_rng(seed)
    # rounded, so that failures and censorings fall on the same times
    time = np.minimum(rng.exponential(6, size=30).round(1), TAU)
    failed = (rng.random(30) < 0.7) & (time < TAU)
    curve = kaplan_meier(time, failed, TAU)
    expected = [loop_kaplan_meier(time, failed, t) for t in curve.time_ps]
    assert curve.survival == pytest.approx(expected, abs=1e-12)
    score = restricted_mean(time, failed, TAU, np.ones((1, 30)))
    assert score == pytest.approx(loop_restricted_mean(time, failed, TAU), abs=1e-12)


def test_integer_weights_are_repetitions():
    rng = np.random.default_rng(3)
    time = np.minimum(rng.exponential(6, size=12).round(1), TAU)
    failed = (rng.random(12) < 0.6) & (time < TAU)
    weights = rng.integers(0, 4, size=(8, 12))
    expected = [
        loop_restricted_mean(np.repeat(time, w), np.repeat(failed, w), TAU)
        for w in weights
    ]
    found = restricted_mean(time, failed, TAU, weights.astype(float))
    assert found == pytest.approx(expected, abs=1e-12)


def test_clopper_pearson_while_nobody_is_lost():
    time = np.array([1.0, 2.0, 3.0, *[TAU] * 13])
    failed = time < TAU
    interval = survival_interval(time, failed, TAU)
    # the definition: each limit is where the data sit in a tail of 2.5 %
    assert stats.binom.sf(12, 16, interval.low) == pytest.approx(0.025, rel=1e-6)
    assert stats.binom.cdf(13, 16, interval.high) == pytest.approx(0.025, rel=1e-6)


# --- properties ----------------------------------------------------------------------

steps = st.integers(0, 10_000).map(lambda step: step / 1000)
outcomes = st.lists(
    st.tuples(steps, st.booleans(), st.integers(0, 7)),
    min_size=1,
    max_size=20,
)


def made(rows):
    return [
        replica(
            i,
            time_ps=time,
            structure=structure,
            cause="overlap" if failed else None,
        )
        for i, (time, failed, structure) in enumerate(rows)
    ]


@settings(deadline=None, max_examples=60)
@given(outcomes)
def test_every_number_is_in_its_range(rows):
    result = estimate_survival(made(rows), TAU, "unphysical")
    for interval in (result.score, result.survival_at_tau):
        assert 0 <= interval.low <= interval.value <= interval.high <= 1
    survival = np.array(result.curve.survival)
    assert np.all(np.diff(survival) <= 0)
    assert np.all(np.array(result.curve.low) <= survival + 1e-12)
    assert np.all(np.array(result.curve.high) >= survival - 1e-12)
    assert sum(result.causes.values()) == result.n_failures
    assert sum(result.censored.values()) == result.n_replicas - result.n_failures


@settings(deadline=None, max_examples=40)
@given(outcomes, st.randoms(use_true_random=False))
def test_order_does_not_matter(rows, random):
    before = estimate_survival(made(rows), TAU, "unphysical")
    random.shuffle(rows)
    after = estimate_survival(made(rows), TAU, "unphysical")
    assert after.score.value == pytest.approx(before.score.value, abs=1e-12)
    assert astuple(after.survival_at_tau) == pytest.approx(
        astuple(before.survival_at_tau), abs=1e-12
    )
    assert after.curve.time_ps == before.curve.time_ps
    assert after.causes == before.causes


@settings(deadline=None, max_examples=40)
@given(outcomes, st.integers(0, 19), steps)
def test_failing_later_never_lowers_the_score(rows, which, extra):
    # censored replicas hold to the horizon: an early censoring carries no order
    rows = [(t if failed else TAU, failed, s) for t, failed, s in rows]
    time, failed, structure = rows[which % len(rows)]
    later = list(rows)
    later[which % len(rows)] = (min(time + extra, TAU), failed, structure)
    scores = [
        estimate_survival(made(r), TAU, "unphysical").score.value for r in (rows, later)
    ]
    assert scores[1] >= scores[0] - 1e-12


# --- what else is told ---------------------------------------------------------------


def test_half_of_those_that_failed_make_the_median():
    replicas = [replica(i, time_ps=1.0 + i, cause="overlap") for i in range(3)]
    replicas += [replica(3 + i, time_ps=TAU) for i in range(3)]
    assert estimate_survival(replicas, TAU, "unphysical").median_ps == 3.0


def test_causes_and_hazard_per_atom():
    replicas = [
        replica(0, time_ps=2.0, cause="overlap", n_atoms=10),
        replica(1, time_ps=3.0, cause="dissociation", n_atoms=20),
        replica(2, time_ps=TAU, n_atoms=30),
    ]
    result = estimate_survival(replicas, TAU, "unphysical")
    assert result.causes == {"dissociation": 1, "overlap": 1}
    # Poisson's upper limit of two events
    assert result.hazard_upper_per_ps == pytest.approx(6.2958 / 15, rel=1e-4)
    atoms_ps = 20 + 60 + 300
    assert result.hazard_upper_per_atom_ps == pytest.approx(6.2958 / atoms_ps, rel=1e-4)


def test_each_temperature_by_itself():
    made_run = run(n_structures=2, temperatures_K=(300.0, 1200.0), seed=1)
    tables = survival_by_temperature(
        made_run.replicas, made_run.horizon_ps, "unphysical"
    )
    assert list(tables) == [300.0, 1200.0]
    assert sum(t.n_replicas for t in tables.values()) == len(made_run.replicas)
