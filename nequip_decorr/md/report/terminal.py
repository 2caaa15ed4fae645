"""Summary of a run on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from nequip_decorr.md.results import Failure, Replica, RunResult
from nequip_decorr.md.statistics.survival import (
    Survival,
    describe_score,
    estimate_survival,
    survival_by_temperature,
)

#: Number of failures that are listed one by one.
SHOWN = 10


def print_summary(result: RunResult, path: Path, console: Console) -> None:
    """Print a table by temperature, the failures, and the score.

    Args:
        result: the run, complete or not.
        path: of the result file, for the last line.
        console: where to print.
    """
    if result.replicas:
        survival = estimate_survival(result.replicas, result.horizon_ps)
        console.print(_table(result))
        _print_failures(result, console)
        headline = describe_score(survival)
        console.print(headline, style="bold", highlight=False, soft_wrap=True)
        for note in survival.notes:
            console.print(f"  note: {note}", highlight=False, soft_wrap=True)
    state = "" if result.complete else " (not complete)"
    console.print(f"result: {path}{state}", highlight=False, soft_wrap=True)


def _table(result: RunResult) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    columns = ("T (K)", "replicas", "failed", "lost", "S(tau) [95 %]", "median ps")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("causes")
    by_temperature = survival_by_temperature(result.replicas, result.horizon_ps)
    for kelvin, survival in by_temperature.items():
        table.add_row(f"{kelvin:g}", *_row(survival))
    return table


def _row(survival: Survival) -> list[str]:
    at_tau, median = survival.survival_at_tau, survival.median_ps
    return [
        str(survival.n_replicas),
        str(survival.n_failures),
        str(survival.n_lost),
        f"{at_tau.value:.2f} [{at_tau.low:.2f}, {at_tau.high:.2f}]"
        if survival.n_failures
        else f">= {at_tau.low:.2f}",
        "not reached" if median is None else f"{median:.3g}",
        ", ".join(f"{cause} {n}" for cause, n in survival.causes.items()),
    ]


def _print_failures(result: RunResult, console: Console) -> None:
    failed = [(r, r.failure) for r in result.replicas if r.failure is not None]
    failed.sort(key=lambda pair: pair[0].time_ps)
    for replica, failure in failed[:SHOWN]:
        line = _line(replica, failure)
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if len(failed) > SHOWN:
        console.print(f"... and {len(failed) - SHOWN} more failures", highlight=False)


def _line(replica: Replica, failure: Failure) -> str:
    line = (
        f"{replica.time_ps:9.4f} ps  {failure.cause}: {failure.message} "
        f"[{replica.structure_name}, {replica.temperature_K:g} K, seed {replica.seed}"
    )
    if failure.half_step_cause is not None:
        again = failure.half_step_cause
        line += f"; at half the step {'it survives' if again == 'none' else again}"
    return line + "]"
