"""Summary of a run on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from nequip_decorr.md.report.answer import more, survivals_of
from nequip_decorr.md.report.events import by_time
from nequip_decorr.md.report.untested import untested_lines
from nequip_decorr.md.results import Event, Replica, RunResult
from nequip_decorr.md.statistics.survival import Survival, describe_score
from nequip_decorr.md.statistics.wording import bounded
from nequip_decorr.printing import say
from nequip_decorr.wording import counted

#: Number of events that are listed one by one.
SHOWN = 10

#: Kinds of event as a heading.
TITLES = {"unphysical": "unphysical geometry", "explosion": "explosion"}

#: What ended replicas before an event of another kind could happen.
ENDS = {
    "unphysical": "an unphysical geometry",
    "explosion": "an explosion",
    "not_followed": "limits that no longer apply",
}


def print_summary(result: RunResult, path: Path, console: Console) -> None:
    """Print the events, and a table and lines with both kinds at each temperature.

    Args:
        result: the run, complete or not.
        path: of the result file, for the last line.
        console: where to print.
    """
    if result.replicas:
        _print_events(result, console)
        survivals = {
            (kind, where): survival
            for kind, by_temperature in survivals_of(result).items()
            for where, survival in by_temperature.items()
        }
        console.print(_table(survivals))
        one = len({where for _, where in survivals}) == 1
        said: set[str] = set()
        for (kind, where), survival in survivals.items():
            title = TITLES[kind] if one else f"{TITLES[kind]}, {where}"
            say(console, f"{title}: {headline(survival)}", style="bold")
            notes = survival.notes if survival.known else ()
            for note in notes:
                if note not in said:
                    say(console, f"  note: {note}")
            said.update(notes)
    for line in untested_lines(result):
        say(console, line, style="yellow")
    state = "" if result.complete else " (incomplete)"
    say(console, f"result: {path}{state}")


def headline(survival: Survival) -> str:
    """The result for one kind of event, in one line."""
    if survival.known:
        return describe_score(survival)
    n_events, n_replicas = survival.n_failures, survival.n_replicas
    had = f"{n_events} had the event, and " if n_events else ""
    ended = [
        f"{n} of {counted(n_replicas, 'replica')} ended at {ENDS[why]}"
        for why, n in survival.censored.items()
        if why in ENDS
    ]
    return f"not followed: {had}{' and '.join(ended)}{more(survival)}"


def _table(rows: Mapping[tuple[str, str], Survival]) -> Table:
    partly = any(each.n_not_followed for each in rows.values())
    lost = any(each.n_lost for each in rows.values())
    # so that all columns fit into 80 characters
    tight = 0 if partly or lost else (0, 1)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=tight)
    table.add_column("event", no_wrap=True)
    columns = ["T", "happened"]
    columns += ["not\nfollowed"] * partly + ["lost"] * lost
    for name in (*columns, "S(tau) [95 %]", "median\nps"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("causes", min_width=7)
    shown = ""
    for (kind, where), each in rows.items():
        cells = ["" if kind == shown else kind, where]
        cells += [f"{each.n_failures} of {each.n_replicas}"]
        cells += [str(each.n_not_followed)] * partly + [str(each.n_lost)] * lost
        table.add_row(*cells, *_estimates(each), _causes(each))
        shown = kind
    return table


def _estimates(survival: Survival) -> tuple[str, str]:
    at_tau, median = survival.survival_at_tau, survival.median_ps
    if not survival.known:
        return "?", "?"
    return (
        bounded(at_tau, survival.n_failures),
        "not reached" if median is None else f"{median:.3g}",
    )


def _causes(survival: Survival) -> str:
    return ", ".join(f"{cause} {n}" for cause, n in survival.causes.items())


def _print_events(result: RunResult, console: Console) -> None:
    events = by_time(result.replicas)
    for replica, event in events[:SHOWN]:
        say(console, _line(replica, event))
    if len(events) > SHOWN:
        say(console, f"... and {len(events) - SHOWN} later events")


def _line(replica: Replica, event: Event) -> str:
    line = (
        f"{event.time_ps:9.4f} ps  {event.kind} ({event.cause}): {event.message} "
        f"[{replica.structure_name}, {replica.temperature_K:g} K, seed {replica.seed}"
    )
    if event.half_step_cause is not None:
        again = event.half_step_cause
        line += f"; at half the time step {'it survives' if again == 'none' else again}"
    return line + "]"
