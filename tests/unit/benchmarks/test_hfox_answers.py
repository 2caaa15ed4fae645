"""Words follow from intervals: longer, shorter, or nothing shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.hfox.analysis import Estimate, Record
from benchmarks.hfox.answers import Answer, answers, direction
from benchmarks.hfox.models import CHOSEN as BOTH

from .test_hfox_analysis import record

CHOSEN = BOTH[0]
SEEDS = (1, 2, 3, 4)


def in_section(records: list[Record], section: str) -> list[Record]:
    return [replace(r, grid=section) for r in records]


def pairs(factors: tuple[float, ...], section: str = "confirmed") -> list[Record]:
    """The chosen variant holds by these factors longer than no extension."""
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
    answer = the(answers(pairs(factors)), f"{CHOSEN}: does MD hold")
    assert answer.sentence.startswith(word)
    assert answer.section == "Confirmed"


def test_confirmed_comes_before_explored() -> None:
    records = pairs((2.0, 2.1, 1.9, 2.0), "explored")
    records += pairs((2.0, 2.1, 1.9, 2.0), "confirmed")
    asked = [x for x in answers(records) if "does MD hold" in x.question]
    assert [x.section for x in asked] == ["Confirmed", "Explored"]


def test_price_and_controls_are_answered_where_they_were_measured() -> None:
    records = [record("none", s, times=[1.0], force=0.2 + 0.01 * s) for s in SEEDS]
    records += [record("epochs-40", s, times=[1.0], force=0.3) for s in SEEDS]
    records += [record(CHOSEN, s, times=[3.0 + 0.01 * s], force=0.25) for s in SEEDS]
    found = answers(in_section(records, "confirmed"))
    assert "larger" in the(found, f"{CHOSEN}: at what price").sentence
    assert the(found, f"{CHOSEN}: against epochs-40").sentence.endswith("(longer).")
    assert the(found, f"{CHOSEN}: more than").sentence.startswith("**Yes**")
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
    assert "less correlated hold longer" in relation.sentence
    assert "higher barriers hold longer" in the(found, "Does a static").sentence


def test_too_few_models_leave_the_relation_open() -> None:
    found = answers(pairs((2.0, 2.0, 2.0, 2.1), "explored"))
    assert not [x for x in found if x.question.startswith("Is correlation related")]
    assert the(found, "Which schedule").sentence.endswith(f"{CHOSEN} 2.02.")


def test_the_sample_of_edges_is_compared_with_all_of_them() -> None:
    variants = {"none": 0.3, "cosine-down": 0.2, "cosine-all-edges": 0.25}
    records = [record(v, s, force=f, rho=f) for v, f in variants.items() for s in SEEDS]
    found = the(answers(in_section(records, "explored")), "Does it matter")
    assert "force error 0.800 [0.800, 0.800]" in found.sentence
    assert "different by -0.050 [-0.050, -0.050]" in found.sentence
    without = [r for r in records if r.variant != "cosine-all-edges"]
    asked = [x.question for x in answers(in_section(without, "explored"))]
    assert not [q for q in asked if q.startswith("Does it matter")]
