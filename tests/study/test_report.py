"""The page, result.json and the CSV files."""

from __future__ import annotations

import csv
import json
import shutil
from html.parser import HTMLParser
from importlib.resources import files

import jsonschema
import numpy as np
import pytest

from nequip_decorr.errors import UserError
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.report.html import write_report
from nequip_decorr.study.report.result import findings
from tests.support.synthetic_study import synthetic_study

SCHEMA = json.loads((files("nequip_decorr.study") / "schema.json").read_text())


class Page(HTMLParser):
    """Text, and what a page would load."""

    def __init__(self, text):
        super().__init__()
        self.text, self.loads = "", []
        self.feed(text)

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag in ("img", "script", "link", "iframe"):
            self.loads.append(found.get("src") or found.get("href") or "")


def report(folder):
    write_report(folder)
    page = Page((folder.path / "report.html").read_text())
    return page, json.loads((folder.path / "result.json").read_text())


@pytest.mark.parametrize(("variants", "seeds"), [(2, 8), (12, 3), (2, 2), (1, 1)])
def test_report(tmp_path, variants, seeds):
    page, result = report(synthetic_study(tmp_path / "s", variants, seeds))
    jsonschema.validate(result, SCHEMA)
    assert all(source.startswith("data:image/") for source in page.loads)
    assert len(result["models"]) == variants * seeds
    for answer in result["answers"]:
        effect = answer["effect"]
        if effect is not None and effect["low"] is not None:
            interval = f"{effect['low']:.3g}, {effect['high']:.3g}"
            assert f"{effect['value']:.3g} [{interval}]" in page.text
    assert "Few start structures" not in page.text  # there are eight
    assert "The study is not complete" not in page.text
    assert ("does not tell whether" in page.text) == (seeds < 3 and variants > 1)
    with (tmp_path / "s" / "models.csv").open() as handle:
        assert len(list(csv.DictReader(handle))) == variants * seeds
    with (tmp_path / "s" / "replicas.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == variants * seeds * 2 * 8
    assert {row["condition"] for row in rows} == {"hot@1200K", "hotter@2400K"}


def test_seeds_that_were_added_are_told(tmp_path):
    page, result = report(synthetic_study(tmp_path / "s", added=2))
    assert "Seeds 9, 10 were added on" in page.text
    assert [wave["seeds"] for wave in result["seeds"]][1] == [9, 10]


def test_half_done_with_failures(tmp_path):
    folder = synthetic_study(
        tmp_path / "s", missing=("none_3.md-hot",), failed=("variant-1_2.train",)
    )
    page, result = report(folder)
    jsonschema.validate(result, SCHEMA)
    assert "Its p-values hold for the seeds that were planned" in page.text
    assert "out of luck <&>" in page.text  # escaped, so that it is seen
    assert [each["key"] for each in result["failed"]] == ["variant-1_2.train"]
    assert "hot@1200K: 7 of 8 seeds, without 3 (none: not done)." in page.text
    assert (
        "training time: 7 of 8 seeds, without 2 (variant-1: train failed)." in page.text
    )
    assert not result["complete"]


def test_few_start_structures_are_told(tmp_path):
    folder = synthetic_study(tmp_path / "s")
    for path in (folder.path / "records").glob("*md-hot.json"):
        record = json.loads(path.read_text())
        del record["result"]["replicas"][3:]
        path.write_text(json.dumps(record))
    page, _ = report(folder)
    assert "Few start structures (hot@1200K: 3). Intervals are over train" in page.text


def test_trainings_that_were_resumed_are_named(tmp_path):
    folder = synthetic_study(tmp_path / "s")
    key = "variant-1_2.train"
    folder.store.write(key, {**folder.record(key), "interrupted": 1})
    key = "variant-1_3.train"  # its process died; nothing has come of it
    failed = {"status": "failed", "result": None, "error": "exit status 1"}
    folder.store.write(key, {**folder.record(key), **failed, "interrupted": 1})
    page, result = report(folder)
    assert "Trainings that were interrupted: variant-1, 2. " in page.text
    (time,) = (
        a for a in result["answers"] if a["question"]["quantity"] == "training time"
    )
    assert time["effect"]["seeds"] == 6


def test_not_a_study(tmp_path):
    with pytest.raises(UserError, match="folder of a study"):
        write_report(StudyFolder(tmp_path))


def test_a_copy_of_plan_and_records_has_the_same_report(tmp_path):
    """On another machine, without models and commands."""
    folder = synthetic_study(tmp_path / "s", seeds=3)
    keys = [task.key for task in folder.registered().tasks]
    _, before = report(folder)
    folder.store.gather(keys)
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for name in ("plan.json", "records.jsonl"):
        shutil.copy(folder.path / name, copy)
        assert str(tmp_path) not in (copy / name).read_text()
    page, result = report(StudyFolder(copy))
    assert result == before
    assert "not complete" not in page.text


@pytest.mark.parametrize("gathered", [False, True])
def test_a_part_of_an_unfinished_study_is_refused(tmp_path, gathered):
    """Nobody knows what is missing without the list of tasks."""
    folder = synthetic_study(tmp_path / "s", seeds=2, added=1)
    if gathered:
        tasks = folder.registered().tasks
        folder.store.gather(task.key for task in tasks if task.seed < 3)
    (folder.path / "tasks.json").unlink()
    with pytest.raises(UserError, match=r"copy tasks\.json"):
        findings(folder)


def test_versions_and_machines_are_those_of_the_tasks(tmp_path):
    folder = synthetic_study(tmp_path / "s", seeds=3)
    for key in ("none_1.train", "none_2.train"):
        machine = {"host": "there", "versions": {"nequip": "0.1"}}
        folder.store.write(key, {**folder.store.get(key), "machine": machine})
    page, result = report(folder)
    assert machine in result["machines"]
    assert "0.1" in page.text


def test_the_baseline_is_given(tmp_path):
    """Geometric mean over seeds and replicas."""
    found = findings(synthetic_study(tmp_path / "s"))
    logs = [
        np.log(replica["unphysical"]["time_ps"])
        for model in found.models
        if model.variant == "none"
        for replica in model.replicas["hot@1200K"]
    ]
    assert found.answers[0].effect.baseline == pytest.approx(np.exp(np.mean(logs)))
