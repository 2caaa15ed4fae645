from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from benchmarks.common import ROOT
from nequip_decorr.md.statistics.score import Interval
from nequip_decorr.md.statistics.time_ratio import TimeRatio, unit_differences
from nequip_decorr.md.statistics.times import Times
from nequip_decorr.md.statistics.units import student_t, t_limit
from nequip_decorr.md.statistics.verdict import NOT_THE_RECIPE, doubts, verdict
from nequip_decorr.md.statistics.wording import bounded, p_words, ratio_words
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.report.result import findings
from tests.support.ratios import paired


def ratio(value, low, high, units=16, p_value=0.01, method="log times"):
    return TimeRatio(value, low, high, method, units, p_value)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            ratio(1.34, 1.04, 1.73),
            "A is more stable than B: it lasts 1.34 [1.04, 1.73] times as long",
        ),
        (
            ratio(0.5, 0.25, 0.8),
            "B is more stable than A: it lasts 2.00 [1.25, 4.00] times as long",
        ),
        (
            ratio(None, 1.06, None),
            "A is more stable than B: it lasts >= 1.06 times as long",
        ),
        (
            ratio(None, None, 0.5),
            "B is more stable than A: it lasts >= 2.00 times as long",
        ),
        (ratio(1.2, 0.9, 1.6), "no difference shown between A and B"),
        (ratio(1.2, 1.0, 1.6), "no difference shown between A and B"),
        (ratio(None, 0.4, None), "no difference shown between A and B"),
        (ratio(2.0, None, None, units=2), "no verdict: 2 structures"),
    ],
    ids=["first", "second", "bound", "bound-below", "none", "touches", "wide", "few"],
)
def test_a_winner_if_and_only_if_the_interval_excludes_one(found, words):
    assert verdict(found, (3, 5), ("A", "B")).startswith(words)


def test_without_failures():
    found = verdict(ratio(None, None, None), (0, 0), ("A", "B"))
    assert found == "no event in A or B: no difference shown"


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (ratio(1.2, 0.9, 1.6), "the interval of the time ratio, 1.20 [0.90, 1.60], "),
        (ratio(1.9, 0.8, None), "the interval of the time ratio, 1.90 [>= 0.80], "),
        (ratio(None, 0.4, None), "the time ratio is only known to be >= 0.40"),
        (ratio(None, None, 3.0), "the time ratio is only known to be <= 3.00"),
        (ratio(None, None, None), "too few events for a time ratio (1 in A and 0 in"),
        (
            ratio(1.5, None, None, method="hazards"),
            "too few events for a time ratio (1 in A and 0 in B)",
        ),
    ],
)
def test_why_no_difference_is_shown(found, why):
    said = verdict(found, (1, 0), ("A", "B"))
    assert said.startswith(f"no difference shown between A and B: {why}")
    assert ("includes 1" in said) == ("interval" in why)


@pytest.mark.parametrize(
    ("found", "doubtful"),
    [
        (ratio(1.3, 1.1, 1.6, p_value=0.0143), False),
        (ratio(1.3, 1.1, 1.6, p_value=0.0547), True),
        (ratio(1.3, 0.9, 1.6, p_value=0.2), False),
        (ratio(1.3, 1.1, 1.6, units=4, p_value=None), False),
    ],
)
def test_the_exact_test_is_mentioned_where_it_differs(found, doubtful):
    notes = doubts(found)
    assert bool(notes) == doubtful
    assert all("p = 0.055" in note for note in notes)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (ratio(1.336, 1.043, 1.731), "1.34 [1.04, 1.73]"),
        (ratio(4.2, 1.64, 11.3), "4.20 [1.64, 11]"),
        (ratio(0.06, 0.012, 0.5), "0.06 [0.012, 0.50]"),
        (ratio(9345, 123.4, 9999), "9300 [120, 10000]"),
        (ratio(1.9, 1.06, None), "1.90 [>= 1.06]"),
        (ratio(0.5, None, 0.94), "0.50 [<= 0.94]"),
        (ratio(None, 20.1, None), ">= 20"),
        (ratio(None, None, 0.05), "<= 0.05"),
        (ratio(1.5, None, None), "1.50 [no limits]"),
        (ratio(None, None, None), "not known"),
    ],
)
def test_ratios_in_words(found, words):
    assert ratio_words(found) == words


def test_p_values_have_two_digits():
    assert p_words(0.0143) == "0.014"
    assert p_words(3.06e-5) == "3.1e-05"
    assert p_words(None) == "-"


def test_a_share_without_failures_is_a_bound():
    assert bounded(Interval(1.0, 0.688, 1.0), 0) == ">= 0.69"
    assert bounded(Interval(0.5, 0.25, 0.75), 3) == "0.50 [0.25, 0.75]"


def test_two_seeds_of_one_recipe_differ_in_about_60_percent():
    """What is printed with every comparison, from the records of the benchmark."""
    winners = []
    for plan in sorted((ROOT / "benchmarks/hfox/results").glob("*/plan.json")):
        found = findings(StudyFolder(plan.parent))
        for variant, condition in product(found.variants, found.conditions):
            sides = [
                Times(*np.transpose([_time(each) for each in m.replicas[condition]]))
                for m in found.models
                if m.variant == variant
            ]
            for first, second in combinations(sides, 2):
                both = (Times(side.time, side.failed > 0) for side in (first, second))
                pairs = paired(*both, tau=10.0, step=0.002)
                values = unit_differences(pairs, np.zeros(1))
                winners.append(abs(student_t(values)[0]) > t_limit(values.shape[1]))
    assert len(winners) > 1000
    assert "about 60 %" in NOT_THE_RECIPE
    assert np.mean(winners) == pytest.approx(0.6, abs=0.03)


def _time(replica):
    event = replica["unphysical"]
    return event["time_ps"], event["happened"]
