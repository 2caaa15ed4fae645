"""A whole study with the real commands: two learning rates, nothing of ours in it."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from nequip_decorr.cli.main import main
from tests.support import studies
from tests.support.commands import train

pytestmark = pytest.mark.slow

PATIENCE_S = 900


def records(folder):
    return list(studies.results(folder / "study-results"))


def wait_for(condition, process):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)


def test_every_stage_leaves_a_record(undisturbed):
    folder, said = undisturbed
    assert "2 variants x 1 seed: 2 train, 2 test, 2 inspect, 2 md-hot" in said
    out = folder / "study-results"
    found = studies.results(out)
    stages = ("inspect", "md-hot", "test", "train")
    assert sorted(found) == [f"{v}_1.{s}" for v in ("fast", "slow") for s in stages]
    assert {status for status, _ in found.values()} == {"done"}
    errors = [found[f"{v}_1.test"][1]["errors"]["split"] for v in ("fast", "slow")]
    assert errors[0]["forces_rmse"] != errors[1]["forces_rmse"]
    result = json.loads((out / "result.json").read_text())
    assert result["complete"]
    # no verdict from one seed
    assert {a["p_value"] for a in result["answers"]} == {None}
    assert (out / "report.html").is_file()


def test_test_errors_are_those_of_the_training(undisturbed, tmp_path):
    """The test of a checkpoint is the one that a training ends with."""
    overrides = (
        *studies.FAST,
        *("data.seed=1", "training_module.model.seed=1", "run=[train,test]"),
        "+training_module.test_metrics=${training_module.val_metrics}",
    )
    expected = train(tmp_path, *overrides).column("test0_epoch/forces_rmse")[-1]
    folder, _ = undisturbed
    measured = studies.results(folder / "study-results")["fast_1.test"][1]["errors"]
    assert measured["split"]["forces_rmse"] == pytest.approx(expected, rel=1e-4)


def test_the_same_command_again_runs_nothing(undisturbed):
    folder, _ = undisturbed
    out = folder / "study-results"

    def left():
        """What every task has left, and the number of its attempts."""
        paths = (p for name in ("models", "attempts") for p in (out / name).rglob("*"))
        times = {p: p.stat().st_mtime_ns for p in paths if p.is_file()}
        return times, (out / "records.jsonl").read_text()

    before = left()
    again = studies.run(folder, "study.yaml")
    assert again.returncode == 0
    assert left() == before
    status = studies.run(folder, "status", "study-results")
    assert re.search(r"^finished$", status.stdout, re.MULTILINE)
    assert studies.run(folder, "report", "study-results").returncode == 0


def killed(process):
    studies.kill(process, everything=True)


def terminated(process):
    process.terminate()
    process.wait()


@pytest.mark.parametrize("end", [killed, terminated])
def test_a_training_ended_between_checkpoints(undisturbed, tmp_path, end):
    """kill -9 of everything in the middle of it, or SIGTERM to the study, after which
    NequIP ends with exit status 0; the same records at the end.
    """
    fast = {"variants": {"fast": list(studies.FAST)}}
    studies.study_file(tmp_path, **fast, md=None, inspect=False)
    last = tmp_path / "study-results/models/fast_1/train/last.ckpt"
    process = studies.start(tmp_path, "study.yaml")
    wait_for(last.is_file, process)
    end(process)
    assert records(tmp_path) == []
    log = tmp_path / "study-results/logs/fast_1.train.log"
    assert studies.run(tmp_path, "study.yaml").returncode == 0
    assert "Continuing training" in log.read_text()
    calm = studies.results(undisturbed[0] / "study-results")
    found = studies.results(tmp_path / "study-results")
    assert found == {key: calm[key] for key in ("fast_1.train", "fast_1.test")}


def test_a_training_that_others_end_failed(tmp_path):
    """SIGTERM to NequIP alone, as where memory is short; it is not finished."""
    fast = {"variants": {"fast": list(studies.FAST)}}
    studies.study_file(tmp_path, **fast, md=None, inspect=False)
    out = tmp_path / "study-results"
    process = studies.start(tmp_path, "study.yaml")
    wait_for((out / "models/fast_1/train/last.ckpt").is_file, process)
    (training,) = [
        pid
        for pid in studies.descendants(process.pid)
        if "nequip-train" in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    os.kill(training, signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 1
    status, _ = studies.results(out)["fast_1.train"]
    assert status == "failed"
    assert "fast_1.test" not in studies.results(out)


def test_only_the_study_is_killed(tmp_path):
    """Its tasks go on; the next one waits for them, and runs none of them twice."""
    studies.study_file(tmp_path, variants={"fast": []}, md=None, inspect=False)
    process = studies.start(tmp_path, "study.yaml")
    log = tmp_path / "study-results/logs/fast_1.train.log"
    wait_for(log.is_file, process)
    studies.kill(process, everything=False)
    assert studies.run(tmp_path, "study.yaml").returncode == 0
    assert log.read_text().count("$ ") == 1
    assert records(tmp_path) == ["fast_1.test", "fast_1.train"]


def test_batched_md_of_a_model_that_is_compiled_for_it(tmp_path):
    pytest.importorskip("torch_sim")
    brief = {"fast": [*studies.FAST[1:], "trainer.max_epochs=1"]}
    md = {
        "structures": "start.extxyz",
        "temperatures_K": [300],
        "horizon_ps": 0.005,
        "replicas": 1,
        "engine": "torchsim",
    }
    changes = {"variants": brief, "md": {"hot": md}, "compile": True}
    studies.study_file(tmp_path, **changes, inspect=False)
    done = studies.run(tmp_path, "study.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    found = studies.results(tmp_path / "study-results")
    model = found["fast_1.compile-torchsim"][1]["model"]
    assert (tmp_path / "study-results" / model).is_file()
    _, simulated = found["fast_1.md-hot"]
    assert len(simulated["replicas"]) == 2


def test_a_task_that_fails_is_kept_and_tried_again(tmp_path):
    """Not a number of epochs that Lightning knows: the other variant is not stopped."""
    variants = {"good": [], "bad": ["trainer.max_epochs=-7"]}
    studies.study_file(tmp_path, variants=variants, md=None, inspect=False)
    done = studies.run(tmp_path, "study.yaml")
    assert done.returncode == 1
    assert "bad_1.train" in done.stdout
    assert "--retry" in done.stdout
    found = studies.results(tmp_path / "study-results")
    assert {k: status for k, (status, _) in found.items()} == {
        "bad_1.train": "failed",
        "good_1.test": "done",
        "good_1.train": "done",
    }
    again = studies.run(tmp_path, "study.yaml", "--retry")
    assert "retrying 1 failed task" in again.stdout
    assert again.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no.yaml",), "expected a study in YAML"),
        (("status", "nowhere"), "folder of a study"),
        (("a", "b"), "STUDY.yaml"),
        (("status", "x", "--retry"), "takes no options; leave out"),
    ],
)
def test_refused_in_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert main(["study", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
