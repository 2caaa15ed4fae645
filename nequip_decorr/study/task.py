"""Runs one task of a study: its command, its log and its record.

``python -m nequip_decorr.study.task FOLDER KEY`` runs a task by hand, as an executor
does.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from nequip_decorr.errors import UserError
from nequip_decorr.study import stages
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.machine import machine
from nequip_decorr.study.tasks import Task, key_of
from nequip_decorr.wording import one_line

#: Lines of a log that are kept of a task that failed.
TAIL = 20

#: What a command must not see: Lightning would take a job's layout for its own.
HIDDEN = ("SLURM_", "SUBMITIT_", "PMI_", "PMIX_")

#: How long a command may take to end after Ctrl-C: submitit waits for a second.
PATIENCE_S = 0.7

#: What Lightning logs of a training that SIGTERM ends, with exit status 0.
ENDED_EARLY = b"Received SIGTERM"

#: Signals that wait until a command that has started is known.
HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)

#: How long SIGTERM may take to reach this process after it has ended the command.
SIGTERM_S = 2.0


@dataclass
class Ending:
    """Whether this process was told to end, by SIGTERM or Ctrl-C.

    Attributes:
        told: whether it was.
        running: the command, while it runs.
    """

    told: bool = False
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def comes(self) -> bool:
        """The same, and waits for it a while.

        SLURM sends SIGTERM to all processes of an ended job, one after the other, so
        the command may have ended before this process is told.
        """
        end = time.monotonic() + SIGTERM_S
        while not self.told and time.monotonic() < end:
            time.sleep(0.05)
        return self.told


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
        with _told(self._ending, self.patience_s):
            run_task(StudyFolder(self.folder), self.key, self._ending)

    def checkpoint(self) -> Any:
        """Called by submitit when the job's time is over: end the command and requeue.

        The task resumes from what the command has saved.
        """
        from submitit.helpers import DelayedSubmission

        for process in self._ending.running:
            stop(process, self.patience_s)
        return DelayedSubmission(TaskRun(self.folder, self.key, self.patience_s))


def run_task(study: StudyFolder, key: str, ending: Ending | None = None) -> None:
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
        if ended["status"] != "done" and ending is not None and ending.comes():
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
    """Earlier attempts that were killed, or whose training is continued."""
    resumes = task.stage == "train" and stages.last_checkpoint(study.path / task.folder)
    return sum(bool(resumes) or each["ended"] is None for each in earlier)


def _run(
    study: StudyFolder,
    task: Task,
    cwd: str,
    lock: FileLock,
    ending: Ending | None,
) -> dict[str, Any]:
    folder, log = study.path / task.folder, study.log(task.key)
    cache = study.path / "cache" / task.key
    logged = log.stat().st_size if log.exists() else 0
    began, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    status, error, result = "failed", None, None
    try:
        command = stages.prepare(task.stage, _command(study, task), folder)
        code = _execute(
            command,
            log,
            cwd=cwd,
            env=environment(cache),
            lock=lock,
            ending=ending or Ending(),
        )
        told = ending is not None and ending.told
        if code == 0 and task.stage == "train" and (told or _early(log, logged)):
            code = -signal.SIGTERM
        if code == 0:
            found = stages.harvest(task.stage, folder, task.test_sets)
            result = stages.placed(found, task.folder)
            status = "done"
        else:
            error = _ending(code)
    except (UserError, OSError) as problem:
        error = str(problem)
    except Exception as problem:  # e.g. of torch.load, on a damaged checkpoint
        error = f"{type(problem).__name__}: {one_line(problem)}"
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
    return tuple(
        part.replace(stages.CHECKPOINT, str(checkpoint)) for part in task.command
    )


def environment(cache: Path) -> dict[str, str]:
    """Of a command; models of one graph would overwrite each other's compiled files in
    a cache that they share.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(HIDDEN)}
    return {**kept, "TORCHINDUCTOR_CACHE_DIR": str(cache)}


def _execute(
    command: tuple[str, ...],
    log: Path,
    *,
    cwd: str,
    env: Mapping[str, str],
    lock: FileLock,
    ending: Ending,
) -> int:
    with (
        log.open("ab") as handle,
        _copy(lock) as descriptors,
        _signals_held() as release,
    ):
        if ending.told:
            raise InterruptedError("told to end before the command began")
        handle.write(f"$ {shlex.join(command)}\n".encode())
        handle.flush()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_reset_signals,  # noqa: PLW1509, there are no threads
            pass_fds=descriptors,
        )
        ending.running.append(process)
        try:
            release()
            return process.wait()
        except BaseException:
            stop(process, PATIENCE_S)
            process.wait()
            raise
        finally:
            ending.running.remove(process)


@contextmanager
def _told(ending: Ending, patience_s: float) -> Iterator[None]:
    """End the command as soon as this process is told to end."""

    def tell(number: int, frame: Any) -> None:
        ending.told = True
        for process in ending.running:
            stop(process, patience_s if number == signal.SIGTERM else PATIENCE_S)
        handler = before[number]
        if callable(handler):
            handler(number, frame)

    # also where a shell has started the study in the background, without Ctrl-C
    before: dict[int, Any] = {
        number: signal.signal(number, tell)
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _signals_held() -> Iterator[Callable[[], None]]:
    """Hold signals back until the yielded function is called.

    A command that has started and is not known yet would outlive this process.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        yield release
    finally:
        release()


def _reset_signals() -> None:
    """In the command: nothing is held back, and the signal at a time limit is ignored.

    SLURM sends that one to all processes, but it is for submitit only.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)


@contextmanager
def _copy(lock: FileLock) -> Iterator[tuple[int, ...]]:
    """Duplicate descriptor of a lock file, which keeps the lock while open.

    A duplicate is needed because filelock closes its own in child processes.
    """
    context = getattr(lock, "_context", None)
    found = getattr(context, "lock_file_fd", None)
    if not isinstance(found, int):
        yield ()
        return
    copy = os.dup(found)
    try:
        yield (copy,)
    finally:
        os.close(copy)


def stop(process: subprocess.Popen[bytes], patience_s: float) -> None:
    """End a command and all processes that it started.

    May be called in a signal handler while the process is being waited for, so it does
    not consume the exit status.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    end = time.monotonic() + patience_s
    while time.monotonic() < end and not _has_ended(process.pid):
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _has_ended(pid: int) -> bool:
    if not hasattr(os, "waitid"):
        return False  # macOS: all of the patience is used
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    try:
        return os.waitid(os.P_PID, pid, options) is not None
    except ChildProcessError:
        return True


def _early(log: Path, start: int) -> bool:
    """Whether a training was ended by SIGTERM, from its log from ``start`` on."""
    with log.open("rb") as handle:
        handle.seek(start)
        return any(ENDED_EARLY in line for line in handle)


def _ending(code: int) -> str:
    if code >= 0:
        return f"the command ended with exit status {code}"
    name = signal.Signals(-code).name
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"the command was killed by {name}{hint}"


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
    lines = [line.rpartition("\r")[2] for line in text.splitlines()]
    return lines[-TAIL:]


def main(arguments: list[str] | None = None) -> int:
    """Run one task; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 2:
        sys.stderr.write("usage: python -m nequip_decorr.study.task FOLDER KEY\n")
        return 2
    study = StudyFolder(given[0])
    run_task(study, given[1])
    record = study.record(given[1])
    return 0 if record is not None and record["status"] == "done" else 1


if __name__ == "__main__":
    sys.exit(main())
