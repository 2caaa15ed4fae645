"""Tables of HfO2 with and without ZBL, from a study of known effect."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.practice import hfo2
from nequip_decorr.study.report.result import Findings, findings
from tests.support.synthetic_study import HORIZON_PS, synthetic_study
from tests.support.tables import rows

METRIC = "forces_rmse"
ROWS = ["without anything", "the term", hfo2.AGAINST_ZBL]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """A baseline and two variants, which differ in nothing but noise."""
    folder = tmp_path_factory.mktemp("study")
    return findings(synthetic_study(folder / "a", 3, log_ratio=0.8, scale_ps=3.0))


@pytest.fixture
def alone(found: Findings, tmp_path: Path) -> Findings:
    """A study without such a variant."""
    return findings(synthetic_study(tmp_path / "b"))


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the made-up study."""
    monkeypatch.setattr(hfo2, "ALSO", {"variant-2": "variant-1"})
    monkeypatch.setattr(
        hfo2, "VARIANTS", {"without anything": "none", "the term": "variant-1"}
    )
    monkeypatch.setattr(hfo2, "CONDITIONS", {"hot": ("hot@1200K", "out")})
    monkeypatch.setattr(hfo2, "IN_DISTRIBUTION", "in")


def log_errors(found: Findings, variant: str, test: str) -> np.ndarray:
    own = [model for model in found.models if model.variant == variant]
    return np.log([model.errors[test][METRIC] for model in own])


def test_notes_name_the_other_variant(tmp_path: Path) -> None:
    study = synthetic_study(tmp_path / "s", 3)
    for path in (study.path / "records").glob("variant-2_*md-hot.json"):
        record = json.loads(path.read_text())
        first = record["result"]["replicas"][0]
        first["explosion"]["happened"], first["unphysical"]["happened"] = True, False
        path.write_text(json.dumps(record))
    notes = [note for answer in hfo2.also(findings(study)) for note in answer.notes]
    (note,) = notes
    assert note.startswith("8 of 64 replicas, and 0 of variant-1's, exploded before")
    assert "times variant-1's (8 seeds)" in note


def test_a_variant_against_another_than_the_baseline(
    found: Findings, alone: Findings
) -> None:
    extra = list(hfo2.also(found))
    assert {a.question.variant for a in extra} == {"variant-2 against variant-1"}
    assert list(hfo2.also(alone)) == []
    one = next(a for a in extra if a.question.what == METRIC)
    where = str(one.question.where)
    first, second = (log_errors(found, f"variant-{i}", where) for i in (2, 1))
    assert one.effect is not None
    assert one.effect.value == pytest.approx(np.exp((first - second).mean()))
    # none is corrected, also not for the others
    known = [answer for answer in extra if answer.effect is not None]
    assert len(known) > 3
    for answer in known:
        assert answer.effect is not None
        assert answer.p_value == answer.effect.p_value
        assert answer.verdict != "no difference shown after correction"


@pytest.mark.parametrize("column, test", [(1, "in"), (2, "out")])
def test_errors_are_the_baselines_and_ratios(
    found: Findings, column: int, test: str
) -> None:
    given = rows(hfo2.marked(found)["hfo2 forces"])
    assert [row[0] for row in given] == ROWS
    none, one, two = (
        log_errors(found, variant, test)
        for variant in ("none", "variant-1", "variant-2")
    )
    assert given[0][column] == f"{np.exp(none.mean()):.3g} eV/A"
    for row, difference in zip(given[1:], (one - none, two - one), strict=True):
        low, high = stats.t.interval(
            0.95, len(difference) - 1, difference.mean(), stats.sem(difference)
        )
        value, low, high = np.exp([difference.mean(), low, high])
        interval = f"[{low:.3g}, {high:.3g}]"
        if low <= 1 <= high:
            assert row[column] == f"{value:.3g} {interval}"
        else:  # a large effect, significant after the study's correction
            star = "" if row[0] == hfo2.AGAINST_ZBL else "\\*"
            assert row[column] == f"**{value:.3g}**{star} {interval}"


def test_a_time_ratio_is_bold_where_its_interval_excludes_1(found: Findings) -> None:
    none, one, against = rows(hfo2.marked(found)["hfo2 times"])
    assert len(none) == 2
    # exp(0.8) times as long as the baseline, and as long as each other
    assert one[1].startswith("**")
    assert not against[1].startswith("**")


def test_survivors_are_replicas_that_reached_the_horizon(found: Findings) -> None:
    given = dict(rows(hfo2.marked(found)["hfo2 survivors"]))
    assert list(given) == ROWS[:2]
    for label, variant in (("without anything", "none"), ("the term", "variant-1")):
        times = [
            replica["time_ps"]
            for model in found.models
            if model.variant == variant
            for replica in model.replicas["hot@1200K"]
        ]
        survived = sum(time == HORIZON_PS for time in times)
        assert 0 < survived < 64
        assert given[label] == f"{survived} of 64"


def test_what_was_not_asked_is_left_empty(found: Findings) -> None:
    for row in rows(hfo2.ratios(found, "error", "no_such_metric", {"in": "in"})):
        assert row[1] == "-"
