"""Events, their pictures, and the end of every replica."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.io

from nequip_decorr.md.report.images import svg
from nequip_decorr.md.report.snapshot import MAX_FAILING, neighbourhood_figure
from nequip_decorr.md.report.tables import Table
from nequip_decorr.md.results import KINDS, Event, Replica, RunResult

#: Pictures of events of one kind on a page; the later ones are only in the table.
MAX_PICTURES = 8

_PLURALS = {
    "unphysical": ("unphysical geometry", "unphysical geometries"),
    "explosion": ("explosion", "explosions"),
}


@dataclass(frozen=True)
class Picture:
    """An image of where an event happened, with its caption."""

    replica: int
    title: str
    message: str
    image: str


@dataclass(frozen=True)
class Gallery:
    """Pictures of the earliest events of one kind, and reasons for missing ones."""

    kind: str
    pictures: list[Picture]
    missing: list[str]


def by_time(replicas: Sequence[Replica]) -> list[tuple[Replica, Event]]:
    """All events with their replicas, earliest first."""
    found = [(r, e) for r in replicas for k in KINDS if (e := r.event(k)) is not None]
    return sorted(found, key=lambda pair: pair[1].time_ps)


def count_in_words(replicas: Sequence[Replica]) -> str:
    """Counts by kind, as in ``3 unphysical geometries, 1 explosion``."""
    counts = Counter(event.kind for _, event in by_time(replicas))
    return ", ".join(f"{counts[k]} {_PLURALS[k][counts[k] != 1]}" for k in KINDS)


def event_table(replicas: Sequence[Replica]) -> Table:
    """A row for each event, earliest first."""
    events = by_time(replicas)
    repeated = any(event.half_step_cause is not None for _, event in events)
    columns = ("time (ps)", "event", "cause", "replica", "structure", "T (K)", "atoms")
    return Table(
        columns=(
            *columns,
            "what happened",
            *(("at half the time step",) if repeated else ()),
        ),
        rows=[
            (
                f"{event.time_ps:.4g}",
                event.kind,
                event.cause,
                str(replica.index),
                replica.structure_name,
                f"{replica.temperature_K:g}",
                _atoms(event),
                event.message,
                *((_half_step(event),) if repeated else ()),
            )
            for replica, event in events
        ],
        long=(7,),
    )


def galleries(result: RunResult, folder: Path) -> list[Gallery]:
    """Pictures of the last good frames before events, for each kind that happened."""
    events = by_time(result.replicas)
    made = (
        _gallery(kind, [pair for pair in events if pair[1].kind == kind], folder)
        for kind in KINDS
    )
    return [each for each in made if each.pictures or each.missing]


def replica_table(result: RunResult) -> Table:
    """A row for each replica: what happened to it, and why it ended."""
    columns = ("replica", "structure", "formula", "T (K)", "seed")
    return Table(
        columns=(*columns, *KINDS, "end (ps)", "why"),
        rows=[
            (
                str(r.index),
                r.structure_name,
                r.formula,
                f"{r.temperature_K:g}",
                str(r.seed),
                *(_what_happened(r, kind) for kind in KINDS),
                f"{r.time_ps:.4g}",
                _end(r),
            )
            for r in result.replicas
        ],
    )


def _what_happened(replica: Replica, kind: str) -> str:
    event = replica.event(kind)
    if event is not None:
        return f"{event.cause} at {event.time_ps:.4g} ps"
    ended_by_other = replica.censored_by is None and replica.first is not None
    if ended_by_other or replica.censored_by == "not_followed":
        return f"not followed after {replica.time_ps:.4g} ps"
    return "none"


def _end(replica: Replica) -> str:
    last = replica.explosion or replica.unphysical
    if replica.censored_by is None and last is not None:
        return _PLURALS[last.kind][0]
    if replica.censored_by == "horizon":
        return "reached the horizon"
    return f"censored: {replica.censored_by}"


def _gallery(
    kind: str, events: Sequence[tuple[Replica, Event]], folder: Path
) -> Gallery:
    pictures: list[Picture] = []
    missing: Counter[str] = Counter()
    for replica, event in events:
        if len(pictures) == MAX_PICTURES:
            break
        image, reason = _picture(event, folder)
        if image is None:
            missing[reason] += 1
        else:
            title = f"replica {replica.index}, {event.time_ps:.4g} ps, {event.cause}"
            pictures.append(Picture(replica.index, title, event.message, image))
    later = len(events) - len(pictures) - missing.total()
    lines = [f"{n} without a picture: {why}" for why, n in missing.items()]
    if later:
        later_ones = "one is" if later == 1 else f"{later} later ones are"
        lines.append(f"{later_ones} only in the table")
    return Gallery(kind, pictures, lines)


def _picture(event: Event, folder: Path) -> tuple[str | None, str]:
    """The picture of an event, or why there is none."""
    if not event.atoms:
        return None, "no single atoms involved"
    if len(event.atoms) > MAX_FAILING:
        return None, f"{len(event.atoms)} atoms involved: no one place to show"
    if event.last_good_frame is None:
        return None, "no frame was kept"
    try:
        atoms = ase.io.read(folder / event.last_good_frame)
        return svg(neighbourhood_figure(atoms, event.atoms)), ""
    except (OSError, ValueError, ase.io.formats.UnknownFileTypeError) as error:
        return None, f"{event.last_good_frame} cannot be shown: {error}"


def _atoms(event: Event) -> str:
    if len(event.atoms) > MAX_FAILING:
        return f"{len(event.atoms)} atoms"
    return ", ".join(map(str, event.atoms)) or "-"


def _half_step(event: Event) -> str:
    if event.half_step_cause is None:
        return "-"
    if event.half_step_cause == "none":
        return "survives"
    if event.half_step_time_ps is None:
        return event.half_step_cause
    return f"{event.half_step_cause} at {event.half_step_time_ps:.4g} ps"
