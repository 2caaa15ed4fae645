"""What few failures and censored replicas leave open of the survival, as it is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nequip_decorr.md.results import Event
from nequip_decorr.md.statistics.survival import (
    describe_score,
    estimate_survival,
    hazard_bound,
)
from tests.support.synthetic import replica

TAU = 10.0

# --- bounds --------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "bound"), [(8, 0.69), (10, 0.74), (20, 0.86)])
def test_no_failure_is_a_bound(n, bound):
    survivors = [replica(i, time_ps=TAU) for i in range(n)]
    result = estimate_survival(survivors, TAU, "unphysical")
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


def test_no_failure_bounds_structures_not_replicas():
    """All replicas of a structure may be alike: 8 of 4 say as much as 8."""
    result = estimate_survival(clustered(8, 4), TAU, "unphysical")
    assert result.score.low == pytest.approx(0.05 ** (1 / 8))
    assert (result.score.value, result.score.high) == (1, 1)
    assert result.survival_at_tau.low == pytest.approx(0.05 ** (1 / 32))
    said = describe_score(result)
    assert "the score is >= 0.69" in said
    assert "S(10 ps) >= 0.91 if replicas of one structure are independent" in said
    # one failure more does not make it surer
    failed = estimate_survival(clustered(8, 4, 0), TAU, "unphysical")
    assert failed.score.low < result.score.low + 0.01


def test_not_all_survive_where_one_fails_at_the_end():
    failed = [replica(0, time_ps=0.999 * TAU, cause="overlap", structure=0)]
    rest = [replica(i, time_ps=TAU, structure=i) for i in range(1, 16)]
    said = describe_score(estimate_survival([*failed, *rest], TAU, "unphysical"))
    assert "survived more than 99 % of 10 ps; 1 of 16 failed" in said


def test_one_replica_a_structure_is_as_many_independent_ones():
    result = estimate_survival(clustered(20, 1), TAU, "unphysical")
    assert result.score.low == pytest.approx(0.05 ** (1 / 20))
    assert describe_score(result).endswith("S(10 ps) >= 0.86")


def test_only_those_followed_to_the_end_bound_the_score():
    """Of each structure's replicas all but one were stopped early."""
    followed = [
        replace(r, time_ps=0.01, censored_by="interrupt") if r.index % 16 else r
        for r in clustered(8, 16)
    ]
    result = estimate_survival(followed, TAU, "unphysical")
    assert result.score.low == pytest.approx(0.05 ** (1 / 8))


def test_everybody_fails_at_once():
    result = estimate_survival(
        [replica(i, time_ps=0.0, cause="overlap") for i in range(10)],
        TAU,
        "unphysical",
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
    assert (
        estimate_survival(late, TAU, "unphysical").score.low < 0.05 ** (1 / 16) + 0.01
    )


# --- simulation with known hazard ----------------------------------------------------


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


# --- what is censored, and what is said about it -------------------------------------


def test_interrupted_replicas_are_censored_not_failed():
    replicas = [replica(i, time_ps=TAU) for i in range(8)]
    replicas += [
        replica(8 + i, time_ps=4.0, censored_by="out_of_memory") for i in range(3)
    ]
    result = estimate_survival(replicas, TAU, "unphysical")
    assert (result.n_failures, result.n_lost) == (0, 3)
    assert result.score.value == 1
    # only those that were followed to the end bound the survival there
    assert result.survival_at_tau.low == pytest.approx(0.05 ** (1 / 8))
    assert result.censored == {"horizon": 8, "out_of_memory": 3}
    assert any("3 replicas stopped before the horizon" in n for n in result.notes)


def test_a_run_that_was_not_followed_to_the_horizon_says_so():
    replicas = [replica(i, time_ps=4.0, censored_by="interrupt") for i in range(4)]
    replicas.append(replica(4, time_ps=1.0, cause="dissociation"))
    result = estimate_survival(replicas, TAU, "unphysical")
    assert result.tau_ps == 4.0
    assert result.score.value == pytest.approx((4 * 4 + 1) / (5 * 4))
    assert any("first 4 ps" in note for note in result.notes)


def test_all_failed_early_is_known_up_to_the_horizon():
    replicas = [replica(i, time_ps=1.0 + i, cause="dissociation") for i in range(4)]
    result = estimate_survival(replicas, TAU, "unphysical")
    assert result.tau_ps == TAU
    assert result.score.value == pytest.approx(np.mean([1, 2, 3, 4]) / TAU)


def test_few_structures_are_said():
    replicas = [replica(i, time_ps=TAU, structure=i % 5) for i in range(10)]
    notes = estimate_survival(replicas, TAU, "unphysical").notes
    assert any("cannot cover the choice of structures" in note for note in notes)


def test_an_event_after_the_horizon_is_not_counted():
    replicas = [replica(i, time_ps=10.002, cause="overlap") for i in range(4)]
    result = estimate_survival(replicas, TAU, "unphysical")
    assert (result.n_failures, result.n_lost, result.causes) == (0, 0, {})
    assert result.censored == {"horizon": 4}


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
        return estimate_survival(rows, TAU, "unphysical").score

    alike, mixed = score(lambda i: i % 8), score(lambda i: i // 8)
    assert alike.high - alike.low > 1.5 * (mixed.high - mixed.low)


def mixed():
    """Two unphysical, one of them followed to an explosion; one explosion; a survivor;
    one interrupted.
    """
    overlap, blowup = Event("overlap", 2000, 2.0, "m"), Event("blowup", 5000, 5.0, "m")
    bare = [replica(i, time_ps=TAU) for i in range(4)]
    return [
        replace(bare[0], time_ps=2.0, unphysical=overlap, censored_by=None),
        replace(
            bare[1], time_ps=5.0, unphysical=overlap, explosion=blowup, censored_by=None
        ),
        replace(bare[2], time_ps=5.0, explosion=blowup, censored_by=None),
        bare[3],
        replica(4, time_ps=3.0, censored_by="interrupt"),
    ]


def test_what_the_other_kind_ended_is_censored_and_said():
    unphysical = estimate_survival(mixed(), TAU, "unphysical")
    assert unphysical.causes == {"overlap": 2}
    assert unphysical.censored == {"explosion": 1, "horizon": 1, "interrupt": 1}
    assert (unphysical.n_not_followed, unphysical.n_lost) == (1, 1)
    assert any("1 exploded before" in note for note in unphysical.notes)
    explosion = estimate_survival(mixed(), TAU, "explosion")
    assert explosion.causes == {"blowup": 2}
    assert explosion.censored == {"unphysical": 1, "horizon": 1, "interrupt": 1}
    assert (explosion.n_not_followed, explosion.n_lost) == (1, 1)
    assert any("1 not followed beyond" in note for note in explosion.notes)
