"""The main results of a run: one answer for each kind of event and temperature.

Kinds and temperatures are never pooled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from nequip_decorr.errors import UserError
from nequip_decorr.md.report.figures import survival_figure
from nequip_decorr.md.report.images import svg
from nequip_decorr.md.report.tables import Table, number
from nequip_decorr.md.results import KINDS, RunResult
from nequip_decorr.md.statistics.survival import (
    Survival,
    survival_by_temperature,
)
from nequip_decorr.md.statistics.wording import bounded
from nequip_decorr.wording import counted

#: kind -> name of a temperature -> survival
Survivals: TypeAlias = Mapping[str, Mapping[str, Survival]]

TITLES = {"unphysical": "Unphysical geometry", "explosion": "Explosion"}
MEANINGS = {
    "unphysical": "atoms too close, broken bonds, detached atoms or fragments",
    "explosion": "non-finite values, jumps, runaway temperature, or an exception",
}
VERBS = {"unphysical": "became unphysical", "explosion": "exploded"}


@dataclass(frozen=True)
class Line:
    """The answer at one temperature: condition, number of events, and times."""

    where: str
    count: str
    detail: str


@dataclass(frozen=True)
class Answer:
    """The answer for one kind of event, its curves, and what the curves show."""

    kind: str
    title: str
    meaning: str
    lines: list[Line]
    curves: str


def survivals_of(result: RunResult) -> Survivals:
    """Survival for each kind of event, at each temperature, coldest first.

    Raises:
        UserError: if the run has no replicas.
    """
    if not result.replicas:
        raise UserError("expected at least one replica, got none; run some first")
    return {
        kind: {
            temperature_name(result, kelvin): survival
            for kelvin, survival in survival_by_temperature(
                result.replicas, result.horizon_ps, kind
            ).items()
        }
        for kind in KINDS
    }


def temperature_name(result: RunResult, kelvin: float) -> str:
    """``1200 K``, or ``300 to 3000 K`` for a ramp."""
    if result.ensemble == "ramp":
        return f"{kelvin:g} to {result.protocol['ramp_end_temperature_K']:g} K"
    return f"{kelvin:g} K"


def answers(survivals: Survivals) -> list[Answer]:
    """An answer for each kind of event."""
    return [
        Answer(
            kind=kind,
            title=TITLES[kind],
            meaning=MEANINGS[kind],
            lines=answer_lines(by_temperature),
            curves=_curves(by_temperature),
        )
        for kind, by_temperature in survivals.items()
    ]


def _curves(by_temperature: Mapping[str, Survival]) -> str:
    """A picture of the curves that are known; empty if none is."""
    known = {where: each for where, each in by_temperature.items() if each.known}
    return svg(survival_figure(known)) if known else ""


def answer_lines(by_temperature: Mapping[str, Survival]) -> list[Line]:
    """One line per temperature, whose name is omitted if there is only one."""
    return [
        Line(where if len(by_temperature) > 1 else "", *_words(survival))
        for where, survival in by_temperature.items()
    ]


def _words(survival: Survival) -> tuple[str, str]:
    """Number of replicas with the event, and when it happened."""
    n, unknown = survival.n_replicas, survival.n_not_followed
    count = f"{survival.n_failures} of {n} {VERBS[survival.kind]}"
    if unknown == n:
        count = "not followed"
    elif unknown:
        count += f", {unknown} not followed"
    if not survival.known:
        which = "every replica" if unknown == n else counted(unknown, "replica")
        return count, f"{which} ended before this could happen{more(survival)}"
    median = survival.median_ps
    tau = f"{survival.tau_ps:.4g} ps"
    when = f"in {tau}" if median is None else f"median {median:.3g} ps"
    score = f"score {bounded(survival.score, survival.n_failures)}"
    if survival.tau_ps < survival.horizon_ps:
        score += f" over the first {tau}"
    return count, f"{when}; {score}"


def more(survival: Survival) -> str:
    """How to follow replicas further; empty if another run would not do so."""
    if "unphysical" not in survival.censored:
        return ""
    return "; run md with --until explosion to follow replicas further"


def survival_table(survivals: Survivals) -> Table:
    """A row for each kind and temperature."""
    return Table(
        columns=(
            "event",
            "T",
            "happened",
            "not followed",
            "lost",
            "score [95 %]",
            "S(τ) [95 %]",
            "τ",
            "median",
            "hazard ≤ (1/ps)",
            "≤ (1/(atom ps))",
            "causes",
        ),
        rows=[
            (kind, where, *_cells(each))
            for kind, by_temperature in survivals.items()
            for where, each in by_temperature.items()
        ],
        long=(11,),
    )


def _cells(survival: Survival) -> tuple[str, ...]:
    n, unknown = survival.n_failures, survival.n_not_followed
    counts = (f"{n} of {survival.n_replicas}", str(unknown), str(survival.n_lost))
    causes = ", ".join(f"{cause} {k}" for cause, k in survival.causes.items())
    if not survival.known:
        return (*counts, *["-"] * 6, causes or "unknown")
    median = survival.median_ps
    return (
        *counts,
        bounded(survival.score, n),
        bounded(survival.survival_at_tau, n),
        f"{survival.tau_ps:.4g} ps",
        "not reached" if median is None else f"{median:.3g} ps",
        number(survival.hazard_upper_per_ps, ".2g"),
        number(survival.hazard_upper_per_atom_ps, ".2g"),
        causes or "none",
    )


def notes(survivals: Survivals) -> list[str]:
    """Notes for the reader, each once, with the rows to which they apply."""
    applies: dict[str, list[tuple[str, str]]] = {}
    rows = [(kind, where) for kind, each in survivals.items() for where in each]
    for kind, where in rows:
        for note in survivals[kind][where].notes:
            applies.setdefault(note, []).append((kind, where))
    return [
        note if places == rows else f"{_places(places, survivals)}: {note}"
        for note, places in applies.items()
    ]


def _places(places: list[tuple[str, str]], survivals: Survivals) -> str:
    named = []
    for kind, by_temperature in survivals.items():
        among = [where for each, where in places if each == kind]
        if len(among) == len(by_temperature):
            named.append(kind)
        elif among:
            named.append(f"{kind}, {', '.join(among)}")
    return "; ".join(named)
