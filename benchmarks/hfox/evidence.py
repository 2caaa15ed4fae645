"""``make evidence``: does decorrelation make MD more stable out of distribution?

Trains every model of a grid, measures it, and writes RESULTS.md. Each model leaves one
record. If interrupted, rerun the same command: it trains the models that have none. See
RESULTS.md for the results, and models.py for what is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from nequip_decorr.errors import UserError
from nequip_decorr.md.results import write_atomic

from ..common import ROOT, enter
from .analysis import load_records
from .data import DATA, require_intact
from .models import GRIDS, Job
from .pipeline import HERE, measure
from .report import write_results

#: Per model, on a shared x86 core; a first guess until the progress bar knows better.
CPU_S_PER_MODEL = 160

console = Console()


def commit() -> str:
    """The commit that is checked out, with a mark when files were changed."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def run(job: Job, work: Path, records: Path, data: Path) -> str:
    """One model, from nothing to its record."""
    torch.set_num_threads(1)
    found = measure(job.arguments, work / job.name, data, job.scale)
    record: dict[str, Any] = {
        **{k: v for k, v in asdict(job).items() if k != "scale"},
        "arguments": job.arguments,
        **found,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }
    write_atomic(records / f"{job.name}.json", json.dumps(record, indent=0))
    shutil.rmtree(work / job.name)
    return job.name


def missing(jobs: list[Job], records: Path) -> list[Job]:
    """Jobs without a record.

    Raises:
        UserError: when a record of the same name is of another grid.
    """
    left = []
    for job in jobs:
        path = records / f"{job.name}.json"
        if not path.exists():
            left.append(job)
        elif (found := json.loads(path.read_text())["overrides"]) != [*job.overrides]:
            raise UserError(
                f"expected {path} to be of a model with {[*job.overrides]}, got one "
                f"with {found}; remove it, or give another --out"
            )
    return left


def run_all(jobs: list[Job], args: argparse.Namespace, records: Path) -> list[str]:
    """Run jobs side by side; returns what went wrong, one line a model."""
    failures = []
    columns = (
        TextColumn("models"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    # one process for each model, which frees what compiled models and traces keep
    pool = ProcessPoolExecutor(
        args.processes, get_context("spawn"), max_tasks_per_child=1
    )
    with pool, Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=len(jobs))
        waiting = {
            pool.submit(run, job, args.work, records, args.data): job for job in jobs
        }
        for future in _completed(waiting, pool):
            error = future.exception()
            name = waiting[future].name
            if error is not None:
                failures.append(f"{name}: {type(error).__name__}: {error}")
            progress.console.print(f"{name}: {'failed' if error else 'done'}")
            progress.advance(bar)
    return failures


def _completed(
    waiting: Iterable[Future[str]], pool: ProcessPoolExecutor
) -> Iterator[Future[str]]:
    """Futures as they end; an interrupt starts no more of them."""
    try:
        yield from as_completed(waiting)
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", choices=sorted(GRIDS), default="cpu")
    parser.add_argument("--out", type=Path, help="folder for records and results")
    parser.add_argument(
        "--work", type=Path, help="folder for models until they have a record"
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args(arguments)
    require_intact(args.data)
    # models of grids share names, and those of the cpu grid are in the repository
    outputs = ROOT / "outputs" / f"evidence-{args.grid}"
    args.out = args.out or (HERE / "results" if args.grid == "cpu" else outputs)
    args.work = (args.work or outputs / "work").resolve()
    args.data = args.data.resolve()
    records = args.out / "records"
    records.mkdir(parents=True, exist_ok=True)
    jobs = GRIDS[args.grid]
    left = missing(jobs, records)
    console.print(f"{len(jobs) - len(left)} of {len(jobs)} models have a record")
    minutes = len(left) * CPU_S_PER_MODEL / args.processes / 60
    console.print(
        f"the others take about {minutes:.0f} min; if interrupted, rerun to resume"
    )
    failures = run_all(left, args, records) if left else []
    for line in failures:
        console.print(line, style="red")
    path = write_results(load_records(records), args.out)
    console.print(f"written: {path}")
    return 1 if failures else 0


if __name__ == "__main__":
    enter(main)
