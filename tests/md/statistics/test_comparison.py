from __future__ import annotations

from dataclasses import replace
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nequip_decorr.errors import UserError
from nequip_decorr.md.statistics.comparison import (
    compare_runs,
    pair_replicas,
    score_difference,
)
from nequip_decorr.md.statistics.logrank import (
    LogRank,
    expected_failures,
    stratified_log_rank,
)
from nequip_decorr.md.statistics.score import Interval
from nequip_decorr.md.statistics.verdict import (
    LOG_RANK_LEVEL,
    MIN_PAIRS,
    MIN_PAIRS_LOG_RANK,
    verdict,
)
from tests.support.published import HORIZON, PLACEBO, SIX_MP, as_replicas
from tests.support.synthetic import replica, run

TAU = 10.0


# --- log-rank ------------------------------------------------------------------------


def test_log_rank_of_the_published_example():
    """Kleinbaum and Klein: 9 observed, 19.25 expected, chi-squared 16.79."""
    found = stratified_log_rank(
        as_replicas(SIX_MP, stratified=False),
        as_replicas(PLACEBO, stratified=False),
        HORIZON,
    )
    assert found.observed == 9
    assert found.expected == pytest.approx(19.25, abs=0.005)
    assert found.z**2 == pytest.approx(16.79, abs=0.005)
    assert found.z < 0


def test_stratified_log_rank_of_the_published_example():
    """Kleinbaum and Klein, three strata: 16.38 expected, chi-squared 10.14."""
    six_mp, placebo = as_replicas(SIX_MP), as_replicas(PLACEBO)
    found = stratified_log_rank(six_mp, placebo, HORIZON)
    assert (found.observed, found.n_strata) == (9, 3)
    assert found.expected == pytest.approx(16.38, abs=0.005)
    assert found.z**2 == pytest.approx(10.14, abs=0.005)
    assert found.p_value == pytest.approx(0.0014, abs=0.0001)
    for stratum, expected in enumerate([2.91, 7.36, 6.11]):
        part = stratified_log_rank(
            [r for r in six_mp if r.structure == stratum],
            [r for r in placebo if r.structure == stratum],
            HORIZON,
        )
        assert part.expected == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("seed", range(4))
def test_one_stratum_is_scipys(seed):
    rng = np.random.default_rng(seed)
    groups = []
    for rate in (0.1, 0.2):
        time = rng.exponential(1 / rate, size=15).round(1)
        groups.append(
            [
                replica(i, time_ps=min(t, TAU), cause="overlap" if t < TAU else None)
                for i, t in enumerate(time)
            ]
        )
    found = stratified_log_rank(*groups, TAU)
    samples = [
        stats.CensoredData(
            uncensored=[r.time_ps for r in group if r.failed],
            right=[r.time_ps for r in group if not r.failed],
        )
        for group in groups
    ]
    expected = stats.logrank(*samples)
    assert found.z == pytest.approx(expected.statistic, rel=1e-9)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)


def test_strata_are_sums_of_hypergeometric_draws():
    rng = np.random.default_rng(8)
    time = rng.integers(1, 6, size=20).astype(float)
    failed, first = rng.random(20) < 0.7, rng.random(20) < 0.5
    mean = variance = 0.0
    for at in sorted(set(time[failed])):
        alive = time >= at
        n, k = int(alive.sum()), int((alive & first).sum())
        d = int((failed & (time == at)).sum())
        # all ways of drawing the d that fail from the n at risk
        law = [comb(k, x) * comb(n - k, d - x) / comb(n, d) for x in range(d + 1)]
        moments = [sum(p * x**power for x, p in enumerate(law)) for power in (1, 2)]
        mean += moments[0]
        variance += moments[1] - moments[0] ** 2
    assert expected_failures(time, failed, first) == pytest.approx((mean, variance))


def test_a_stratum_of_one_group_says_nothing():
    a = [replica(0, time_ps=1.0, cause="overlap", structure=0)]
    b = [replica(0, time_ps=1.0, cause="overlap", structure=1)]
    found = stratified_log_rank(a, b, TAU)
    assert (found.n_strata, found.z, found.p_value) == (0, None, None)


def test_structures_that_differ_do_not_mask_a_model():
    """Where one structure always fails first only like is compared with like."""
    a, b = [], []
    for structure, scale in ((0, 0.01), (1, 1.0)):
        for seed in range(6):
            time = scale * (1 + 0.1 * seed)
            common = {"cause": "overlap", "structure": structure, "seed": seed}
            a.append(replica(len(a), time_ps=2 * time, **common))
            b.append(replica(len(b), time_ps=time, **common))
    stratified = stratified_log_rank(a, b, TAU).z
    pooled = stratified_log_rank(
        [replace(r, structure=0) for r in a], [replace(r, structure=0) for r in b], TAU
    ).z
    assert stratified < pooled < 0


# --- difference of scores ------------------------------------------------------------


def pairs_of(times_a, times_b, clusters):
    return tuple(
        [
            replica(
                i,
                time_ps=min(t, TAU),
                cause="overlap" if t < TAU else None,
                structure=int(clusters[i]),
            )
            for i, t in enumerate(times)
        ]
        for times in (times_a, times_b)
    )


def test_difference_of_means_without_censoring():
    a, b = pairs_of([1, 4, 20, 6], [2, 2, 3, 20], np.arange(4))
    found, scores, tau = score_difference(a, b, TAU, np.arange(4))
    assert tau == TAU
    assert scores == pytest.approx(((1 + 4 + 10 + 6) / 40, (2 + 2 + 3 + 10) / 40))
    assert found.value == pytest.approx(scores[0] - scores[1])


def test_two_models_without_failures_are_not_known_to_be_equal():
    a, b = pairs_of([20] * 16, [20] * 16, np.arange(16))
    found, _, _ = score_difference(a, b, TAU, np.arange(16))
    assert found.value == 0
    # the bootstrap of half a pseudo-pair: Beta(1/2, 16) has this 97.5 % quantile
    bound = stats.beta(0.5, 16).ppf(0.975)
    assert found.high == pytest.approx(bound, abs=0.02)
    assert found.low == pytest.approx(-bound, abs=0.02)


def test_pairing_narrows_the_interval():
    """What a structure does to both models cancels when it is paired."""
    rng = np.random.default_rng(0)
    base = rng.uniform(1, 8, size=60)
    a, b = pairs_of(base + 1, base, np.arange(60))
    paired, _, _ = score_difference(a, b, TAU, np.arange(60))
    a, b = pairs_of(base + 1, rng.permutation(base), np.arange(60))
    shuffled, _, _ = score_difference(a, b, TAU, np.arange(60))
    assert paired.value == pytest.approx(0.1)
    assert paired.value == pytest.approx(shuffled.value)
    assert paired.high - paired.low < 0.5 * (shuffled.high - shuffled.low)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1))
def test_swapping_the_models_swaps_the_sign(times):
    a, b = pairs_of(*zip(*times, strict=True), np.arange(len(times)))
    clusters = np.arange(len(times))
    forward, _, _ = score_difference(a, b, TAU, clusters)
    backward, _, _ = score_difference(b, a, TAU, clusters)
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
    held, n_runs = 0, 800
    for index in range(n_runs):
        frailty = np.ones(n_structures)
        if spread:
            frailty = rng.gamma(1 / spread, spread, size=n_structures)
        times = [rng.exponential(TAU / (h * frailty[clusters])) for h in hazards]
        a, b = pairs_of(*times, clusters)
        found, _, _ = score_difference(a, b, TAU, clusters, seed=index)
        held += found.low <= truth <= found.high
    assert 0.93 <= held / n_runs <= 0.97


# --- verdict -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "n_pairs", "words"),
    [
        (
            Interval(0.21, 0.05, 0.37),
            16,
            "A is more stable than B: score difference +0.21",
        ),
        (
            Interval(-0.21, -0.37, -0.05),
            16,
            "B is more stable than A: score difference -0.21",
        ),
        (Interval(0.1, -0.05, 0.3), 16, "no difference shown"),
        (Interval(0.1, 0.0, 0.3), 16, "no difference shown"),
        (Interval(0.0, -0.1, 0.1), 16, "no difference shown"),
        (Interval(0.9, 0.5, 1.0), MIN_PAIRS - 1, "no verdict: 5 pairs"),
        (Interval(float("nan"), float("nan"), float("nan")), 16, "no difference"),
    ],
    ids=["first", "second", "none", "touches", "zero", "few", "nan"],
)
def test_verdict_says_no_more_than_the_interval(interval, n_pairs, words):
    silent = LogRank(8, 8.0, 0.0, 1.0, 16)
    assert verdict(interval, silent, n_pairs, ("A", "B")).startswith(words)


@pytest.mark.parametrize(
    ("z", "p_value", "words"),
    [
        (
            -3.5,
            5e-4,
            "A fails at a lower rate than B on these structures (log-rank p = 0.0005)",
        ),
        (
            3.5,
            5e-4,
            "B fails at a lower rate than A on these structures (log-rank p = 0.0005)",
        ),
        (-2.1, 0.036, "no difference shown"),
        (None, None, "no difference shown"),
    ],
    ids=["first", "second", "two-chances", "no-failure"],
)
def test_verdict_where_only_the_rates_of_failure_tell(z, p_value, words):
    unsure = Interval(0.02, -0.1, 0.1)
    assert verdict(unsure, LogRank(16, 9.0, z, p_value, 16), 16, ("A", "B")).startswith(
        words
    )
    sure = Interval(0.2, 0.1, 0.3)
    assert verdict(sure, LogRank(16, 9.0, z, p_value, 16), 16, ("A", "B")).startswith(
        "A is more stable"
    )
    few = verdict(unsure, LogRank(5, 3.0, z, p_value, 5), 5, ("A", "B"))
    assert few.startswith("no verdict")
    six = verdict(unsure, LogRank(6, 3.0, z, p_value, 6), 6, ("A", "B"))
    assert six.startswith("no difference shown")


def test_advice_is_by_when_the_models_fail():
    unsure, log_rank = Interval(0.02, -0.1, 0.1), LogRank(0, 4.0, -3.5, 5e-4, 16)
    early = verdict(unsure, log_rank, 16, ("A", "B"), early=True)
    assert early.endswith("compare the medians, or shorten the horizon")
    late = verdict(unsure, log_rank, 16, ("A", "B"), early=False)
    assert late.endswith("a longer horizon would show it")


def test_the_normal_distribution_is_right_from_seven_pairs_on():
    # all pairs in favour of one model: z = sqrt(n), against the sign test
    for n in (MIN_PAIRS_LOG_RANK - 1, MIN_PAIRS_LOG_RANK):
        ones = np.ones(n)
        log_rank = stratified_log_rank(*pairs_of(2 * ones, ones, np.arange(n)), TAU)
        assert log_rank.z == pytest.approx(-(n**0.5))
        assert log_rank.p_value < LOG_RANK_LEVEL
    assert 2 * 0.5**MIN_PAIRS_LOG_RANK < LOG_RANK_LEVEL
    assert 2 * 0.5 ** (MIN_PAIRS_LOG_RANK - 1) > LOG_RANK_LEVEL


def test_early_failures_differ_although_their_share_of_the_horizon_does_not():
    # all fail within 0.4 ps of 10, each of one model before its partner
    rng = np.random.default_rng(0)
    sooner = rng.uniform(0.1, 0.2, size=16)
    a, b = pairs_of(2 * sooner, sooner, np.arange(16))
    difference, _, _ = score_difference(a, b, TAU, np.arange(16))
    assert difference.low < 0 < difference.high
    log_rank = stratified_log_rank(a, b, TAU)
    assert verdict(difference, log_rank, 16, ("A", "B")).startswith(
        "A fails at a lower rate than B"
    )


def test_models_alike_seldom_get_a_verdict():
    # nominal: 5 % at most over both tests
    rng = np.random.default_rng(1)
    verdicts = []
    for index in range(400):
        times = rng.exponential(0.2, size=(2, 16))
        a, b = pairs_of(*times, np.arange(16))
        difference, _, _ = score_difference(a, b, TAU, np.arange(16), seed=index)
        found = verdict(difference, stratified_log_rank(a, b, TAU), 16, ("A", "B"))
        verdicts.append(not found.startswith("no difference"))
    assert np.mean(verdicts) <= 0.05


def test_fewer_pairs_could_not_be_significant():
    assert 2 * 0.5**MIN_PAIRS < 0.05 < 2 * 0.5 ** (MIN_PAIRS - 1)


def test_a_clear_difference_is_shown_and_an_absent_one_is_not():
    good = run(hazard_per_ps=0.02, n_structures=16, seed=1)
    bad = run(hazard_per_ps=0.5, n_structures=16, seed=2)
    found = compare_runs(good, bad, ("good", "bad"))
    assert found.verdict.startswith("good is more stable than bad")
    assert found.log_rank.z < 0
    assert found.log_rank.p_value < 1e-3
    assert found.n_pairs == 32
    assert found.notes == ()
    same = compare_runs(bad, run(hazard_per_ps=0.5, n_structures=16, seed=3))
    assert same.verdict.startswith("no difference shown")


def test_a_run_against_itself():
    result = run(seed=4)
    found = compare_runs(result, result)
    assert found.difference.value == 0
    assert found.difference.low < 0 < found.difference.high
    assert found.log_rank.z == pytest.approx(0)


# --- pairing -------------------------------------------------------------------------


def test_pairs_have_one_key_and_the_rest_is_counted():
    first = run(n_structures=8, replicas=3, temperatures_K=(300.0, 600.0))
    second = run(n_structures=8, replicas=2, temperatures_K=(600.0, 900.0), seed=1)
    shuffled = replace(second, replicas=second.replicas[::-1])
    found = compare_runs(first, shuffled, ("a", "b"))
    assert found.n_pairs == 16
    assert found.unpaired == (32, 16)
    assert "32 replicas of a without a partner: not used" in found.notes
    assert "16 replicas of b without a partner: not used" in found.notes
    assert list(found.by_temperature) == [600.0]
    for a, b in pair_replicas(first, shuffled, ("a", "b")):
        assert a.key == b.key


def test_each_temperature_is_compared():
    first = run(temperatures_K=(300.0, 600.0), seed=1)
    second = run(temperatures_K=(300.0, 600.0), seed=2)
    found = compare_runs(first, second)
    values = [interval.value for interval in found.by_temperature.values()]
    # as many pairs at both
    assert np.mean(values) == pytest.approx(found.difference.value)


def test_scores_stop_where_one_was_interrupted():
    first = run(hazard_per_ps=0.0)
    stopped = tuple(
        replace(r, time_ps=4.0, censored_by="interrupt") for r in first.replicas
    )
    found = compare_runs(replace(first, replicas=stopped, complete=False), first)
    assert found.tau_ps == 4.0
    assert any("first 4 ps" in note for note in found.notes)
    assert any("A is not complete" in note for note in found.notes)


def test_renamed_structures_are_said():
    first = run(seed=1)
    renamed = tuple(replace(r, structure_name="other") for r in first.replicas)
    found = compare_runs(first, replace(first, replicas=renamed))
    assert any("different names" in note for note in found.notes)


def test_few_structures_are_said():
    found = compare_runs(
        run(n_structures=1, replicas=8), run(n_structures=1, replicas=8)
    )
    assert found.resampled == "replicas"
    assert any("1 starting structure " in note for note in found.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"horizon_ps": 20.0}, "horizon_ps: 10.0 in A, 20.0 in B"),
        ({"timestep_fs": 2.0}, "timestep_fs: 1.0 in A, 2.0 in B"),
        ({"ensemble": "nve"}, "ensemble: langevin in A, nve in B"),
    ],
    ids=["horizon", "timestep", "ensemble"],
)
def test_another_protocol_is_refused(change, message):
    other = replace(run(), protocol={**run().protocol, **change})
    with pytest.raises(UserError, match=message):
        compare_runs(run(), other)


def test_other_criteria_are_refused():
    first = run()
    criteria = {**first.protocol["criteria"], "max_force_eV_per_A": 50.0}
    second = replace(first, protocol={**first.protocol, "criteria": criteria})
    with pytest.raises(
        ValueError, match=r"criteria.max_force_eV_per_A: 100.0 in A, 50.0 in B"
    ):
        compare_runs(first, second)


def test_what_is_recorded_may_differ():
    first = run()
    protocol = {**first.protocol, "record_interval_steps": 1, "replicas": 99}
    assert compare_runs(first, replace(first, protocol=protocol)).n_pairs == 16


def test_a_setting_that_only_one_has_is_refused():
    first = run()
    second = replace(first, protocol={**first.protocol, "new_setting": 1})
    with pytest.raises(UserError, match="new_setting: nothing in A, 1 in B"):
        compare_runs(first, second)


def test_other_structures_are_refused():
    first = run()
    others = tuple(replace(r, formula="Zr32O64") for r in first.replicas)
    with pytest.raises(UserError, match="Hf32O64 in A and Zr32O64 in B"):
        compare_runs(first, replace(first, replicas=others))


def test_nothing_in_common_is_refused():
    first = run(temperatures_K=(300.0,))
    with pytest.raises(UserError, match="got none"):
        compare_runs(first, run(temperatures_K=(600.0,)))


def test_a_replica_that_is_there_twice_is_refused():
    first = run()
    twice = replace(first, replicas=(*first.replicas, first.replicas[0]))
    with pytest.raises(UserError, match="twice in B"):
        compare_runs(first, twice)
