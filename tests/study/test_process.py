"""Commands of tasks as processes: killed, interrupted, and outlived."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from nequip_decorr.study.executor_options import Executor
from nequip_decorr.study.executors import LocalRunner
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.run import run_tasks
from tests.support.shell_tasks import LEFT, quiet, registered, task, times_run
from tests.support.studies import children

pytestmark = pytest.mark.slow

PATIENCE_S = 300


def wait_for(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path):
    return StudyFolder(tmp_path / "study")


def test_a_task_whose_process_was_killed_is_resumed(folder):
    """Its command outlives it and keeps the lock; the loop waits, and runs it again."""
    once = (
        f"[ -e {folder.path}/once ] || {{ touch {folder.path}/once; kill -9 $PPID; }}"
    )
    seen = folder.path / "seen"
    one = task(folder, f"{once}; until [ -e {seen} ]; do sleep 0.1; done; {LEFT}")
    runner = LocalRunner(folder, Executor(processes=1))

    def say(*_):
        if (folder.path / "once").exists() and not runner.running:
            seen.touch()

    records = run_tasks(folder, registered(folder, one), runner, say)
    assert records[one.key]["status"] == "done"
    assert times_run(folder, "a") == 2
    assert records[one.key]["interrupted"] == 1


def test_a_task_that_ends_without_a_record_failed(folder):
    """All of it is killed, as by a machine that is out of memory."""
    one = task(folder, "kill -9 $PPID; kill -9 $$")
    runner = LocalRunner(folder, Executor(processes=1))
    (record,) = run_tasks(folder, registered(folder, one), runner, quiet).values()
    assert record["status"] == "failed"
    assert "without a record" in record["error"]


def test_a_command_keeps_its_lock(folder):
    """kill -9 of the process that runs a task: no second one beside its command."""
    stop, said = folder.path / "stop", folder.path / "said"
    wait = f"echo begins >> {said}; until [ -e {stop} ]; do sleep 0.1; done"
    one = task(folder, f"{wait}; echo ends >> {said}; {LEFT}")
    registered(folder, one)
    script = (
        "import sys, pathlib; from nequip_decorr.study.task import TaskRun; "
        "pathlib.Path(sys.argv[3]).touch(); TaskRun(*sys.argv[1:3])()"
    )

    def run(name):
        command = [sys.executable, "-c", script, str(folder.path), one.key]
        return subprocess.Popen([*command, str(folder.path / name)])

    first = run("first")
    wait_for((folder.path / "a.count").exists)
    first.kill()
    first.wait()
    assert folder.is_running(one.key)
    second = run("second")
    wait_for((folder.path / "second").exists)
    time.sleep(1)  # it would begin at once
    assert times_run(folder, "a") == 1
    stop.touch()
    assert second.wait(PATIENCE_S) == 0
    assert said.read_text().split() == ["begins", "ends", "begins", "ends"]
    assert folder.record(one.key)["interrupted"] == 1


def test_a_job_that_is_ended_leaves_no_record(folder):
    """SIGTERM to all processes of it, as SLURM sends before it requeues a job; to one
    after the other, so the command may have ended first.
    """
    one = task(folder, "sleep 1000")
    registered(folder, one)
    script = (
        "import sys; from nequip_decorr.study import process, task; "
        f"process.SIGTERM_S = {PATIENCE_S}; task.TaskRun(*sys.argv[1:])()"
    )
    command = [sys.executable, "-c", script, str(folder.path), one.key]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for((folder.path / "a.count").exists)
    (child,) = children(process.pid)
    os.kill(child, signal.SIGTERM)
    wait_for(lambda: child not in children(process.pid))
    process.terminate()
    assert process.wait(PATIENCE_S) != 0
    assert folder.record(one.key) is None


@pytest.fixture
def ctrl_c(request):
    """How this process and its children take SIGINT."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "ctrl_c",
    [signal.default_int_handler, signal.SIG_IGN],
    ids=["foreground", "background"],
    indirect=True,
)
@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_ends_local_tasks(folder):
    """SIGTERM, or a closed terminal; the task is resumed by the next study.

    Processes in the background of a script ignore SIGINT.
    """
    one = task(folder, f"test -e {folder.path}/go || sleep 1000; {LEFT}")
    plan = registered(folder, one)

    def interrupt(*_):
        if (folder.path / "a.count").exists():
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        run_tasks(folder, plan, LocalRunner(folder, Executor(processes=1)), interrupt)
    wait_for(lambda: not folder.is_running(one.key))
    assert folder.record(one.key) is None
    (folder.path / "go").touch()
    runner = LocalRunner(folder, Executor(processes=1))
    (record,) = run_tasks(folder, plan, runner, quiet).values()
    assert record["status"] == "done"
