"""Sensitivity of the score for unphysical geometry to the overlap limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nequip_decorr.errors import UserError
from nequip_decorr.md.protocol import Protocol
from nequip_decorr.md.rejudge import rejudge_replica, seen_by_tests
from nequip_decorr.md.report.answer import temperature_name
from nequip_decorr.md.report.images import svg
from nequip_decorr.md.report.tables import Table
from nequip_decorr.md.results import RESULT_NAME, Replica, RunResult, load
from nequip_decorr.md.statistics.survival import Survival, estimate_survival
from nequip_decorr.md.statistics.wording import bounded
from nequip_decorr.plotting import LINES, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Overlap limits that are tried, over the sum of the covalent radii.
RATIOS = tuple(k / 40 for k in range(16, 37))


@dataclass(frozen=True)
class Point:
    """Result of the replicas at one temperature under one overlap limit.

    Attributes:
        ratio: ``min_distance_ratio``.
        survival: without an unphysical geometry; None where a replica ended at an event
            that is none under this limit.
    """

    ratio: float
    survival: Survival | None


@dataclass(frozen=True)
class Sensitivity:
    """A figure, its numbers, and whether a part of it is not known."""

    image: str
    table: Table
    hatched: bool


def sensitivity_section(result: RunResult, folder: Path) -> Sensitivity | None:
    """The score of unphysical geometry against the overlap limit.

    Args:
        result: a run, or one that was judged again.
        folder: of the result; what the tests saw lies there, or beside the first run.

    Returns:
        None where the run has not kept what its tests saw.
    """
    try:
        curves = sensitivity(result, folder)
    except UserError:
        return None
    limit = result.protocol["criteria"]["min_distance_ratio"]
    return Sensitivity(
        image=svg(sensitivity_figure(curves, limit, result.horizon_ps)),
        table=_table(curves),
        hatched=any(p.survival is None for points in curves.values() for p in points),
    )


def sensitivity(result: RunResult, folder: Path) -> dict[str, list[Point]]:
    """Points at each temperature, by overlap limit; a start structure ends them.

    Raises:
        UserError: the run has not kept what its tests saw.
    """
    judged_before = result.machine.get("rejudged_from")
    path = Path(judged_before) if judged_before else folder / RESULT_NAME
    # replicas that were judged again may have been cut
    replicas = (load(path) if judged_before else result).replicas
    protocol = Protocol.from_dict(result.protocol)
    seen = [seen_by_tests(path, replica) for replica in replicas]
    own = protocol.criteria.min_distance_ratio
    judged: dict[float, list[Replica]] = {}
    for ratio in sorted({*RATIOS, *(() if own is None else (own,))}):
        criteria = replace(protocol.criteria, min_distance_ratio=ratio)
        changed = replace(protocol, criteria=criteria)
        try:
            judged[ratio] = [
                rejudge_replica(replica, saw, changed)
                for replica, saw in zip(replicas, seen, strict=True)
            ]
        except UserError:
            break  # a start structure does not keep this limit, nor any larger one
    return {
        temperature_name(result, kelvin): _points(judged, kelvin, result.horizon_ps)
        for kelvin in sorted({r.temperature_K for r in replicas})
    }


def sensitivity_figure(
    curves: Mapping[str, list[Point]], own: float | None, horizon_ps: float
) -> Figure:
    """Scores with their 95 % intervals against the overlap limit.

    Limits under which the run would have gone on are hatched: the score there is
    between that of the next stricter limit and one.

    Args:
        curves: temperature -> points, as :func:`sensitivity` has them.
        own: the limit of the run.
        horizon_ps: of the run.
    """
    figure = new_figure(7.0, 3.6)
    axis = figure.add_subplot()
    for (label, points), (colour, dashes) in zip(
        curves.items(), cycle(LINES), strict=False
    ):
        known = {p.ratio: p.survival for p in points if p.survival is not None}
        ratio, scores = list(known), [each.score for each in known.values()]
        axis.plot(
            ratio,
            [s.value for s in scores],
            color=colour,
            linestyle=dashes,
            linewidth=2,
            marker=".",
            label=label + _short_tau(known.values(), horizon_ps),
        )
        low, high = [s.low for s in scores], [s.high for s in scores]
        axis.fill_between(ratio, low, high, color=colour, alpha=0.15, linewidth=0)
        _hatch(axis, points, known, colour)
    if own is not None:
        axis.axvline(own, color="black", linewidth=1, linestyle=":", label="this run")
    axis.set(
        xlim=(RATIOS[0], RATIOS[-1]),
        ylim=(0, 1.03),
        xlabel="overlap limit / sum of covalent radii",
        ylabel="score",
    )
    axis.grid(alpha=0.3)
    axis.legend(loc="best", fontsize="small", framealpha=0.9)
    return figure


def _points(
    judged: Mapping[float, Sequence[Replica]], kelvin: float, horizon_ps: float
) -> list[Point]:
    at_kelvin = {
        ratio: [r for r in replicas if r.temperature_K == kelvin]
        for ratio, replicas in judged.items()
    }
    survivals = {
        ratio: estimate_survival(replicas, horizon_ps, "unphysical")
        for ratio, replicas in at_kelvin.items()
        if all(r.censored_by != "not_followed" for r in replicas)
    }
    # one tau for all limits, or the scores could not be compared
    tau = min((each.tau_ps for each in survivals.values()), default=horizon_ps)
    for ratio, survival in survivals.items():
        if survival.tau_ps > tau:
            survivals[ratio] = estimate_survival(at_kelvin[ratio], tau, "unphysical")
    return [Point(ratio, survivals.get(ratio)) for ratio in judged]


def _short_tau(survivals: Iterable[Survival], horizon_ps: float) -> str:
    """The time that the scores are of, where it is not the horizon of the run."""
    taus = {each.tau_ps for each in survivals if each.tau_ps < horizon_ps}
    return "".join(f", first {tau:.3g} ps" for tau in taus)


def _hatch(
    axis: Any, points: Sequence[Point], known: Mapping[float, Survival], colour: str
) -> None:
    edges = [p.ratio for p in points if p.survival is None]
    if not edges:
        return
    least = 0.0
    if known:
        widest_known = min(known)
        edges.append(widest_known)
        least = known[widest_known].score.value
    axis.fill_between(
        edges,
        np.full(len(edges), least),
        1.0,
        facecolor="none",
        edgecolor=colour,
        hatch="//",
        linewidth=0,
        alpha=0.5,
        label="not followed: between these",
    )


def _table(curves: Mapping[str, list[Point]]) -> Table:
    ratios = sorted({p.ratio for points in curves.values() for p in points})
    cells = {
        (p.ratio, name): _cell(p.survival)
        for name, points in curves.items()
        for p in points
    }
    return Table(
        columns=("overlap limit", *curves),
        rows=[
            (f"{ratio:g}", *(cells[ratio, name] for name in curves)) for ratio in ratios
        ],
    )


def _cell(survival: Survival | None) -> str:
    if survival is None:
        return "not followed"
    n = survival.n_failures
    return f"{bounded(survival.score, n)}, {n} of {survival.n_replicas}"
