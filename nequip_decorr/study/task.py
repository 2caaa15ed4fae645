"""Runs one task of a study: its command, its log and its record."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from nequip_decorr.errors import UserError
from nequip_decorr.study import stages
from nequip_decorr.study.checkpoints import last_checkpoint
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.machine import machine
from nequip_decorr.study.process import Ending, execute, in_words, stop, told
from nequip_decorr.study.tasks import Task, key_of
from nequip_decorr.wording import named

#: Lines of a log that are kept of a task that failed.
TAIL = 20

#: What a command must not see: Lightning would take a job's layout for its own.
HIDDEN = ("SLURM_", "SUBMITIT_", "PMI_", "PMIX_")

#: What Lightning logs of a training that SIGTERM ends, with exit status 0.
ENDED_EARLY = b"Received SIGTERM"


@dataclass
class TaskRun:
    """A task for an executor; pickled by submitit.

    Attributes:
        folder: folder of the study.
        key: key of the task.
        patience_s: seconds that the command may take to end when the job is ended or
            requeued.
    """

    folder: str
    key: str
    patience_s: float = 20.0
    _ending: Ending = field(default_factory=Ending, repr=False)

    def __call__(self) -> None:
        """Run the task, unless it has a record."""
        with told(self._ending, self.patience_s):
            run_task(StudyFolder(self.folder), self.key, self._ending)

    def checkpoint(self) -> Any:
        """Called by submitit when the job's time is over: end the command and requeue.

        The task resumes from what the command has saved.
        """
        from submitit.helpers import DelayedSubmission

        for process in self._ending.running:
            stop(process, self.patience_s)
        return DelayedSubmission(TaskRun(self.folder, self.key, self.patience_s))


def run_task(study: StudyFolder, key: str, ending: Ending) -> None:
    """Run a task and write its record; does nothing if it has one.

    Waits for any process that runs the same task. If this process is killed, the
    command keeps the lock, so that no other process starts the task before it has
    ended.

    Args:
        study: folder of the study.
        key: key of the task.
        ending: holds the command while it runs, and whether this process was told to
            end. A command that then fails was told to end as well, so no record is
            written and the next run resumes the task.
    """
    with study.lock(key) as lock:
        if study.record(key) is not None:
            return
        registered = study.registered()
        task = next(each for each in registered.tasks if each.key == key)
        attempts = study.begin(key)
        interrupted = _interrupted(study, task, attempts[:-1])
        changed = study.changed_file(registered)
        if changed is not None:
            ended: dict[str, Any] = {
                "status": "failed",
                "error": f"{changed} changed since the study was planned; restore it "
                "and retry",
            }
        else:
            ended = _run(study, task, registered.cwd, lock, ending)
        if ended["status"] != "done" and ending.comes():
            raise InterruptedError(f"{key} was interrupted")
        study.end(key, attempts)
        study.store.write(
            key,
            {
                "key": key,
                "stage": task.stage,
                "variant": task.variant,
                "seed": task.seed,
                "interrupted": interrupted,
                "machine": machine(),
                "result": None,
                "error": None,
                "tail": [],
                **ended,
            },
        )


def _interrupted(
    study: StudyFolder, task: Task, earlier: Sequence[Mapping[str, Any]]
) -> int:
    """Earlier attempts that were killed; of a training, those that it continues.

    Without a checkpoint, a training starts afresh and is the one that was asked for.
    """
    if task.stage != "train":
        return sum(each["ended"] is None for each in earlier)
    return len(earlier) if last_checkpoint(study.path / task.folder) else 0


def _run(
    study: StudyFolder,
    task: Task,
    cwd: str,
    lock: FileLock,
    ending: Ending,
) -> dict[str, Any]:
    folder, log = study.path / task.folder, study.log(task.key)
    cache = study.path / "cache" / task.key
    logged = log.stat().st_size if log.exists() else 0
    began, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    status, error, result = "failed", None, None
    try:
        command = stages.prepare(task.stage, _command(study, task), folder)
        code = execute(
            command,
            log,
            cwd=cwd,
            env=environment(cache),
            lock=lock,
            ending=ending,
        )
        early = ending.told or _early(log, logged)
        if code == 0 and task.stage == "train" and early:
            code = -signal.SIGTERM
        if code == 0:
            found = stages.harvest(task.stage, folder, task.test_sets)
            result = stages.placed(found, task.folder)
            status = "done"
        else:
            error = in_words(code)
    except (UserError, OSError) as problem:
        error = str(problem)
    except Exception as problem:  # e.g. of torch.load, on a damaged checkpoint
        error = named(problem)
    shutil.rmtree(cache, ignore_errors=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {
        "status": status,
        "error": error,
        "result": result,
        "tail": [] if status == "done" else tail(log),
        "began": began,
        "wall_s": round(time.time() - began, 3),
        "cpu_s": round(cpu_s, 3),
    }


def _command(study: StudyFolder, task: Task) -> tuple[str, ...]:
    """The command, with the model's checkpoint filled in."""
    if not any(stages.CHECKPOINT in part for part in task.command):
        return task.command
    trained = study.record(key_of(task.variant, task.seed, "train"))
    if trained is None or trained["result"] is None:
        raise UserError("expected a trained model, got none; run its training first")
    checkpoint = study.path / trained["result"]["checkpoint"]
    if not checkpoint.is_file():
        raise UserError(
            f"expected the trained model {checkpoint}, got none; copy it from where it "
            "was trained"
        )
    in_quotes = stages.quoted(stages.CHECKPOINT), stages.quoted(checkpoint)
    return tuple(
        part.replace(*in_quotes).replace(stages.CHECKPOINT, str(checkpoint))
        for part in task.command
    )


def environment(cache: Path) -> dict[str, str]:
    """Of a command; models of one graph would overwrite each other's compiled files in
    a cache that they share.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(HIDDEN)}
    return {**kept, "TORCHINDUCTOR_CACHE_DIR": str(cache)}


def _early(log: Path, start: int) -> bool:
    """Whether a training was ended by SIGTERM, from its log from ``start`` on."""
    with log.open("rb") as handle:
        handle.seek(start)
        return any(ENDED_EARLY in line for line in handle)


def tail(log: Path) -> list[str]:
    """Last lines of a log."""
    try:
        with log.open("rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - 20_000))
            text = handle.read().decode(errors="replace")
    except OSError:
        return []
    # progress bars overwrite their line
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    if not lines[-1]:
        lines.pop()
    return lines[-TAIL:]
