"""Summary of a run on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from nequip_decorr.md.report.untested import untested_lines
from nequip_decorr.md.results import KINDS, Event, Replica, RunResult
from nequip_decorr.md.statistics.survival import (
    Survival,
    describe_score,
    estimate_survival,
    survival_by_temperature,
)
from nequip_decorr.md.statistics.wording import bounded
from nequip_decorr.wording import counted

#: Number of events that are listed one by one.
SHOWN = 10

#: Kinds of event as a heading.
TITLES = {"unphysical": "unphysical geometry", "explosion": "explosion"}


def print_summary(result: RunResult, path: Path, console: Console) -> None:
    """Print the events, a table of both kinds by temperature, and a line for each.

    Args:
        result: the run, complete or not.
        path: of the result file, for the last line.
        console: where to print.
    """
    if result.replicas:
        _print_events(result, console)
        console.print(_table(result))
        said: set[str] = set()
        for kind in KINDS:
            survival = estimate_survival(result.replicas, result.horizon_ps, kind)
            line = f"{TITLES[kind]}: {headline(survival)}"
            console.print(line, style="bold", highlight=False, soft_wrap=True)
            notes = () if unknown(survival) else survival.notes
            for note in notes:
                if note not in said:
                    console.print(f"  note: {note}", highlight=False, soft_wrap=True)
            said.update(notes)
    for line in untested_lines(result):
        console.print(line, style="yellow", highlight=False, soft_wrap=True)
    state = "" if result.complete else " (not complete)"
    console.print(f"result: {path}{state}", highlight=False, soft_wrap=True)


def unknown(survival: Survival) -> bool:
    """Whether every replica ended by the other kind of event before this one."""
    by_other = sum(survival.censored.get(kind, 0) for kind in KINDS)
    return by_other == survival.n_replicas


def headline(survival: Survival) -> str:
    """The result for one kind of event, in one line."""
    if not unknown(survival):
        return describe_score(survival)
    of_all = f"{survival.n_replicas} of {counted(survival.n_replicas, 'replica')}"
    if survival.kind == "unphysical":
        return f"not followed: {of_all} exploded first"
    return (
        f"not followed: {of_all} ended at an unphysical geometry; use "
        "`--until explosion` to continue"
    )


def _table(result: RunResult) -> Table:
    rows = {
        (kind, kelvin): survival
        for kind in KINDS
        for kelvin, survival in survival_by_temperature(
            result.replicas, result.horizon_ps, kind
        ).items()
    }
    partly = any(each.n_not_followed for each in rows.values())
    lost = any(each.n_lost for each in rows.values())
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("event", no_wrap=True)
    columns = ["T (K)", "happened"]
    columns += ["not followed"] * partly + ["lost"] * lost
    for name in (*columns, "S(tau) [95 %]", "median ps"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("causes")
    shown = ""
    for (kind, kelvin), each in rows.items():
        cells = ["" if kind == shown else kind, f"{kelvin:g}"]
        cells += [f"{each.n_failures} of {each.n_replicas}"]
        cells += [str(each.n_not_followed)] * partly + [str(each.n_lost)] * lost
        table.add_row(*cells, *_estimates(each), _causes(each))
        shown = kind
    return table


def _estimates(survival: Survival) -> tuple[str, str]:
    at_tau, median = survival.survival_at_tau, survival.median_ps
    if unknown(survival):
        return "?", "?"
    return (
        bounded(at_tau, survival.n_failures),
        "not reached" if median is None else f"{median:.3g}",
    )


def _causes(survival: Survival) -> str:
    return ", ".join(f"{cause} {n}" for cause, n in survival.causes.items())


def _print_events(result: RunResult, console: Console) -> None:
    events = [(r, e) for r in result.replicas for k in KINDS if (e := r.event(k))]
    events.sort(key=lambda pair: pair[1].time_ps)
    for replica, event in events[:SHOWN]:
        line = _line(replica, event)
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if len(events) > SHOWN:
        console.print(f"... and {len(events) - SHOWN} later events", highlight=False)


def _line(replica: Replica, event: Event) -> str:
    line = (
        f"{event.time_ps:9.4f} ps  {event.kind} ({event.cause}): {event.message} "
        f"[{replica.structure_name}, {replica.temperature_K:g} K, seed {replica.seed}"
    )
    if event.half_step_cause is not None:
        again = event.half_step_cause
        line += f"; at half the step {'it survives' if again == 'none' else again}"
    return line + "]"
