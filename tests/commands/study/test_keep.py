"""What is kept of a study that really ran, also judged at tighter limits."""

from __future__ import annotations

import shutil

import pytest

from benchmarks.practice.keep import judge_again, keep
from nequip_decorr.cli.main import main
from nequip_decorr.errors import UserError
from nequip_decorr.md.results import load
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.report.result import findings

pytestmark = pytest.mark.slow

#: Above the shortest distances that a tiny model keeps at 1200 K.
LIMIT = 0.8


@pytest.fixture(scope="module")
def study(undisturbed):
    folder, _ = undisturbed
    (path,) = folder.glob("*/plan.json")
    return StudyFolder(path.parent)


def times(found):
    return {
        (model.variant, replica["structure"]): replica["unphysical"]
        for model in found.models
        for replica in model.replicas["hot@1200K"]
    }


def test_the_limits_of_the_run_change_nothing(study, tmp_path):
    judge_again(study, {"min_distance_ratio": 0.6}, tmp_path / "same")
    again = findings(StudyFolder(tmp_path / "same"))
    assert times(again) == times(findings(study))


def test_tighter_limits_are_those_of_the_command(study, tmp_path):
    judge_again(study, {"min_distance_ratio": LIMIT}, tmp_path / "tight")
    again = times(findings(StudyFolder(tmp_path / "tight")))
    assert len(again) == 4
    for variant in ("fast", "slow"):
        run = study.path / "models" / f"{variant}_1" / "md-hot"
        out = tmp_path / variant
        arguments = ["--rejudge", "--criteria", f"min_distance_ratio={LIMIT}"]
        assert main(["md", str(run), *arguments, "--out", str(out)]) == 0
        for replica in load(out / "result.json").replicas:
            event = again[variant, replica.structure]
            assert event["happened"] == (replica.unphysical is not None)
            if replica.unphysical is not None:
                assert event["time_ps"] == replica.unphysical.time_ps
    assert any(each["happened"] for each in again.values())


def test_a_finished_study_is_kept_whole(study, tmp_path):
    keep(study, tmp_path / "kept")
    again = findings(StudyFolder(tmp_path / "kept"))
    assert again.complete
    assert again.models == findings(study).models


def test_a_model_that_failed_is_kept_as_failed(study, tmp_path):
    """Its blocked tasks are not left to run."""
    shutil.copytree(study.path, tmp_path / "study")
    failed = StudyFolder(tmp_path / "study")
    for stage in ("test", "inspect", "md-hot"):
        failed.store.forget(f"slow_1.{stage}")
    record = failed.record("slow_1.train")
    failed.store.write("slow_1.train", {**record, "status": "failed", "result": None})
    keep(failed, tmp_path / "kept")
    judge_again(failed, {"min_distance_ratio": LIMIT}, tmp_path / "kept" / "tight")
    for folder in (tmp_path / "kept", tmp_path / "kept" / "tight"):
        store = StudyFolder(folder).store
        assert [key for key in store.gathered() if "slow" in key] == ["slow_1.train"]
        failed_stages = {
            m.variant: m.failed for m in findings(StudyFolder(folder)).models
        }
        assert failed_stages == {"fast": (), "slow": ("train",)}


def test_only_whole_models_of_an_unfinished_study_are_kept(study, tmp_path):
    """And the study goes on from them, with runs that are no longer at hand."""
    shutil.copytree(study.path, tmp_path / "study")
    unfinished = StudyFolder(tmp_path / "study")
    unfinished.store.forget("slow_1.md-hot")
    keep(unfinished, tmp_path / "kept")
    limits = {"min_distance_ratio": LIMIT}
    judge_again(unfinished, limits, tmp_path / "kept" / "tight")
    for folder in (tmp_path / "kept", tmp_path / "kept" / "tight"):
        records = StudyFolder(folder).store.gathered()
        assert {key.partition(".")[0] for key in records} == {"fast_1"}
    resumed = StudyFolder(tmp_path / "resumed")
    resumed.path.mkdir()
    for name in ("plan.json", "records.jsonl"):
        shutil.copy(tmp_path / "kept" / name, resumed.path)
    shutil.copy(study.path / "tasks.json", resumed.path)
    folder = "models/slow_1/md-hot"
    shutil.copytree(study.path / folder, resumed.path / folder)
    (resumed.path / "records").mkdir()
    for key, record in study.records(study.registered()).items():
        if key.startswith("slow_1"):
            resumed.store.write(key, record)
    with pytest.raises(UserError, match="got neither; copy the folder limits"):
        judge_again(resumed, limits, tmp_path / "new" / "tight")
    shutil.copytree(tmp_path / "kept" / "tight", resumed.path / "limits" / "tight")
    judge_again(resumed, limits, tmp_path / "new" / "tight")
    judge_again(resumed, limits, tmp_path / "kept" / "tight")
    keep(resumed, tmp_path / "kept")
    judge_again(study, limits, tmp_path / "at once")
    at_once = StudyFolder(tmp_path / "at once").store.gathered()
    for folder in ("kept", "new"):
        assert StudyFolder(tmp_path / folder / "tight").store.gathered() == at_once
    kept = findings(StudyFolder(tmp_path / "kept"))
    assert kept.complete
    assert kept.models == findings(study).models
