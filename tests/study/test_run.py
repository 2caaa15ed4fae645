"""Tasks and the loop that runs them, with commands of the shell for NequIP's."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from nequip_decorr.errors import UserError
from nequip_decorr.md.files import file_sha256
from nequip_decorr.study.executor_options import Executor
from nequip_decorr.study.executors import (
    LocalRunner,
    chosen_gpus,
    gpu_parameters,
    make_runner,
)
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.process import Ending
from nequip_decorr.study.run import outlook, retry, run_tasks
from nequip_decorr.study.stages import CHECKPOINT
from nequip_decorr.study.status import by_stage, duration, time_left_s
from nequip_decorr.study.task import run_task
from nequip_decorr.study.tasks import Task
from tests.support.shell_tasks import LEFT, quiet, registered, task, times_run


@pytest.fixture
def folder(tmp_path):
    return StudyFolder(tmp_path / "study")


@pytest.fixture
def debug(folder):
    return make_runner(folder, Executor("debug"))


def test_a_failure_stops_what_needs_it_alone(folder, debug):
    first = task(folder, "echo this is why; exit 3", "bad")
    tasks = [first, task(folder, LEFT, "after", needs=(first.key,))]
    tasks.append(task(folder, LEFT, "other"))
    plan = registered(folder, *tasks)
    records = run_tasks(folder, plan, debug, quiet)
    assert {key: r["status"] for key, r in records.items()} == {
        "bad_1.inspect": "failed",
        "other_1.inspect": "done",
    }
    assert "exit status 3" in records[first.key]["error"]
    assert records[first.key]["tail"][-1] == "this is why"
    assert [t.key for t in outlook(plan.tasks, records).blocked] == ["after_1.inspect"]


def test_the_reason_of_a_failure_is_kept_where_a_progress_bar_follows(folder, debug):
    bar = "for i in $(seq 40); do printf '\\rEpoch 3: %d' $i; done"
    bad = task(folder, f"echo ValueError: the reason; {bar}; exit 1", "bad")
    records = run_tasks(folder, registered(folder, bad), debug, quiet)
    assert records[bad.key]["tail"][-2:] == ["ValueError: the reason", "Epoch 3: 40"]


def test_retry_runs_what_failed_and_nothing_else(folder, debug):
    mend = folder.path / "mended"
    bad = task(folder, f"test -e {mend} && {LEFT}", "bad")
    tasks = [bad, task(folder, LEFT, "after", needs=(bad.key,))]
    plan = registered(folder, *tasks, task(folder, LEFT, "good"))
    run_tasks(folder, plan, debug, quiet)
    run_tasks(folder, plan, debug, quiet)
    assert (times_run(folder, "bad"), times_run(folder, "good")) == (1, 1)
    mend.touch()
    assert retry(folder, plan) == [bad.key]
    records = run_tasks(folder, plan, debug, quiet)
    assert {r["status"] for r in records.values()} == {"done"}
    assert (times_run(folder, "bad"), times_run(folder, "good")) == (2, 1)


@pytest.mark.parametrize(("left", "resumed"), [("last.ckpt", 1), ("other", 0)])
def test_a_training_continued_after_a_failure_is_told(folder, left, resumed):
    """Its CPU time is that of the rest alone."""
    out = folder.path / "models" / "a_1"
    script = f"cd {out}; touch {left}; exit 1"
    one = Task("train", "a", 1, ("sh", "-c", script), str(out))
    registered(folder, one)
    run_task(folder, one.key, Ending())
    assert folder.record(one.key)["interrupted"] == 0
    folder.store.forget(one.key)
    run_task(folder, one.key, Ending())
    assert folder.record(one.key)["interrupted"] == resumed


@pytest.mark.parametrize(("left", "resumed"), [("last.ckpt", 1), ("other", 0)])
def test_a_training_that_was_killed_early_is_that_of_its_seed(folder, left, resumed):
    """Without a checkpoint, the next attempt starts from the first step."""
    out = folder.path / "models" / "a_1"
    out.mkdir(parents=True)
    (out / left).touch()
    one = Task("train", "a", 1, ("false",), str(out))
    registered(folder, one)
    folder.begin(one.key)
    run_task(folder, one.key, Ending())
    assert folder.record(one.key)["interrupted"] == resumed


@pytest.mark.parametrize("chosen", [None, "MIG-1"])
def test_a_record_has_the_gpus_of_its_task(folder, debug, monkeypatch, chosen):
    """Those that the user chose, by any name, or those that there are."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen or "")
    if chosen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    one = task(folder, LEFT)
    (record,) = run_tasks(folder, registered(folder, one), debug, quiet).values()
    there = ",".join(map(str, range(torch.cuda.device_count())))
    assert record["machine"]["gpus"] == (chosen or there)


def test_a_command_that_leaves_nothing_failed(folder, debug):
    one = task(folder, "true")
    (record,) = run_tasks(folder, registered(folder, one), debug, quiet).values()
    assert record["status"] == "failed"
    assert "inspect.json" in record["error"]


def test_a_damaged_checkpoint_failed(folder, debug):
    out = folder.path / "models" / "a_1"
    script = f"cd {out}; echo broken > last.ckpt"
    one = Task("train", "a", 1, ("sh", "-c", script), str(out))
    (record,) = run_tasks(folder, registered(folder, one), debug, quiet).values()
    assert record["status"] == "failed"
    assert "UnpicklingError" in record["error"]
    assert "\n" not in record["error"]


def test_a_copy_without_its_models(folder, debug):
    """What needs them says so; NequIP is not started."""
    out = folder.path / "models" / "a_1"
    one = Task("train", "a", 1, ("true",), "models/a_1/train")
    command = ("sh", "-c", f"touch {folder.path}/started; : {CHECKPOINT}")
    two = Task("inspect", "a", 1, command, str(out), needs=(one.key,))
    plan = registered(folder, one, two)
    result = {"checkpoint": "models/a_1/train/best.ckpt"}
    done = {"status": "done", "stage": "train", "result": result}
    folder.store.write(one.key, {"key": one.key, **done})
    records = run_tasks(folder, plan, debug, quiet)
    assert f"{out}/train/best.ckpt, got none" in records[two.key]["error"]
    assert not (folder.path / "started").exists()


def test_a_command_that_was_killed_failed(folder, debug):
    one = task(folder, "kill -9 $$")
    (record,) = run_tasks(folder, registered(folder, one), debug, quiet).values()
    said = "the command was killed by SIGKILL (out of memory?)"
    assert (record["status"], record["error"]) == ("failed", said)


def test_a_machine_without_slurm(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    executor = Executor("slurm", slurm={"time": 10})
    with pytest.raises(UserError, match=r"cannot use SLURM: .*; check that sbatch"):
        make_runner(folder, executor)


def test_a_missing_command_failed(folder, debug):
    one = Task("inspect", "a", 1, ("no-such-command",), str(folder.path / "m"))
    (record,) = run_tasks(folder, registered(folder, one), debug, quiet).values()
    assert "no-such-command" in record["error"]


def test_data_that_changed_while_a_study_runs(folder, tmp_path):
    data = tmp_path / "data"
    data.write_text("1")
    one = task(folder, LEFT)
    registered(folder, one, files={str(data): file_sha256(data)})
    data.write_text("22")
    run_task(folder, one.key, Ending())
    assert f"{data} changed" in folder.record(one.key)["error"]
    assert not (folder.path / "a.count").exists()


def test_commands_do_not_see_the_job(folder, debug, monkeypatch):
    """Lightning would take the layout of a SLURM job for that of the training."""
    monkeypatch.setenv("SLURM_NTASKS", "8")
    one = task(folder, f"env > {folder.path}/env; {LEFT}")
    run_tasks(folder, registered(folder, one), debug, quiet)
    assert "SLURM_NTASKS" not in (folder.path / "env").read_text()


def test_a_full_disk(folder, debug, monkeypatch):
    one = task(folder, LEFT)
    plan = registered(folder, one)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("nequip_decorr.study.records.write_atomic", full)
        patch.setattr("nequip_decorr.study.task.run_task", quiet)
        with pytest.raises(UserError, match="No space left"):
            run_tasks(folder, plan, debug, quiet)
    records = run_tasks(folder, plan, debug, quiet)
    assert records[one.key]["status"] == "done"


@pytest.mark.slow
def test_processes_of_this_machine(folder, monkeypatch):
    """Two at a time, each with its part of the cores."""
    # what the runner sets is undone after the test
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("os.cpu_count", lambda: 7)

    def waiting(mine, other):
        """Each waits for the other, and gives up after minutes."""
        wait = f"until [ -e {folder.path}/{other} ]; do sleep 0.1; done"
        said = f"echo $OMP_NUM_THREADS > {folder.path}/{mine}"
        return task(folder, f"{said}; timeout 300 sh -c '{wait}' && {LEFT}", mine)

    tasks = [waiting("a", "b"), waiting("b", "a")]
    plan = registered(folder, *tasks)
    records = run_tasks(folder, plan, LocalRunner(folder, Executor(processes=2)), quiet)
    assert {r["status"] for r in records.values()} == {"done"}
    assert [(folder.path / name).read_text() for name in "ab"] == ["3\n", "3\n"]


def test_tasks_are_sorted_by_what_they_need(folder):
    a, b = task(folder, "", "a"), task(folder, "", "b", needs=("a_1.inspect",))
    c = task(folder, "", "c", needs=("b_1.inspect",))
    done, lost = {"status": "done"}, {"status": "failed"}
    found = outlook([a, b, c], {})
    assert (found.ready, found.waiting, found.blocked) == ((a,), (b, c), ())
    found = outlook([a, b, c], {a.key: done})
    assert (found.ready, found.waiting) == ((b,), (c,))
    found = outlook([a, b, c], {a.key: lost})
    assert found.blocked == (b, c)
    assert found.over


def test_time_left(folder):
    tasks = [task(folder, "", "a", seed=seed) for seed in range(4)]
    record = {"status": "done", "wall_s": 100.0, "interrupted": 0}
    assert time_left_s(by_stage(tasks, {}, set()), 1) is None
    stages = by_stage(tasks, {tasks[0].key: record}, {tasks[1].key})
    assert (stages[0].done, stages[0].running, stages[0].open) == (1, 1, 3)
    assert time_left_s(stages, 2) == pytest.approx(150.0)


@pytest.mark.parametrize(
    ("seconds", "said"), [(5, "5 s"), (150, "2.5 min"), (9000, "2.5 h"), (2e5, "2.3 d")]
)
def test_duration(seconds, said):
    assert duration(seconds) == said


def test_gpus_are_shared_out_round_robin():
    used = [gpu_parameters([0, 1, 2], slot)["visible_gpus"] for slot in range(5)]
    assert used == [[0], [1], [2], [0], [1]]
    assert gpu_parameters([], 3) == {"gpus_per_node": 0}


def test_gpus_are_those_that_the_user_chose():
    """submitit replaces CUDA_VISIBLE_DEVICES, so its numbers are kept."""
    name = "CUDA_VISIBLE_DEVICES"
    assert chosen_gpus(2, {}) == [0, 1]
    assert chosen_gpus(2, {name: "5,3"}) == [5, 3]
    assert chosen_gpus(0, {name: ""}) == []
    with pytest.raises(UserError, match="nvidia-smi"):
        chosen_gpus(2, {name: "MIG-1234,MIG-5678"})


def test_more_gpus_than_there_are(folder):
    with pytest.raises(UserError, match="GPUs"):
        LocalRunner(folder, Executor(gpus=99))
