from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nequip_decorr.md.results import KINDS
from nequip_decorr.md.statistics.comparison import compare_kind, compare_runs
from tests.support.synthetic import replica, run

TAU = 10.0


def made(unphysical, explosion, until="explosion", temperatures=(1800.0,), **changes):
    """A run of structures with events at these times (ps); none from the horizon on.

    ``until``: the first event, or the explosion, ends a replica.
    """
    replicas = []
    for structure, times in enumerate(zip(unphysical, explosion, strict=True)):
        for kelvin in temperatures:
            event = [
                getattr(replica(0, time_ps=t, cause=cause), kind) if t < TAU else None
                for t, cause, kind in zip(
                    times, ("overlap", "blowup"), KINDS, strict=True
                )
            ]
            soft, hard = times
            end = min(times) if until == "first" else hard
            ended = replica(
                len(replicas),
                time_ps=min(end, TAU),
                structure=structure,
                seed=0,
                temperature_K=kelvin,
            )
            replicas.append(
                replace(
                    ended,
                    unphysical=event[0] if soft <= end else None,
                    explosion=event[1] if hard <= end else None,
                    censored_by=None if end < TAU else "horizon",
                )
            )
    base = run(temperatures_K=temperatures)
    protocol = {**base.protocol, "until": until}
    return replace(base, replicas=tuple(replicas), protocol=protocol, **changes)


def lasting(factor, n=12, seed=0):
    """Early times that scatter over structures, n of them."""
    return factor * 0.3 * np.exp(0.3 * np.random.default_rng(seed).normal(size=n))


NEVER = np.full(12, 20.0)


# --- verdicts ------------------------------------------------------------------------


def test_the_winner_is_named_with_how_much_longer_it_lasts():
    first, second = made(lasting(2.0, seed=1), NEVER), made(lasting(1.0), NEVER)
    found = compare_runs(first, second, ("good", "bad")).kinds["unphysical"]
    assert found.overall.ratio.value == pytest.approx(2, rel=0.3)
    assert found.failures == found.overall.failures == (12, 12)
    assert found.verdict.startswith("good is more stable than bad: it lasts ")
    value = found.overall.ratio.value
    assert f"lasts {value:.2f} [" in found.verdict
    turned = compare_runs(second, first, ("bad", "good")).kinds["unphysical"]
    assert turned.verdict == found.verdict


def test_models_alike_get_no_winner():
    first, second = made(lasting(1.0, seed=1), NEVER), made(lasting(1.0, seed=2), NEVER)
    found = compare_runs(first, second).kinds["unphysical"]
    assert found.verdict.startswith("no difference shown between A and B")
    assert "includes 1" in found.verdict


def test_a_run_against_itself():
    result = run(seed=4)
    found = compare_runs(result, result).kinds["unphysical"]
    assert found.overall.ratio.value == pytest.approx(1)
    assert found.overall.difference.value == 0
    assert found.verdict.startswith("no difference shown")


def test_few_structures_get_no_verdict():
    first, second = made([2.0, 2.0], [20, 20]), made([1.0, 1.0], [20, 20])
    found = compare_runs(first, second).kinds["unphysical"]
    assert found.verdict.startswith("no verdict: 2 structures, at least 3 are needed")
    assert found.overall.ratio.value == pytest.approx(2)


def test_without_failures_there_is_no_ratio_and_no_verdict():
    result = run(hazard_per_ps=0.0)
    for found in compare_runs(result, result).kinds.values():
        assert found.failures == (0, 0)
        assert found.verdict == "no event in A or B: no difference shown"


def test_a_winner_that_the_exact_test_does_not_confirm_is_a_close_call():
    """Four failures of one model, none of the other: p = 2 / 2^4."""
    failing = np.full(16, 20.0)
    failing[:4] = (2, 4, 6, 8)
    never = np.full(16, 20.0)
    found = compare_runs(made(never, never), made(failing, never)).kinds["unphysical"]
    assert found.overall.ratio.sign_flip_p == 0.125
    assert found.verdict.startswith("A is more stable than B: it lasts >= 1.")
    assert any("gives p = 0.12" in note for note in found.notes)


# --- two kinds -----------------------------------------------------------------------


def test_kinds_are_compared_apart_and_may_disagree():
    early, late = lasting(1.0), lasting(3.0, seed=1)
    first = made(late, late + 0.5 * early)
    second = made(early, late + 9 * early)
    found = compare_runs(first, second, ("with", "without"))
    assert list(found.kinds) == list(KINDS)
    assert found.kinds["unphysical"].verdict.startswith("with is more stable")
    assert found.kinds["explosion"].verdict.startswith("without is more stable")
    assert found.agreement == (
        "the two kinds disagree: with keeps a physical geometry for longer, without "
        "explodes later"
    )


def test_a_difference_of_one_kind_alone_is_said():
    late, last = lasting(3.0, seed=1), lasting(9.0, seed=2)
    first, second = made(late, last), made(lasting(1.0), last[::-1])
    found = compare_runs(first, second)
    assert found.agreement == (
        "the verdicts differ: A keeps a physical geometry for longer; for explosions "
        "no difference is shown, which does not mean that the two kinds differ"
    )


def test_a_kind_that_did_not_happen_is_no_disagreement():
    late = lasting(3.0, seed=1)
    found = compare_runs(made(late, NEVER), made(lasting(1.0), NEVER))
    assert found.kinds["unphysical"].longer == 0
    assert found.kinds["explosion"].verdict == "no event in A or B: no difference shown"
    assert found.agreement is None


def test_kinds_that_agree_need_no_words():
    late, early = lasting(4.0, seed=1), lasting(1.0)
    found = compare_runs(made(late, 2 * late), made(early, 2 * early))
    assert found.kinds["explosion"].verdict.startswith("A is more stable")
    assert found.agreement is None


def test_explosions_that_were_not_followed_get_no_verdict():
    early = lasting(1.0)
    first, second = made(early, 2 * early, "first"), made(2 * early, 4 * early, "first")
    found = compare_runs(first, second, ("a", "b"))
    explosion = found.kinds["explosion"]
    assert (explosion.overall, explosion.by_temperature) == (None, {})
    assert explosion.failures == (0, 0)
    assert explosion.not_followed == (12, 12)
    assert explosion.verdict == (
        "not followed: 0 of a and 0 of b exploded, and an unphysical geometry ended 12 "
        "of a and 12 of b first; run md with --until explosion for a and b to compare"
    )
    assert found.kinds["unphysical"].overall is not None
    assert found.agreement is None


def test_one_run_that_stopped_at_the_first_event_is_enough():
    early = lasting(1.0)
    late = lasting(3.0, seed=1)
    first, second = made(late, 2 * late, "first"), made(early, 2 * early)
    kinds = compare_runs(first, second).kinds
    went_on = compare_runs(made(late, 2 * late), second).kinds["unphysical"]
    assert kinds["unphysical"].overall == went_on.overall
    assert kinds["unphysical"].verdict.startswith("A is more stable than B")
    explosion = kinds["explosion"]
    assert explosion.not_followed == (12, 0)
    assert explosion.verdict.endswith("run md with --until explosion for A to compare")
    assert explosion.failures == (0, 12)
    assert explosion.overall is None


def test_an_explosion_censors_the_geometry():
    early = lasting(1.0)
    mixed = np.where(np.arange(12) < 2, 0.5 * early, 2 * early)
    found = compare_runs(made(early, mixed), made(early, 2 * early)).kinds["unphysical"]
    assert found.failures == (10, 12)
    assert found.not_followed == (2, 0)
    assert found.overall is not None
    assert (
        "2 replicas of A exploded before the geometry became unphysical: censored there"
    ) in found.notes


def test_explosions_make_no_winner_of_the_geometry():
    """All of A explode; half of B become unphysical even earlier, half live on."""
    n = 16
    never, half = np.full(n, 20.0), np.where(np.arange(n) % 2, 20.0, 0.1)
    first = made(never, np.full(n, 0.3) + 0.01 * np.arange(n), "first")
    found = compare_runs(first, made(half, never, "first")).kinds["unphysical"]
    # by the geometry alone, with explosions as if they were independent of it
    assert found.overall.ratio.low > 1
    assert found.not_followed == (16, 0)
    assert found.longer is None
    assert found.verdict == (
        "no verdict: 16 of A and 0 of B exploded before the geometry became "
        "unphysical, and counting these as failures too changes the result"
    )
    assert found.notes[0].startswith("with explosions counted as failures too, the ")


def test_explosions_alone_are_no_absence_of_a_difference():
    """All of A explode early, and nothing ever happens in B."""
    first = made(NEVER, lasting(1.0), "first")
    found = compare_runs(first, made(NEVER, NEVER, "first")).kinds["unphysical"]
    assert found.failures == (0, 0)
    assert found.verdict.startswith("no verdict: 12 of A and 0 of B exploded before")


def test_a_winner_with_and_without_the_explosions_stays():
    late, early = lasting(4.0, seed=1), lasting(1.0)
    # two of A explode a little before they would have become unphysical
    boom = np.where(np.arange(12) < 2, 0.9 * late, 20.0)
    found = compare_runs(made(late, boom, "first"), made(early, NEVER)).kinds
    unphysical = found["unphysical"]
    assert unphysical.not_followed == (2, 0)
    assert unphysical.verdict.startswith("A is more stable than B")
    (note,) = (n for n in unphysical.notes if n.startswith("with explosions counted"))
    # every replica has an event then, so that the ratio is that of the mean log times
    logs = np.log(np.minimum(late, boom) / early)
    assert f"the time ratio is {np.exp(logs.mean()):.2f} [" in note


def test_nothing_is_concluded_beyond_the_limits_that_stopped_a_run():
    result = run(seed=1)
    stopped = tuple(
        replace(r, unphysical=None, censored_by="not_followed") if r.unphysical else r
        for r in result.replicas
    )
    found = compare_runs(replace(result, replicas=stopped), result)
    assert found.kinds["unphysical"].overall is None
    assert "looser limits" in found.kinds["unphysical"].verdict


# --- pairs ---------------------------------------------------------------------------


def test_what_has_no_partner_is_counted():
    first = run(n_structures=8, replicas=3, temperatures_K=(300.0, 600.0))
    second = run(n_structures=8, replicas=2, temperatures_K=(600.0, 900.0), seed=1)
    found = compare_runs(first, second, ("a", "b"))
    assert found.n_pairs == 16
    assert found.unpaired == (32, 16)
    assert "32 replicas of a without a partner: not used" in found.notes
    assert "16 replicas of b without a partner: not used" in found.notes
    assert list(found.kinds["unphysical"].by_temperature) == [600.0]


def test_each_temperature_is_compared():
    first = run(temperatures_K=(300.0, 600.0), hazard_per_ps=2.0, seed=1)
    second = run(temperatures_K=(300.0, 600.0), hazard_per_ps=2.0, seed=2)
    found = compare_runs(first, second).kinds["unphysical"]
    parts = list(found.by_temperature.values())
    assert [part.n_pairs for part in parts] == [16, 16]
    assert [part.n_structures for part in parts] == [8, 8]
    # as many pairs at both
    logs = [np.log(part.ratio.value) for part in parts]
    assert np.mean(logs) == pytest.approx(np.log(found.overall.ratio.value))
    scores = [part.difference.value for part in parts]
    assert np.mean(scores) == pytest.approx(found.overall.difference.value)


def test_all_temperatures_of_a_structure_are_one_unit():
    both = (300.0, 1800.0)
    first = made(lasting(2.0, seed=1), NEVER, temperatures=both)
    second = made(lasting(1.0), NEVER, temperatures=both)
    effect = compare_runs(first, second).kinds["unphysical"].overall
    assert (effect.n_pairs, effect.n_structures, effect.ratio.units) == (24, 12, 12)


def test_one_ratio_of_coarse_times_for_all_is_no_winner():
    """Frames are a picosecond apart: A fails at the second, B at the first."""
    first, second = made(np.full(12, 2.0), NEVER), made(np.full(12, 1.0), NEVER)
    found = compare_runs(first, second).kinds["unphysical"]
    assert found.overall.ratio.value == pytest.approx(2)
    assert (found.overall.ratio.low, found.longer) == (None, None)
    assert found.verdict.startswith("no verdict: the time ratio, 2.00 [no limits], is")


def test_each_temperature_has_a_hazard_of_its_own():
    """How much faster all fails at one of them makes no difference to their order."""

    def run_of(factor, seed, faster):
        times = np.where(np.arange(12) % 4, lasting(factor, seed=seed), 20.0)
        result = made(times, NEVER, temperatures=(300.0, 1800.0))
        hot = {
            r.index: replace(r.unphysical, time_ps=r.unphysical.time_ps / faster)
            for r in result.replicas
            if r.temperature_K == 1800.0 and r.unphysical is not None
        }
        replicas = [
            replace(r, unphysical=hot.get(r.index, r.unphysical))
            for r in result.replicas
        ]
        return replace(result, replicas=tuple(replicas))

    def p_value(faster):
        runs = run_of(1.1, 1, faster), run_of(1.0, 0, faster)
        found = compare_runs(*runs).kinds["unphysical"].overall.ratio
        assert found.method == "hazards"
        return found.sign_flip_p

    assert p_value(30.0) == p_value(1.0)


def test_the_time_step_is_the_shortest_time():
    first = made([0.0, 0.5, 0.5, 0.5], [20.0] * 4)
    second = made([0.5] * 4, [20.0] * 4)
    found = compare_runs(first, second).kinds["unphysical"].overall
    assert found.ratio.value == pytest.approx((0.001 / 0.5) ** 0.25)


def test_scores_stop_where_one_was_interrupted():
    first = run(hazard_per_ps=0.0)
    stopped = tuple(
        replace(r, time_ps=4.0, censored_by="interrupt") for r in first.replicas
    )
    found = compare_runs(replace(first, replicas=stopped, complete=False), first)
    effect = found.kinds["unphysical"]
    assert effect.overall.tau_ps == 4.0
    assert any("first 4 ps" in note for note in effect.notes)
    assert any("A is not complete" in note for note in found.notes)


def test_renamed_structures_are_said():
    first = run(seed=1)
    renamed = tuple(replace(r, structure_name="other") for r in first.replicas)
    found = compare_runs(first, replace(first, replicas=renamed))
    assert any("different names" in note for note in found.notes)


def test_a_kind_by_itself():
    pairs = [(r, r) for r in run(seed=2).replicas]
    found = compare_kind(pairs, "unphysical", ("A", "B"), TAU, 0.001)
    assert (found.kind, found.overall.n_pairs) == ("unphysical", 16)
