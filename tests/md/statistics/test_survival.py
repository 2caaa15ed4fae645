from __future__ import annotations

from dataclasses import astuple, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nequip_decorr.errors import UserError
from nequip_decorr.md.statistics.score import (
    PSEUDO_WEIGHT,
    cluster_labels,
    restricted_mean,
    score_interval,
)
from nequip_decorr.md.statistics.survival import (
    describe_score,
    estimate_survival,
    event_table,
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
    result = estimate_survival(as_replicas(SIX_MP), HORIZON)
    assert result.curve.time_ps == (0, 6, 7, 10, 13, 16, 22, 23, 35)
    assert result.curve.at_risk == (21, 21, 17, 15, 12, 11, 7, 6, 1)
    assert result.curve.survival == pytest.approx(
        (1, 0.8571, 0.8067, 0.7529, 0.6902, 0.6275, 0.5378, 0.4482, 0.4482), abs=5e-5
    )
    assert result.median_ps == 23


def test_limits_of_the_published_example():
    """Log-log limits as Stata's `sts list` prints them for the same data."""
    curve = estimate_survival(as_replicas(SIX_MP), HORIZON).curve
    # from 7 weeks on somebody has been censored before
    assert curve.low[2:8] == pytest.approx(
        (0.5631, 0.5032, 0.4316, 0.3675, 0.2678, 0.1881), abs=5e-5
    )
    assert curve.high[2:8] == pytest.approx(
        (0.9228, 0.8894, 0.8491, 0.8049, 0.7468, 0.6801), abs=5e-5
    )


def test_score_of_the_published_example():
    """23.3 weeks is the restricted mean (rmean) that R's survival::survfit prints."""
    result = estimate_survival(as_replicas(SIX_MP), HORIZON)
    assert result.score.value * HORIZON == pytest.approx(23.3, abs=0.05)
    assert result.score.low < result.score.value < result.score.high


def test_score_interval_is_near_the_published_standard_error():
    """R prints se(rmean) = 2.83 for the same data; the bootstrap is a little wider."""
    score = estimate_survival(as_replicas(SIX_MP, stratified=False), HORIZON).score
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


# --- bounds --------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "bound"), [(8, 0.69), (10, 0.74), (20, 0.86)])
def test_no_failure_is_a_bound(n, bound):
    survivors = [replica(i, time_ps=TAU) for i in range(n)]
    result = estimate_survival(survivors, TAU)
    assert result.survival_at_tau.low == pytest.approx(bound, abs=0.005)
    assert result.score.low == result.survival_at_tau.low
    assert result.score.value == 1
    words = " ".join([describe_score(result), *result.notes])
    assert f">= {bound:.2f}" in words
    assert "100" not in words
    assert result.median_ps is None
    assert result.hazard_upper_per_ps == pytest.approx(-np.log(0.05) / (n * TAU))


def clustered(n_structures, size, *failures, **changes):
    return [
        replica(
            i,
            time_ps=0.5 * TAU if i in failures else TAU,
            cause="overlap" if i in failures else None,
            structure=i // size,
            **changes,
        )
        for i in range(n_structures * size)
    ]


def test_no_failure_of_whole_structures_is_a_weaker_bound(monkeypatch):
    """The resampled score is 1 - the share of the pseudo-replica: a Beta variable."""
    monkeypatch.setattr("nequip_decorr.md.statistics.score.N_BOOTSTRAP", 40_000)
    result = estimate_survival(clustered(8, 16), TAU)
    bound = stats.beta(8, PSEUDO_WEIGHT / 16).ppf(0.025)
    assert result.score.low == pytest.approx(bound, abs=5e-3)
    assert result.score.low < 0.05 ** (1 / 128) - 0.03
    assert (result.score.value, result.score.high) == (1, 1)
    assert result.survival_at_tau.low == pytest.approx(0.05 ** (1 / 128))
    said = describe_score(result)
    assert f"the score is >= {result.score.low:.2f}" in said
    assert "S(10 ps) >= 0.98 if replicas of one structure are independent" in said
    # one failure more does not make it surer
    failed = estimate_survival(clustered(8, 16, 0), TAU)
    assert failed.score.low < result.score.low


def test_one_replica_a_structure_is_as_many_independent_ones():
    result = estimate_survival(clustered(20, 1), TAU)
    assert result.score.low == pytest.approx(0.05 ** (1 / 20))
    assert describe_score(result).endswith("S(10 ps) >= 0.86")


def test_only_those_followed_to_the_end_bound_the_score():
    """Of each structure's replicas all but one were stopped early."""
    followed = [
        replace(r, time_ps=0.01, censored_by="interrupt") if r.index % 16 else r
        for r in clustered(8, 16)
    ]
    result = estimate_survival(followed, TAU)
    assert result.score.low == pytest.approx(0.05 ** (1 / 8))


def test_everybody_fails_at_once():
    result = estimate_survival(
        [replica(i, time_ps=0.0, cause="nonfinite") for i in range(10)], TAU
    )
    assert result.score.value == 0
    assert result.score.low == 0
    assert 0 < result.score.high < 0.5
    assert result.survival_at_tau.high == pytest.approx(1 - 0.05 ** (1 / 10))
    assert result.median_ps == 0
    assert result.hazard_upper_per_ps is None


def test_a_few_failures_are_no_surer_than_none():
    """What a percentile bootstrap gets wrong: [0.99, 1.00] after one late failure."""
    late = [replica(i, time_ps=TAU) for i in range(15)]
    late.append(replica(15, time_ps=0.9 * TAU, cause="overlap"))
    assert estimate_survival(late, TAU).score.low < 0.05 ** (1 / 16) + 0.01


def test_pseudo_weight_solves_its_equation():
    quantile = stats.gamma(PSEUDO_WEIGHT).ppf(0.975)
    assert quantile == pytest.approx(-np.log(0.05), rel=1e-4)


def test_interval_is_clopper_pearson_for_yes_or_no(monkeypatch):
    """With pseudo-weight one and outcomes 0 or 1 both limits are known exactly."""
    monkeypatch.setattr("nequip_decorr.md.statistics.score.PSEUDO_WEIGHT", 1.0)
    monkeypatch.setattr("nequip_decorr.md.statistics.score.N_BOOTSTRAP", 200_000)
    time = np.array([0.0] * 6 + [TAU] * 14)
    found = score_interval(time, time < TAU, TAU, clusters=np.arange(20))
    exact = stats.binomtest(14, 20).proportion_ci(method="exact")
    assert astuple(found) == pytest.approx((0.7, exact.low, exact.high), abs=2e-3)


# --- simulation with known hazard ----------------------------------------------------


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
    held = 0
    for run_index in range(n_runs):
        rate = (
            rng.gamma(1 / spread, spread * hazard, size=n_clusters)[clusters]
            if spread
            else np.full(len(clusters), hazard)
        )
        time = rng.exponential(TAU / rate)
        found = score_interval(
            np.minimum(time, TAU), time < TAU, TAU, clusters=clusters, seed=run_index
        )
        held += found.low <= truth <= found.high
    return held / n_runs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hazard", "n_clusters", "size", "spread"),
    [(1.0, 48, 1, 0), (3.0, 64, 1, 0), (1.0, 16, 4, 0.5), (1.0, 8, 4, 0.5)],
)
def test_coverage_of_the_score(monkeypatch, hazard, n_clusters, size, spread):
    monkeypatch.setattr("nequip_decorr.md.statistics.score.N_BOOTSTRAP", 800)
    assert 0.93 <= coverage(hazard, n_clusters, size, spread) <= 0.97


@pytest.mark.slow
def test_coverage_with_rare_failures_is_not_too_small(monkeypatch):
    """16 replicas, hazard 0.1 / tau: a percentile bootstrap covers in 70 %."""
    monkeypatch.setattr("nequip_decorr.md.statistics.score.N_BOOTSTRAP", 800)
    assert coverage(0.1, 16, 1, 0, n_runs=600) >= 0.95


def test_coverage_of_the_hazard_bound():
    """One-sided 95 %: total exposure stopped by the horizon, constant hazard."""
    rng = np.random.default_rng(5)
    time = rng.exponential(TAU / 0.7, size=(4000, 32))
    deaths, exposure = (time < TAU).sum(axis=1), np.minimum(time, TAU).sum(axis=1)
    held = [
        hazard_bound(int(d), float(t)) >= 0.7 / TAU
        for d, t in zip(deaths, exposure, strict=True)
    ]
    assert 0.94 <= np.mean(held) <= 0.985


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
    result = estimate_survival(made(rows), TAU)
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
    before = estimate_survival(made(rows), TAU)
    random.shuffle(rows)
    after = estimate_survival(made(rows), TAU)
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
    scores = [estimate_survival(made(r), TAU).score.value for r in (rows, later)]
    assert scores[1] >= scores[0] - 1e-12


# --- what is censored, and what is said about it -------------------------------------


def test_interrupted_replicas_are_censored_not_failed():
    replicas = [replica(i, time_ps=TAU) for i in range(8)]
    replicas += [
        replica(8 + i, time_ps=4.0, censored_by="out_of_memory") for i in range(3)
    ]
    result = estimate_survival(replicas, TAU)
    assert (result.n_failures, result.n_lost) == (0, 3)
    assert result.score.value == 1
    # only those that were followed to the end bound the survival there
    assert result.survival_at_tau.low == pytest.approx(0.05 ** (1 / 8))
    assert result.censored == {"horizon": 8, "out_of_memory": 3}
    assert any("3 replicas stopped before the horizon" in n for n in result.notes)


def test_a_run_that_was_not_followed_to_the_horizon_says_so():
    replicas = [replica(i, time_ps=4.0, censored_by="interrupt") for i in range(4)]
    replicas.append(replica(4, time_ps=1.0, cause="blowup"))
    result = estimate_survival(replicas, TAU)
    assert result.tau_ps == 4.0
    assert result.score.value == pytest.approx((4 * 4 + 1) / (5 * 4))
    assert any("first 4 ps" in note for note in result.notes)


def test_all_failed_early_is_known_up_to_the_horizon():
    replicas = [replica(i, time_ps=1.0 + i, cause="blowup") for i in range(4)]
    result = estimate_survival(replicas, TAU)
    assert result.tau_ps == TAU
    assert result.score.value == pytest.approx(np.mean([1, 2, 3, 4]) / TAU)


@pytest.mark.parametrize(("n", "kind"), [(1, "replicas"), (5, "replicas")])
def test_few_structures_are_not_resampled(n, kind):
    replicas = [replica(i, time_ps=TAU, structure=i % n) for i in range(10)]
    labels, resampled = cluster_labels(replicas)
    assert resampled == kind
    assert len(set(labels)) == 10
    notes = estimate_survival(replicas, TAU).notes
    assert any("cannot cover the choice of structures" in note for note in notes)


def test_many_structures_are_the_clusters():
    replicas = [replica(i, time_ps=TAU, structure=i % 7) for i in range(14)]
    labels, resampled = cluster_labels(replicas)
    assert resampled == "structures"
    assert labels.tolist() == [i % 7 for i in range(14)]


def test_clusters_that_fail_together_widen_the_interval():
    def score(structure_of):
        rows = [
            replica(
                i,
                time_ps=1.0 if i % 8 < 4 else TAU,
                structure=structure_of(i),
                cause="overlap" if i % 8 < 4 else None,
            )
            for i in range(64)
        ]
        return estimate_survival(rows, TAU).score

    alike, mixed = score(lambda i: i % 8), score(lambda i: i // 8)
    assert alike.high - alike.low > 2 * (mixed.high - mixed.low)


def test_half_of_those_that_failed_make_the_median():
    replicas = [replica(i, time_ps=1.0 + i, cause="overlap") for i in range(3)]
    replicas += [replica(3 + i, time_ps=TAU) for i in range(3)]
    assert estimate_survival(replicas, TAU).median_ps == 3.0


def test_causes_and_hazard_per_atom():
    replicas = [
        replica(0, time_ps=2.0, cause="overlap", n_atoms=10),
        replica(1, time_ps=3.0, cause="blowup", n_atoms=20),
        replica(2, time_ps=TAU, n_atoms=30),
    ]
    result = estimate_survival(replicas, TAU)
    assert result.causes == {"blowup": 1, "overlap": 1}
    # Poisson's upper limit of two events
    assert result.hazard_upper_per_ps == pytest.approx(6.2958 / 15, rel=1e-4)
    atoms_ps = 20 + 60 + 300
    assert result.hazard_upper_per_atom_ps == pytest.approx(6.2958 / atoms_ps, rel=1e-4)


def test_each_temperature_by_itself():
    made_run = run(n_structures=2, temperatures_K=(300.0, 1200.0), seed=1)
    tables = survival_by_temperature(made_run.replicas, made_run.horizon_ps)
    assert list(tables) == [300.0, 1200.0]
    assert sum(t.n_replicas for t in tables.values()) == len(made_run.replicas)


def test_the_last_step_may_end_past_the_horizon():
    time, failed = event_table(
        [replica(0, time_ps=10.002), replica(1, time_ps=TAU * (1 - 1e-12))], TAU
    )
    assert time.tolist() == [TAU, TAU]
    assert not failed.any()


@pytest.mark.parametrize("horizon", [0.0, -1.0, float("nan"), float("inf")])
def test_horizon_must_be_a_time(horizon):
    with pytest.raises(UserError, match="horizon > 0"):
        estimate_survival([replica(0, time_ps=1.0)], horizon)


@pytest.mark.parametrize("time", [-1.0, float("nan"), float("inf")])
def test_times_must_be_times(time):
    with pytest.raises(UserError, match="times >= 0"):
        estimate_survival([replace(replica(0, time_ps=1.0), time_ps=time)], TAU)


def test_no_replicas():
    with pytest.raises(UserError, match="at least one replica"):
        estimate_survival([], TAU)
