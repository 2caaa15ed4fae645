from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nequip_decorr.md.statistics.score import (
    PSEUDO_WEIGHT,
    PSEUDO_WEIGHT_DIFFERENCE,
    cluster_labels,
    score_difference,
    score_interval,
)
from nequip_decorr.md.statistics.times import Times
from tests.support.synthetic import replica

TAU = 10.0


def times(values):
    values = np.array(values, dtype=float)
    return Times(np.minimum(values, TAU), values < TAU)


def difference(first, second, clusters=None, **options):
    labels = np.arange(len(first)) if clusters is None else clusters
    sides = times(first), times(second)
    return score_difference(*sides, TAU, clusters=labels, **options)


# --- of one model --------------------------------------------------------------------


@pytest.mark.parametrize(("n", "kind"), [(1, "replicas"), (5, "replicas")])
def test_few_structures_are_not_resampled(n, kind):
    replicas = [replica(i, time_ps=TAU, structure=i % n) for i in range(10)]
    labels, resampled = cluster_labels(replicas)
    assert resampled == kind
    assert len(set(labels)) == 10


def test_many_structures_are_the_clusters():
    replicas = [replica(i, time_ps=TAU, structure=i % 7) for i in range(14)]
    labels, resampled = cluster_labels(replicas)
    assert resampled == "structures"
    assert labels.tolist() == [i % 7 for i in range(14)]


def test_pseudo_weight_solves_its_equation():
    quantile = stats.gamma(PSEUDO_WEIGHT).ppf(0.975)
    assert quantile == pytest.approx(-np.log(0.05), rel=1e-4)


def test_interval_is_clopper_pearson_for_yes_or_no(monkeypatch):
    """With pseudo-weight one and outcomes 0 or 1 both limits are known exactly."""
    monkeypatch.setattr("nequip_decorr.md.statistics.score.PSEUDO_WEIGHT", 1.0)
    monkeypatch.setattr("nequip_decorr.md.statistics.score.N_BOOTSTRAP", 200_000)
    time = np.array([0.0] * 6 + [TAU] * 14)
    found = score_interval(times(time), TAU, clusters=np.arange(20))
    exact = stats.binomtest(14, 20).proportion_ci(method="exact")
    assert astuple(found) == pytest.approx((0.7, exact.low, exact.high), abs=2e-3)


def coverage(hazard, n_clusters, size, spread, n_runs=1500):
    """Share of simulated runs whose interval holds the true score.

    Hazards of clusters are Gamma distributed with mean ``hazard`` / tau and relative
    variance ``spread`` (a shared frailty); the true score is (1 - e^-h) / h, averaged
    over the hazards.
    """
    rng = np.random.default_rng(11)
    clusters = np.repeat(np.arange(n_clusters), size)
    if spread:
        grid = stats.gamma(1 / spread, scale=spread * hazard)
        hazards = grid.ppf((np.arange(20_000) + 0.5) / 20_000)
        truth = np.mean(-np.expm1(-hazards) / hazards)
    else:
        truth = -np.expm1(-hazard) / hazard
    covered = 0
    for run_index in range(n_runs):
        rate = (
            rng.gamma(1 / spread, spread * hazard, size=n_clusters)[clusters]
            if spread
            else np.full(len(clusters), hazard)
        )
        time = rng.exponential(TAU / rate)
        found = score_interval(times(time), TAU, clusters=clusters, seed=run_index)
        covered += found.low <= truth <= found.high
    return covered / n_runs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hazard", "n_clusters", "size", "spread", "at_most"),
    [
        (1.0, 48, 1, 0, 0.97),
        (3.0, 64, 1, 0, 0.98),
        # the pseudo-cluster is one of few: too wide, not too narrow
        (1.0, 8, 4, 0.5, 1.0),
    ],
)
def test_coverage_of_the_score(monkeypatch, hazard, n_clusters, size, spread, at_most):
    monkeypatch.setattr("nequip_decorr.md.statistics.score.N_BOOTSTRAP", 800)
    assert 0.93 <= coverage(hazard, n_clusters, size, spread, n_runs=800) <= at_most


@pytest.mark.slow
def test_coverage_with_rare_failures_is_not_too_small(monkeypatch):
    """16 replicas, hazard 0.1 / tau: a percentile bootstrap covers in 70 %."""
    monkeypatch.setattr("nequip_decorr.md.statistics.score.N_BOOTSTRAP", 800)
    assert coverage(0.1, 16, 1, 0, n_runs=600) >= 0.95


# --- of two --------------------------------------------------------------------------


def test_difference_of_means_without_censoring():
    found = difference([1, 4, 20, 6], [2, 2, 3, 20])
    assert found.value == pytest.approx((1 + 4 + 10 + 6 - 2 - 2 - 3 - 10) / 40)


def test_two_models_without_failures_are_not_known_to_be_equal():
    found = difference([20] * 16, [20] * 16)
    assert found.value == 0
    # the bootstrap of the pseudo-cluster: a Beta variable has this 97.5 % quantile
    bound = stats.beta(PSEUDO_WEIGHT_DIFFERENCE, 16).ppf(0.975)
    assert found.high == pytest.approx(bound, abs=0.02)
    assert found.low == pytest.approx(-bound, abs=0.02)
    # four of the 16 replicas in each of four structures are four independent ones
    fewer = difference([20] * 16, [20] * 16, np.arange(16) % 4)
    bound = stats.beta(PSEUDO_WEIGHT_DIFFERENCE, 4).ppf(0.975)
    assert fewer.high == pytest.approx(bound, abs=0.03)


def test_pairing_narrows_the_interval():
    """What a structure does to both models cancels when it is paired."""
    rng = np.random.default_rng(0)
    base = rng.uniform(1, 8, size=60)
    paired = difference(base + 1, base)
    shuffled = difference(base + 1, rng.permutation(base))
    assert paired.value == pytest.approx(0.1)
    assert paired.value == pytest.approx(shuffled.value)
    assert paired.high - paired.low < 0.5 * (shuffled.high - shuffled.low)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1))
def test_swapping_the_models_swaps_the_sign(pairs):
    first, second = zip(*pairs, strict=True)
    forward, backward = difference(first, second), difference(second, first)
    assert forward.value == pytest.approx(-backward.value, abs=1e-12)
    assert forward.low == pytest.approx(-backward.high, abs=1e-12)
    assert -1 <= forward.low <= forward.value <= forward.high <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hazards", "n_structures", "size", "spread"),
    [((1.0, 1.0), 64, 1, 0.0), ((0.5, 2.0), 64, 1, 0.0), ((1.0, 3.0), 32, 2, 0.5)],
    ids=["equal", "different", "clusters"],
)
def test_coverage_of_the_difference(monkeypatch, hazards, n_structures, size, spread):
    """Exponential times, hazards of a structure shared by both models."""
    monkeypatch.setattr("nequip_decorr.md.statistics.score.N_BOOTSTRAP", 800)
    rng = np.random.default_rng(21)
    clusters = np.repeat(np.arange(n_structures), size)
    grid = np.ones(1)
    if spread:
        law = stats.gamma(1 / spread, scale=spread)
        grid = law.ppf((np.arange(20_000) + 0.5) / 20_000)
    truth = np.mean(
        [-np.expm1(-h * grid) / (h * grid) for h in hazards], axis=1
    ) @ np.array([1, -1])
    covered, n_runs = 0, 800
    for index in range(n_runs):
        frailty = np.ones(n_structures)
        if spread:
            frailty = rng.gamma(1 / spread, spread, size=n_structures)
        sides = [rng.exponential(TAU / (h * frailty[clusters])) for h in hazards]
        found = difference(*sides, clusters, seed=index)
        covered += found.low <= truth <= found.high
    assert covered / n_runs >= 0.93
