"""What else makes models last longer: from committed records, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks import first
from benchmarks.pages import updated
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.report.result import findings


def mean_logs(folder, condition):
    """Of the times of each seed's model without the term."""
    found = findings(StudyFolder(folder))
    return {
        m.seed: np.mean(
            [np.log(r["unphysical"]["time_ps"]) for r in m.replicas[condition]]
        )
        for m in found.models
        if m.variant == "none"
    }


@pytest.mark.parametrize("one", first.COMPARISONS, ids=lambda one: one.text)
def test_ratios_are_of_the_seeds_that_both_have(one):
    given = list(first.compared(one))
    for (condition, label), (said, answer) in zip(
        one.conditions.items(), given, strict=True
    ):
        assert said == label
        after, before = (
            mean_logs(folder, condition) for folder in (one.with_it, one.without)
        )
        seeds = sorted(set(after) & set(before))
        difference = np.array([after[seed] - before[seed] for seed in seeds])
        bounds = stats.t.interval(
            0.95, len(seeds) - 1, difference.mean(), stats.sem(difference)
        )
        assert answer.effect.seeds == len(seeds)
        assert answer.effect.value == pytest.approx(np.exp(difference.mean()))
        assert (answer.effect.low, answer.effect.high) == pytest.approx(np.exp(bounds))


def test_the_documentation_has_the_table_of_the_records():
    text = first.PAGE.read_text(encoding="utf-8")
    assert "<!-- table first -->" in text
    assert updated(text, {"first": first.table()}) == text
