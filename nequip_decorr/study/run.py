"""A whole study: plan it, then run or resume all tasks without a record."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nequip_decorr.errors import UserError
from nequip_decorr.study.config import Study
from nequip_decorr.study.executors import Runner, UnreachableError, groups, make_runner
from nequip_decorr.study.folder import Registered, StudyFolder
from nequip_decorr.study.plan import make_plan
from nequip_decorr.study.questions import questions
from nequip_decorr.study.task import tail
from nequip_decorr.study.tasks import Task

Records = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Outlook:
    """Tasks grouped by their state."""

    ready: tuple[Task, ...]
    waiting: tuple[Task, ...]
    blocked: tuple[Task, ...]

    @property
    def over(self) -> bool:
        """Whether no runnable task is left."""
        return not self.ready and not self.waiting


def outlook(tasks: Sequence[Task], records: Records) -> Outlook:
    """Sort the tasks without a record.

    ``ready`` tasks have all their inputs, ``waiting`` tasks do not yet, and ``blocked``
    tasks need one that failed.
    """
    ready, waiting, blocked = [], [], []
    lost = {key for key, record in records.items() if record["status"] != "done"}
    for task in tasks:  # those that are needed come first
        if task.key in records:
            continue
        if lost.intersection(task.needs):
            blocked.append(task)
            lost.add(task.key)
        elif all(need in records for need in task.needs):
            ready.append(task)
        else:
            waiting.append(task)
    return Outlook(tuple(ready), tuple(waiting), tuple(blocked))


def plan_study(study: Study, folder: StudyFolder) -> tuple[Registered, tuple[str, ...]]:
    """Check everything, then write the plan and the questions; the folder must be held.

    Returns:
        The plan, and notes for the user before the study starts.

    Raises:
        UserError: as :func:`.plan.make_plan`, and if another study is in the folder.
    """
    plan = make_plan(study, folder.path, folder.digest)
    found = folder.register(plan, questions(study, plan), study.md)
    return found, plan.notes


def retry(folder: StudyFolder, registered: Registered) -> list[str]:
    """Remove the records of failed tasks; returns their keys."""
    failed = [
        key
        for key, record in folder.records(registered).items()
        if record["status"] != "done"
    ]
    for key in failed:
        folder.store.forget(key)
    return failed


def run_tasks(
    folder: StudyFolder,
    registered: Registered,
    runner: Runner,
    say: Callable[[Records, set[str], str | None], None],
) -> Records:
    """Run all tasks without a record, until no runnable task is left.

    Args:
        folder: folder of the study, held by this process.
        registered: its plan.
        runner: where tasks run.
        say: called regularly with the records, the keys of running tasks, and a message
            if the scheduler has a problem.

    Raises:
        KeyboardInterrupt: if interrupted; local tasks are ended, and all results so far
            are kept.
        UserError: if a record cannot be written.
    """
    records = dict(folder.records(registered))
    mine: set[str] = set()
    elsewhere: set[str] = set()
    with _as_interrupts():
        try:
            while True:
                trouble = None
                try:
                    active = runner.active()
                    records |= _collect(
                        folder, registered, runner, mine | elsewhere, mine - active
                    )
                    mine = active - records.keys()
                    new, elsewhere = _submit(folder, registered, runner, records, mine)
                    mine |= new
                except UnreachableError as error:
                    trouble = str(error)
                say(records, mine | elsewhere, trouble)
                if not mine | elsewhere and outlook(registered.tasks, records).over:
                    runner.finish()
                    with suppress(OSError):  # they stay where they are
                        folder.store.gather(task.key for task in registered.tasks)
                    return records
                time.sleep(runner.poll_s)
        except BaseException:
            runner.cancel()
            raise


def _collect(
    folder: StudyFolder,
    registered: Registered,
    runner: Runner,
    keys: set[str],
    ended: set[str],
) -> dict[str, dict[str, Any]]:
    """Read new records, and write one for each ended task that left none.

    A command that outlived the process responsible for its record still holds the
    task's lock. It is waited for, and the task is then resumed.
    """
    found = {}
    for task in registered.tasks:
        if task.key not in keys:
            continue
        record = folder.record(task.key)
        if record is None and task.key in ended and not folder.is_running(task.key):
            record = _without_record(folder, task, runner.ending(task.key))
        if record is not None:
            found[task.key] = record
    return found


def _without_record(folder: StudyFolder, task: Task, why: str) -> dict[str, Any]:
    record = {
        "key": task.key,
        "stage": task.stage,
        "variant": task.variant,
        "seed": task.seed,
        "status": "failed",
        "error": why,
        "result": None,
        "tail": tail(folder.log(task.key)),
        "interrupted": len(folder.attempts(task.key)),
        "machine": {},
    }
    try:
        folder.store.write(task.key, record)
    except OSError as error:
        raise UserError(
            f"cannot write to {folder.path} ({error.strerror}); free some space and "
            "rerun the same command: nothing is lost"
        ) from error
    return record


def _submit(
    folder: StudyFolder,
    registered: Registered,
    runner: Runner,
    records: Records,
    mine: set[str],
) -> tuple[set[str], set[str]]:
    """Submit the ready tasks.

    Returns:
        Keys that were submitted, and keys of tasks still running from an earlier call
        that was killed.
    """
    elsewhere: set[str] = set()
    chosen: list[Task] = []
    room = runner.room()
    for task in outlook(registered.tasks, records).ready:
        if len(chosen) + len(elsewhere) >= room:
            break
        if task.key in mine:
            continue
        if folder.is_running(task.key) or folder.record(task.key) is not None:
            elsewhere.add(task.key)  # it may have ended just now
        else:
            chosen.append(task)
    accepted = set[str]().union(*(runner.submit(group) for group in groups(chosen)))
    return accepted, elsewhere


@contextmanager
def _as_interrupts() -> Iterator[None]:
    """Treat SIGTERM and a closed terminal like Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    names = [signal.SIGTERM, signal.SIGHUP]
    before = {name: signal.signal(name, interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def runner_of(study: Study, folder: StudyFolder) -> Runner:
    """The runner for the study's tasks."""
    return make_runner(folder, study.executor)


def default_folder(study_file: Path) -> Path:
    """Default folder of a study."""
    return Path(f"{study_file.stem}-results")
