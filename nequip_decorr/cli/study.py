"""``nequip-decorr study``: compare variants of a training over several seeds."""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console
from rich.live import Live

from nequip_decorr.errors import UserError
from nequip_decorr.paths import user_path
from nequip_decorr.printing import say
from nequip_decorr.study.config import Study, read_study
from nequip_decorr.study.folder import Registered, StudyFolder
from nequip_decorr.study.report.html import write_report
from nequip_decorr.study.report.result import findings
from nequip_decorr.study.report.terminal import print_answers
from nequip_decorr.study.run import (
    Records,
    default_folder,
    plan_study,
    retry,
    run_tasks,
    runner_of,
)
from nequip_decorr.study.status import by_stage, failures, status_table
from nequip_decorr.wording import counted

VIEWS = ("status", "report")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``nequip-decorr study``."""
    parser.usage = (
        "nequip-decorr study STUDY.yaml [--out DIR] [--retry]\n"
        "       nequip-decorr study status DIR\n"
        "       nequip-decorr study report DIR"
    )
    parser.description = (
        "Train each variant of a config with several seeds; test, inspect and simulate "
        "every model; and report what the variants change. If interrupted, rerun the "
        "same command to resume."
    )
    add = parser.add_argument
    add(
        "what",
        nargs="+",
        metavar="STUDY.yaml | status DIR | report DIR",
        help="study file to run, or the folder of a study, finished or not",
    )
    add(
        "--out",
        type=user_path,
        metavar="DIR",
        help="output folder (default: STUDY-results)",
    )
    add("--retry", action="store_true", help="rerun failed tasks")


def run(args: argparse.Namespace) -> int:
    """Run a study, or show one; 0, or 1 with failed tasks, 130 when interrupted."""
    if len(args.what) == 2 and args.what[0] in VIEWS:
        if args.out is not None or args.retry:
            raise UserError(
                f"`study {args.what[0]} DIR` takes no options; leave out --out and "
                "--retry"
            )
        folder = StudyFolder(user_path(args.what[1]))
        return _status(folder) if args.what[0] == "status" else _report(folder)
    if len(args.what) != 1:
        raise UserError(
            "expected STUDY.yaml, `status DIR` or `report DIR`, got "
            f"{' '.join(args.what)}"
        )
    path = user_path(args.what[0])
    study = read_study(path)
    folder = StudyFolder(args.out or default_folder(path))
    with folder.held():
        return _run(study, folder, args.retry)


def _run(study: Study, folder: StudyFolder, again: bool) -> int:
    console = Console()
    registered, notes = plan_study(study, folder)
    _announce(console, study, registered, folder)
    for note in notes:
        print(f"nequip-decorr study: note: {note}", file=sys.stderr)
    if again:
        failed = retry(folder, registered)
        say(console, f"retrying {counted(len(failed), 'failed task')}")
    runner = runner_of(study, folder)
    display = Display(console, registered, getattr(runner, "slots", 1))
    try:
        with display.live:
            records = run_tasks(folder, registered, runner, display)
    except KeyboardInterrupt:
        going_on = "; its jobs keep running in the queue" if runner.survives else ""
        print(
            f"nequip-decorr study: interrupted{going_on}; run the same command to "
            "resume",
            file=sys.stderr,
        )
        return 130
    _print_failures(folder, records)
    _report(folder)
    return 1 if failures(records) else 0


def _announce(
    console: Console, study: Study, registered: Registered, folder: StudyFolder
) -> None:
    stages = by_stage(registered.tasks, {}, set())
    counts = ", ".join(f"{stage.total} {stage.stage}" for stage in stages)
    variants = counted(len(study.variants), "variant")
    say(console, f"{variants} x {counted(len(study.seeds), 'seed')}: {counts}")
    say(console, f"folder: {folder.path}")


class Display:
    """Progress: a table on a terminal, a line now and then elsewhere."""

    #: Between lines of a log.
    EVERY_S = 60.0

    def __init__(
        self, console: Console, registered: Registered, at_a_time: int
    ) -> None:
        self.console = console
        self.tasks = registered.tasks
        self.at_a_time = at_a_time
        self.live = Live(console=console, auto_refresh=False, transient=True)
        self.said = 0.0

    def __call__(
        self, records: Records, running: set[str], trouble: str | None
    ) -> None:
        """Show the state."""
        now = time.monotonic()
        if now - self.said < (1.0 if self.console.is_terminal else self.EVERY_S):
            return
        self.said = now
        at_a_time = max(self.at_a_time, len(running))
        shown = status_table(self.tasks, records, running, at_a_time, trouble)
        if self.console.is_terminal:
            self.live.update(shown, refresh=True)
        else:
            done = sum(record["status"] == "done" for record in records.values())
            said = f"{done} of {len(self.tasks)} tasks done, {len(running)} running"
            print(said if trouble is None else f"{said}; {trouble}", flush=True)


def _status(folder: StudyFolder) -> int:
    registered = folder.registered()
    records = folder.records(registered)
    running = {
        task.key
        for task in registered.tasks
        if task.key not in records
        and folder.attempts(task.key)
        and folder.is_running(task.key)
    }
    Console().print(
        status_table(registered.tasks, records, running, max(1, len(running)))
    )
    _print_failures(folder, records)
    return 0


def _print_failures(folder: StudyFolder, records: Records) -> None:
    for record in failures(records):
        print(f"{record['key']}: {record['error']}; log: {folder.log(record['key'])}")
        for line in record["tail"][-3:]:
            if not line.startswith("$ "):
                print(f"    {line}")
    if failures(records):
        print("to rerun failed tasks, add --retry to the command that ran the study")


def _report(folder: StudyFolder) -> int:
    """Write the report, and print the answers."""
    print_answers(Console(), findings(folder))
    try:
        written = write_report(folder)
    except UserError as error:  # without matplotlib; the numbers are written
        print(f"nequip-decorr study: no report.html: {error}", file=sys.stderr)
        return 0
    except OSError as error:
        raise UserError(
            f"cannot write the report of {folder.path}: {error.strerror}; free some "
            "space and run `nequip-decorr study report` again"
        ) from error
    print(f"report: {written[0]}")
    return 0
