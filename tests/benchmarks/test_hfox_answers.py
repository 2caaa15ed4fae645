"""Words follow from intervals: longer, shorter, or nothing shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.hfox.analysis import Estimate, Record
from benchmarks.hfox.answers import Answer, answers, direction
from benchmarks.hfox.models import CHOSEN as BOTH
from benchmarks.hfox.models import DECORRELATED
from tests.benchmarks.test_hfox_analysis import record

CHOSEN = BOTH[0]
SEEDS = (1, 2, 3, 4)


def in_section(records: list[Record], section: str) -> list[Record]:
    return [replace(r, grid=section) for r in records]


def pairs(factors: tuple[float, ...], section: str = "confirmed") -> list[Record]:
    """The chosen variant is stable by these factors longer than no extension."""
    records = [record("none", s, times=[s]) for s in SEEDS]
    records += [
        record(CHOSEN, s, times=[s * f]) for s, f in zip(SEEDS, factors, strict=True)
    ]
    return in_section(records, section)


def the(found: list[Answer], start: str) -> Answer:
    (only,) = [x for x in found if x.question.startswith(start)]
    return only


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(1.1, 1.5, "more"), (0.5, 0.9, "less"), (0.9, 1.1, "no difference shown")],
)
def test_direction_is_what_the_interval_says(
    low: float, high: float, word: str
) -> None:
    assert direction(Estimate(1.0, low, high, 4), "more", "less") == word


@pytest.mark.parametrize(
    ("factors", "word"),
    [
        ((2.0, 2.1, 1.9, 2.0), "**Longer**: 2.00 ["),
        ((0.5, 0.52, 0.48, 0.5), "**Shorter**: 0.50 ["),
        ((2.0, 0.5, 4.0, 0.25), "**No difference shown**: 1.00 ["),
    ],
)
def test_stability_is_answered_by_the_interval_over_seeds(
    factors: tuple[float, ...], word: str
) -> None:
    answer = the(answers(pairs(factors)), f"{CHOSEN}: is MD stable for longer at")
    assert answer.sentence.startswith(word)
    assert answer.section == "Confirmed"


def test_compositions_and_temperature_get_verdicts_of_their_own() -> None:
    # longer at the unseen composition, as much shorter in hotter HfO2: none if pooled
    records = pairs((2.0, 2.1, 1.9, 2.0))
    for r in records:
        if r.variant == CHOSEN:
            times = r.data["md"]["hfo2_2400K"]["time_ps"]
            r.data["md"]["hfo2_2400K"]["time_ps"] = [r.seed**2 / t for t in times]
    found = answers(records)
    at, hotter = (
        the(found, f"{CHOSEN}: is MD stable for longer {where}")
        for where in ("at unseen compositions", "in hotter HfO2")
    )
    assert at.sentence.startswith("**Longer**: 2.00 [")
    assert hotter.sentence.startswith("**Shorter**: 0.50 [")


def test_the_mean_time_is_given_beside_the_geometric_mean() -> None:
    # one long-lived replica makes up for all others that fail sooner
    records = [record("none", s, times=[1.0, 1.0, 1.0]) for s in SEEDS]
    records += [record(CHOSEN, s, times=[0.5, 0.5, 2 + 0.01 * s]) for s in SEEDS]
    answer = the(
        answers(in_section(records, "confirmed")),
        f"{CHOSEN}: is MD stable for longer at",
    )
    assert answer.sentence.startswith("**Shorter**")
    assert "mean time different by 0.01 [0.00, 0.02] (4 seeds) ps" in answer.sentence
    assert answer.sentence.endswith("(longer).")


def test_survivors_are_counted_by_replica_and_judged_by_seed() -> None:
    # of two replicas in each of two conditions: one survives in seeds 1 and 2
    alive = {1: [10.0, 1.0], 2: [10.0, 1.0], 3: [1.0, 1.0], 4: [1.0, 1.0]}
    records = [record("none", s, times=[1.0, 1.0]) for s in SEEDS]
    records += [record(CHOSEN, s, times=times) for s, times in alive.items()]
    found = the(
        answers(in_section(records, "longer")), f"{CHOSEN}: do replicas survive"
    )
    # Student: mean 0.25, standard error 0.2887 / 2, quantile 3.182
    assert found.sentence == (
        "4 of 16 against 0 of 16 without the extension; "
        "difference in the share 0.25 [-0.21, 0.71] (4 seeds) (no difference shown)."
    )


def test_without_survivors_none_are_counted() -> None:
    found = answers(pairs((2.0, 2.1, 1.9, 2.0)))
    assert not [x for x in found if "survive" in x.question]


def test_the_clearest_difference_is_corrected_for_their_number() -> None:
    question = "Is a difference significant"
    clear = the(answers(pairs((2.0, 2.01, 1.99, 2.0))), question)
    assert clear.sentence.startswith(f"**Yes**: the clearest of 3 is {CHOSEN}, ")
    # logarithms of these factors: t = 3.588 with three degrees of freedom, p = 0.0371
    unclear = the(answers(pairs((1.2, 1.3, 1.1, 1.5))), question)
    assert unclear.sentence.startswith("**No**")
    assert "p = 0.037, corrected 0.11 (Holm)" in unclear.sentence


def test_all_seeds_include_those_of_the_choice() -> None:
    records = []
    for section, seeds, factor in (("explored", (1, 2), 4.0), ("confirmed", (3, 4), 1)):
        for s in seeds:
            both = [record("none", s, times=[1.0])]
            both.append(record("constant-every-4", s, times=[factor]))
            records += in_section(both, section)
    found = the(answers(records), "constant-every-4: over all seeds")
    assert "all: 2.00 [" in found.sentence
    assert "HfO2, 2400 K: 2.00 [" in found.sentence


def test_a_choice_alone_is_not_reported_as_all_seeds() -> None:
    records = [
        record(v, s, times=[t])
        for v, t in (("none", 1.0), ("constant-0.3", 2.0))
        for s in SEEDS
    ]
    found = answers(in_section(records, "longer"))
    assert not [x for x in found if "over all seeds" in x.question]


def test_confirmed_comes_before_explored() -> None:
    records = pairs((2.0, 2.1, 1.9, 2.0), "explored")
    records += pairs((2.0, 2.1, 1.9, 2.0), "confirmed")
    asked = [x for x in answers(records) if "stable for longer at" in x.question]
    assert [x.section for x in asked] == ["Confirmed", "Explored"]


def test_price_and_controls_are_answered_where_they_were_measured() -> None:
    records = [record("none", s, times=[1.0], force=0.2 + 0.01 * s) for s in SEEDS]
    records += [record("epochs-40", s, times=[1.0], force=0.3) for s in SEEDS]
    records += [record(CHOSEN, s, times=[3.0 + 0.01 * s], force=0.25) for s in SEEDS]
    found = answers(in_section(records, "confirmed"))
    price = the(found, f"{CHOSEN}: at what cost").sentence
    assert "(larger); energies in distribution 1.00 [1.00, 1.00]" in price
    assert the(found, f"{CHOSEN}: against epochs-40").sentence.endswith("(longer).")
    assert the(found, f"{CHOSEN}: more stable than its").sentence.startswith("**Yes**")
    assert not [x for x in found if "against sam" in x.question]


def test_relation_is_answered_from_models_that_differ() -> None:
    # the less correlated, the longer; errors say nothing
    rng = np.random.default_rng(1)
    records = [
        record(
            "none" if i == 0 else f"v{i}",
            s,
            rho=0.05 * i,
            times=[10.0 - i],
            force=float(rng.uniform(0.1, 0.3)),
            barrier=-i,
        )
        for s in SEEDS
        for i in range(9)
    ]
    found = answers(in_section(records, "explored"))
    relation = the(found, "Is correlation related")
    assert "less correlated models fail later" in relation.sentence
    assert "higher barriers fail later" in the(found, "Does a static").sentence


def test_too_few_models_leave_the_relation_open() -> None:
    found = answers(pairs((2.0, 2.0, 2.0, 2.1), "explored"))
    assert not [x for x in found if x.question.startswith("Is correlation related")]
    listed = the(found, "Which schedule").sentence
    assert f"4 seeds: {CHOSEN} 2.02 [" in listed


def test_variants_of_fewer_seeds_are_not_ranked() -> None:
    records = pairs((2.0, 2.0, 2.0, 2.1), "explored")
    lucky = [record("target", 1, times=[9.0])]
    listed = the(answers(records + in_section(lucky, "explored")), "Which schedule")
    assert "target" not in listed.sentence


def test_two_seeds_answer_nothing() -> None:
    records = [r for r in pairs((2.0, 2.1, 1.9, 2.0), "larger") if r.seed < 3]
    assert not answers(records)


def test_forms_are_compared_with_the_term_as_it_is() -> None:
    known = [
        record(v, s, times=[s * f])
        for v, f in (("none", 1.0), ("constant-0.3", 2.0))
        for s in (*SEEDS, 5)
    ]
    forms = [record("abs", s, times=[s * 3.0]) for s in SEEDS]
    records = in_section(known, "explored") + in_section(forms, "forms")
    found = the(answers(records), "Is another form")
    assert found.sentence.endswith("abs 1.50 [1.50, 1.50] (4 seeds).")
    assert found.section == "Other forms of the term"


def test_correlation_among_models_with_the_term_is_separate() -> None:
    # between with and without it is everything, among those with it nothing
    rng = np.random.default_rng(2)

    def model(variant: str, seed: int, rho: float, time: float) -> Record:
        force, barrier = rng.uniform(0.1, 0.3, 2)
        return record(
            variant, seed, rho=rho, times=[time], force=force, barrier=barrier
        )

    records = [model("none", s, 0.5, 0.1) for s in SEEDS]
    records += [
        model(v, s, float(rng.uniform(0.1, 0.2)), float(rng.uniform(1, 2)))
        for v in DECORRELATED[:8]
        for s in SEEDS
    ]
    found = answers(in_section(records, "explored"))
    among = the(found, "And among models trained with")
    assert among.sentence.endswith("no difference shown.")


def test_the_two_that_were_chosen_are_compared() -> None:
    first, second = BOTH
    records = pairs((2.0, 2.1, 1.9, 2.0))
    records += in_section(
        [record(second, s, times=[s * 1.0]) for s in SEEDS], "confirmed"
    )
    found = the(answers(records), f"{first} or {second}?")
    assert "time to failure 2.00 [1.87, 2.13] (4 seeds), force error" in found.sentence


def test_the_sample_of_edges_is_compared_with_all_of_them() -> None:
    variants = {"none": 0.3, "cosine-down": 0.2, "cosine-all-edges": 0.25}
    records = [record(v, s, force=f, rho=f) for v, f in variants.items() for s in SEEDS]
    found = the(answers(in_section(records, "explored")), "Does it matter that a step")
    assert "force error 0.800 [0.800, 0.800]" in found.sentence
    assert "difference in mean \\|rho\\| -0.050 [-0.050, -0.050]" in found.sentence
    without = [r for r in records if r.variant != "cosine-all-edges"]
    asked = [x.question for x in answers(in_section(without, "explored"))]
    assert not [q for q in asked if q.startswith("Does it matter")]
