"""RESULTS.md of studies under realistic conditions, from studies of known effect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy import stats

from benchmarks.pages import records_checksum, shown, updated
from benchmarks.practice import pages
from nequip_decorr.study.answers import Answer
from nequip_decorr.study.report.result import Findings, findings
from tests.support.synthetic_study import synthetic_study
from tests.support.tables import rows

METRIC = "forces_rmse"


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Findings]:
    folder = tmp_path_factory.mktemp("studies")
    return {
        "3bpa": findings(synthetic_study(folder / "a", 3, log_ratio=0.8)),
        "acac": findings(synthetic_study(folder / "b", 2, log_ratio=0.1, seeds=5)),
    }


def test_a_row_for_each_answer(studies: dict[str, Findings]) -> None:
    given = {name: found.answers for name, found in studies.items()}
    found = rows(pages.table(given, "time", "unphysical"))
    assert {(row[0], row[2]) for row in found} == {
        ("3bpa", "variant-1"),
        ("3bpa", "variant-2"),
        ("acac", "variant-1"),
    }
    # conditions are never pooled
    assert {row[1] for row in found} == {"hot@1200K", "hotter@2400K"}
    assert len(found) == 6


def test_cells_are_those_of_the_answer(studies: dict[str, Findings]) -> None:
    (row,) = (
        row
        for row in rows(pages.table({"acac": studies["acac"].answers}, "error", METRIC))
        if row[1] == "out"
    )
    values = {
        variant: np.log(
            [
                m.errors["out"][METRIC]
                for m in studies["acac"].models
                if m.variant == variant
            ]
        )
        for variant in ("none", "variant-1")
    }
    difference = values["variant-1"] - values["none"]
    low, high = stats.t.interval(
        0.95, len(difference) - 1, difference.mean(), stats.sem(difference)
    )
    expected = np.exp([difference.mean(), low, high])
    assert row[3] == f"{np.exp(values['none'].mean()):.3g} eV/A"
    assert row[4] == "{:.3g} [{:.3g}, {:.3g}]".format(*expected)


def test_primary_questions_are_corrected_for_their_number(
    studies: dict[str, Findings],
) -> None:
    found = rows(pages.primary(studies))
    assert [row[0] for row in found] == ["3bpa", "acac"]
    alone = [float(row[5]) for row in found]
    together = [float(row[7]) for row in found]
    smaller = int(np.argmin(alone))
    assert together[smaller] == pytest.approx(min(1, 4 * alone[smaller]), rel=0.05)
    larger = min(1, 3 * alone[1 - smaller])
    assert together[1 - smaller] == pytest.approx(larger, rel=0.05)


def test_a_page_of_studies_that_are_not_done(tmp_path: Path) -> None:
    missing = tuple(f"variant-1_{seed}.md-hot" for seed in range(1, 9))
    synthetic_study(tmp_path / "acac", missing=missing)
    text = pages.results(pages.read_studies(tmp_path))
    (row,) = rows(text.partition("## The primary questions")[2].partition("\n## ")[0])
    assert row == [
        "acac",
        "hot@1200K",
        "unphysical",
        "",
        "",
        "",
        "not known yet",
        "",
        "",
    ]


@pytest.fixture(scope="module")
def committed() -> dict[str, Findings]:
    return pages.read_studies()


def test_the_committed_page_is_that_of_the_committed_records(
    committed: dict[str, Findings],
) -> None:
    path = pages.RESULTS / "RESULTS.md"
    assert pages.results(committed) == path.read_text(encoding="utf-8")


def test_the_documentation_has_the_tables_of_the_records(
    committed: dict[str, Findings],
) -> None:
    made = pages.marked(committed)
    texts = [page.read_text(encoding="utf-8") for page in pages.PAGES]
    assert all(f"<!-- table {name} -->" in texts[0] for name in made)
    for text in texts:
        assert any(f"<!-- table {name} -->" in text for name in made)
        assert updated(text, made) == text


def assert_preregistered(name: str, plan: Mapping[str, Any]) -> None:
    """The registered variants are those of the file, its seeds in one wave."""
    # reading the study would need the data, which are not in the repository
    asked = yaml.safe_load((pages.HERE / f"{name}_study.yaml").read_text())
    seeds = list(range(1, asked["seeds"] + 1))
    # as they were registered before the first of them was trained
    assert [wave["seeds"] for wave in plan["waves"]] == [seeds]
    assert asked["variants"] == {
        each: list(known["overrides"])
        for each, known in plan["identity"]["variants"].items()
    }


def test_committed_studies_are_complete(committed: dict[str, Findings]) -> None:
    for name, found in committed.items():
        assert found.complete
        assert_preregistered(name, json.loads((found.folder / "plan.json").read_text()))


def test_figures_are_those_of_the_records(committed: dict[str, Findings]) -> None:
    for name, found in committed.items():
        with Image.open(pages.RESULTS / f"{name}_survival.png") as image:
            assert image.text["Description"] == records_checksum(found.folder)


def test_tighter_limits_stand_beside_those_of_the_run(tmp_path: Path) -> None:
    """The others have half the effect, none, or one in the other direction."""
    study = synthetic_study(tmp_path / "acac", log_ratio=0.8)
    again = {
        name: synthetic_study(tmp_path / "acac" / "limits" / name, log_ratio=effect)
        for name, effect in (("half", 0.4), ("none", 0.0), ("reverse", -0.8))
    }
    found = findings(study)
    given = rows(pages.limits({"acac": found}))
    times = [
        each
        for each in found.answers
        if each.question.quantity == "time"
        # explosions, which nobody has followed
        and not each.verdict.startswith("not followed")
    ]
    assert times
    assert len(given) == len(times)
    for cells, answer in zip(given, times, strict=True):
        question = answer.question
        assert cells[1:4] == [question.where, question.what, question.variant]
        others = {
            name: next(
                a for a in pages.judged_again(found, each) if a.question == question
            )
            for name, each in again.items()
        }
        values = [other.effect.value for other in others.values() if other.effect]
        assert cells[4].startswith(f"{answer.effect.value:.3g} [")
        assert cells[5] == f"{min(values):.3g} to {max(values):.3g}"
        said = dict(part.split(": ") for part in cells[6].split("; "))
        for name, other in others.items():
            if other.verdict != answer.verdict:
                assert said[name] == other.verdict
            elif other.effect.value < 1:
                assert said[name] == f"{other.effect.value:.3g}"
            else:
                assert name not in said
    assert pages.limits({"acac": findings(again["half"])}) == ""


def test_comparisons_with_another_variant_are_judged_again_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages.hfo2, "ALSO", {"variant-2": "variant-1"})
    study = synthetic_study(tmp_path / "hfo2", 3, log_ratio=0.8)
    synthetic_study(tmp_path / "hfo2" / "limits" / "none", 3, log_ratio=0.0)
    given = rows(pages.limits({"hfo2": findings(study)}))
    names = [row[3] for row in given]
    assert names.count("variant-2 against variant-1") == names.count("variant-2") == 2


def test_answers_without_trainings_that_were_interrupted(tmp_path: Path) -> None:
    """Those of a study that has no such models."""
    study = synthetic_study(tmp_path / "acac", log_ratio=0.35)
    assert pages.interrupted(findings(study)) == ""
    for seed in range(1, 5):
        key = f"variant-1_{seed}.train"
        study.store.write(key, {**study.record(key), "interrupted": 1})
    found = findings(study)
    for path in (study.path / "records").glob("variant-1_[1-4].*"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "status": "failed", "result": None}))
    rest = {answer.question: answer for answer in findings(study).answers}
    verdicts = {
        answer.question.text: pages.kind(rest[answer.question])
        for answer in found.answers
        if pages.kind(answer) != pages.kind(rest[answer.question])
    }
    assert verdicts
    said = pages.interrupted(found)
    assert said.startswith(f"Of {len(found.answers)} answers, ")
    for text, verdict in verdicts.items():
        assert f"{text}, without them: {verdict}" in said
    assert said in pages.all_notes(found)


def test_a_count_in_a_verdict_is_no_other_verdict(
    studies: dict[str, Findings],
) -> None:
    answer = replace(studies["acac"].answers[0], effect=None)
    one, other = (
        replace(answer, verdict=f"not followed: {n} of 40 replicas") for n in (3, 4)
    )
    assert pages.changes(one, {"a": other}) == "the same"


def test_a_limit_changes_nothing_but_the_replicas(tmp_path: Path) -> None:
    """A verdict must not hang on how many questions a folder happens to answer."""
    study = synthetic_study(tmp_path / "acac", log_ratio=0.45)
    again = synthetic_study(tmp_path / "again", log_ratio=0.45)
    for path in (again.path / "records").glob("*.json"):
        if ".md-" not in path.name:  # only simulations are judged again
            path.unlink()
    found = findings(study)
    assert pages.judged_again(found, again) == found.answers
    # corrected among themselves alone, their p-values are others
    assert findings(again).answers != found.answers


def test_bounds_are_shown_where_there_is_no_ratio(
    studies: dict[str, Findings],
) -> None:
    """As for ZBL, where no replica of the variant has the event."""
    answer = studies["acac"].answers[0]
    assert answer.effect is not None
    bound = replace(answer.effect, value=None, low=20.0, high=None)
    never = replace(answer, effect=bound, verdict="longer")
    assert pages.spread([never, never]) == "[20, ∞]"
    assert pages.spread([never, answer]).startswith("[20, ∞], ")
    assert pages.changes(never, {"a": never}) == "the same"
    assert pages.changes(never, {"a": answer}) == f"a: {answer.verdict}"
    assert pages.excluded(never) == ""


def test_labelled_rows_come_in_the_order_of_the_labels(
    studies: dict[str, Findings], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {("acac", "out"): "out", ("3bpa", "out"): "b", ("3bpa", "in"): "a"}
    monkeypatch.setattr(pages, "LABELS", labels)
    given = {
        "3bpa": [a for a in studies["3bpa"].answers if a.question.variant[-1] == "1"],
        "acac": studies["acac"].answers,
    }
    found = rows(pages.summary(given, "error", METRIC))
    assert [row[0] for row in found] == ["out", "b", "a"]


def interval_of(answer: Answer, low: float | None, high: float | None) -> Answer:
    assert answer.effect is not None
    return replace(answer, effect=replace(answer.effect, low=low, high=high))


@pytest.mark.parametrize(
    "low, high, said",
    [
        (0.6, 1.24, "a gain of 1.3 or more is excluded (upper limit 1.24)"),
        (0.5, 4.92, "excluded are ratios below 0.5 and above 4.92"),
        (0.5, None, "excluded are ratios below 0.5"),
        (None, 1.24, "a gain of 1.3 or more is excluded (upper limit 1.24)"),
        (None, 2.0, "excluded are ratios above 2"),
        (None, None, ""),
        (1.1, 1.2, ""),  # a gain that is shown
        (0.5, 0.9, ""),  # and a loss
    ],
)
def test_what_an_interval_excludes(
    studies: dict[str, Findings], low: float | None, high: float | None, said: str
) -> None:
    answer = interval_of(studies["acac"].answers[0], low, high)
    found = pages.excluded(answer)
    assert found.startswith(said) if said else found == ""
    assert ("negative" in found) == (high == 1.24)


@pytest.mark.parametrize(
    "low, p, said",
    [
        (0.9, 0.3, "{} [0.9, 3]"),
        (1.2, 0.3, "**{}** [1.2, 3]"),
        (1.2, 0.01, "**{}**\\* [1.2, 3]"),
    ],
)
def test_bold_by_interval_and_starred_by_p_value(
    studies: dict[str, Findings], low: float, p: float, said: str
) -> None:
    answer = replace(interval_of(studies["acac"].answers[0], low, 3.0), p_value=p)
    assert answer.effect is not None
    value = f"{answer.effect.value:.3g}"
    assert shown(answer) == said.format(value)
    assert shown(answer, starred=False) == said.format(value).replace("\\*", "")
    assert shown(replace(answer, effect=None)) == "-"


def test_pair_distributions_have_the_floor_of_models_that_have_one(
    tmp_path: Path,
) -> None:
    study = synthetic_study(tmp_path / "acac", seeds=3)
    floors = {1: [0.1, 0.3], 2: [0.4, None], 3: []}
    for path in (study.path / "records").glob("none_*md-hot.json"):
        record = json.loads(path.read_text())
        record["result"]["rdf"] = [
            {"temperature_K": 1200.0, "error": 0.5 + floor_number, "floor": floor}
            for floor_number, floor in enumerate(floors[record["seed"]])
        ]
        path.write_text(json.dumps(record))
    (row,) = (
        row
        for row in rows(pages.described({"acac": findings(study)}))
        if row[2] == "hot@1200K"
    )
    # errors of two models; only the first has the floor of every pair
    assert row == ["acac", "none", "hot@1200K", "1 A", "0.2 A", "2"]
