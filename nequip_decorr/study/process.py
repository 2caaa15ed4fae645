"""The command of a task as a process: what it holds, and how it is ended.

SLURM, submitit, Ctrl-C and ``kill`` send their signals to different processes in
different orders. Whatever comes, a command does not outlive the process that would
write its record, unless that is killed; then it keeps the lock of its task.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

#: How long a command may take to end after Ctrl-C: submitit waits for a second.
PATIENCE_S = 0.7

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


def execute(
    command: tuple[str, ...],
    log: Path,
    *,
    cwd: str,
    env: Mapping[str, str],
    lock: FileLock,
    ending: Ending,
) -> int:
    """Run a command to its end; returns its exit status, negative if a signal ended it.

    Args:
        command: the command.
        log: file to which its output is added.
        cwd: where it runs.
        env: its environment variables.
        lock: held by the command itself as long as it runs.
        ending: whether this process was told to end; holds the command meanwhile.

    Raises:
        InterruptedError: if this process was told to end before the command began.
    """
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
def told(ending: Ending, patience_s: float) -> Iterator[None]:
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


def in_words(code: int) -> str:
    """How a command ended that did not succeed."""
    if code >= 0:
        return f"the command ended with exit status {code}"
    name = signal.Signals(-code).name
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"the command was killed by {name}{hint}"
