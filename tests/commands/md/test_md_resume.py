"""Killed at any moment and started again: the run that was never killed."""

import os
import random
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from nequip_decorr.md import results
from tests.support import commands

pytestmark = pytest.mark.slow

# to the explosion: the first event ends a run before it can be killed several times
LENGTH = ["--horizon-ps", "0.4", "--replicas", "2", "--temperature", "300", "4000"]
LENGTH += ["--until", "explosion"]


def found(folder):
    """All that a run has found, to the last bit."""
    result = results.load(folder / "result.json")
    frames = {p.name: p.read_bytes() for p in (folder / "frames").glob("*.extxyz")}
    return result.replicas, frames


@pytest.fixture(scope="module")
def whole(tmp_path_factory, checkpoint, hfo2):
    """The run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    arguments = ["md", str(checkpoint), f"{hfo2}@0", *LENGTH, "--out", "run"]
    done = commands.run("nequip-decorr", arguments, folder)
    assert done.status == 0, done.output
    return found(folder / "run")


@pytest.mark.parametrize(("processes", "kills"), [(1, 3), (2, 1)])
def test_kill_and_resume(tmp_path, checkpoint, hfo2, whole, processes, kills):
    """SIGKILL at moments drawn beforehand; then the same command to its end."""
    run = tmp_path / "run"
    arguments = ["md", str(checkpoint), f"{hfo2}@0", *LENGTH, "--out", str(run)]
    arguments += ["--processes", str(processes)]
    draw = random.Random(processes)
    for _ in range(kills):
        before = progress(run)
        process = commands.start("nequip-decorr", arguments, tmp_path, tmp_path / "log")
        deadline = time.monotonic() + commands.HUNG_S
        while progress(run) == before and time.monotonic() < deadline:
            assert process.is_alive(), (tmp_path / "log").read_text()
            time.sleep(0.02)
        process.join(draw.uniform(0.0, 0.4))
        workers = children(process.pid)
        assert bool(workers) is (processes > 1)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        while any(alive(pid) for pid in workers):
            assert time.monotonic() < deadline, "workers outlive what they work for"
            time.sleep(0.02)
    end = commands.run("nequip-decorr", arguments, tmp_path)
    assert end.status == 0, end.output
    assert "0 finished, 0 resumed" not in end.output
    assert found(run) == whole


def test_interrupt_and_resume(tmp_path, checkpoint, hfo2, whole):
    """Ctrl-C: what was found so far, what to do, and status 130."""
    run, log = tmp_path / "run", tmp_path / "log"
    arguments = ["md", str(checkpoint), f"{hfo2}@0", *LENGTH, "--out", str(run)]
    process = commands.start("nequip-decorr", arguments, tmp_path, log)
    deadline = time.monotonic() + commands.HUNG_S
    while not progress(run) and time.monotonic() < deadline:
        assert process.is_alive(), log.read_text()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    process.join(commands.HUNG_S)
    assert process.exitcode == 130
    told = log.read_text()
    assert "interrupted; rerun the same command to resume" in told
    assert "(incomplete)" in told
    partial = results.load(run / "result.json")
    assert not partial.complete
    assert "interrupt" in {r.censored_by for r in partial.replicas}
    end = commands.run("nequip-decorr", arguments, tmp_path)
    assert end.status == 0, end.output
    # one goes on, unless the signal came right after one had ended
    ended, go_on = map(
        int, re.search(r"(\d) finished, (\d) resumed", end.output).groups()
    )
    assert ended + go_on > 0
    assert found(run) == whole


def progress(folder):
    """What is kept of replicas, and since when."""
    kept = [*folder.glob("replicas/*.json"), *folder.glob("state/*.npz")]
    found = {}
    for path in kept:
        with suppress(FileNotFoundError):  # of a replica that has ended just now
            found[path.name] = path.stat().st_mtime_ns
    return found


def children(pid):
    """Processes that a process has started."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def alive(pid):
    """Whether a process runs (and is not only waiting to be buried)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False
