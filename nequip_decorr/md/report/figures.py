"""Figures of a run: survival curves, traces, pair distributions.

Every function returns a figure and uses no global state. matplotlib is the extra
``plot``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from nequip_decorr.md.frames import Array
from nequip_decorr.md.results import Replica, RunResult
from nequip_decorr.md.statistics.survival import Survival
from nequip_decorr.plotting import LINES, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOUND_COLOUR = "#0072B2"
UNPHYSICAL_COLOUR = "#CC79A7"
EXPLOSION_COLOUR = "#D55E00"
#: kind of event -> its mark in traces
MARKS: dict[str, dict[str, Any]] = {
    "unphysical": {"marker": "o", "color": UNPHYSICAL_COLOUR, "fillstyle": "none"},
    "explosion": {"marker": "x", "color": EXPLOSION_COLOUR, "markersize": 8},
}
N_RISK_TIMES = 6


def survival_figure(survivals: Mapping[str, Survival]) -> Figure:
    """Kaplan-Meier curves with pointwise 95 % bands, and replicas at risk below.

    Args:
        survivals: label -> curve; at least one.
    """
    figure = new_figure(5.2, 3.2 + 0.2 * len(survivals))
    axis = figure.add_subplot()
    end = max(s.horizon_ps for s in survivals.values())
    for (label, survival), (colour, dashes) in zip(
        survivals.items(), cycle(LINES), strict=False
    ):
        curve = survival.curve
        axis.step(
            curve.time_ps,
            curve.survival,
            where="post",
            color=colour,
            linestyle=dashes,
            linewidth=2,
            label=_legend(label, survival),
        )
        axis.fill_between(
            curve.time_ps,
            curve.low,
            curve.high,
            step="post",
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
    axis.set(
        xlim=(0, end),
        ylim=(0, 1.03),
        xlabel="time / ps",
        ylabel="share of replicas without the event",
    )
    axis.grid(alpha=0.3)
    # below the curves where they are high, above where they are low
    axis.legend(loc="best", frameon=True, framealpha=0.9, fontsize="small")
    _at_risk(axis, survivals, np.linspace(0, end, N_RISK_TIMES))
    return figure


def traces_figure(result: RunResult) -> Figure:
    """Temperature and energy of every replica against time, events marked.

    A line changes its colour where the geometry becomes unphysical. The last samples of
    an explosion are cut off, and the axis label says so.
    """
    figure = new_figure(7.0, 5.0)
    upper, lower = figure.subplots(2, 1, sharex=True)
    replicas = [r for r in result.replicas if r.trace.time_ps]
    _traces(upper, replicas, [np.array(r.trace.temperature_K) for r in replicas])
    nve = result.ensemble == "nve"
    _traces(lower, replicas, [_energy_change(r, total=nve) for r in replicas])
    upper.set_ylabel("temperature / K" + _cut_note(upper))
    if result.ensemble != "ramp":
        for kelvin in sorted({r.temperature_K for r in replicas}):
            upper.axhline(kelvin, color="black", linewidth=0.8, linestyle=":")
    name = "total" if nve else "potential"
    lower.set_ylabel(f"{name} energy change\n/ (meV/atom)" + _cut_note(lower))
    longest = max((r.trace.time_ps[-1] for r in replicas), default=0.0)
    lower.set(xlabel="time / ps", xlim=(0, longest or result.horizon_ps))
    for axis in (upper, lower):
        axis.grid(alpha=0.3)
    upper.legend(
        handles=_trace_handles(replicas), loc="best", fontsize="small", framealpha=0.9
    )
    return figure


def distribution_figure(pairs: Mapping[str, Mapping[str, Any]], kind: str) -> Figure:
    """Pair distributions of model and reference, a panel for each element pair.

    Args:
        pairs: element pair -> fields of a
            :class:`~nequip_decorr.md.statistics.rdf_error.PairError`.
        kind: ``g(r)`` or ``h(r)``.
    """
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = new_figure(7.0, 2.4 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, pair) in zip(axes, pairs.items(), strict=False):
        axis.plot(pair["r_A"], pair["reference"], color="black", label="reference")
        axis.plot(
            pair["r_A"],
            pair["model"],
            color=SOUND_COLOUR,
            linestyle="--",
            label="model",
        )
        axis.set(title=name, xlabel="r / Å", ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(kind if kind == "g(r)" else "h(r) / (1/Å)")
    axes[0].legend(fontsize="small")
    for axis in axes[len(pairs) :]:
        axis.set_axis_off()
    return figure


def _legend(label: str, survival: Survival) -> str:
    # a dollar would start a formula, a leading underscore hide the entry
    name = label.replace("$", r"\$")
    return f"{survival.n_failures} of {survival.n_replicas}: {name}"


def _at_risk(axis: Any, survivals: Mapping[str, Survival], times: Array) -> None:
    """Numbers at risk under the axis, a row for each curve."""
    axis.set_xticks(times)
    axis.annotate(
        "still followed",
        (0, 0),
        xytext=(-14, -42),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        fontsize="small",
    )
    for row, (survival, (colour, _)) in enumerate(
        zip(survivals.values(), cycle(LINES), strict=False)
    ):
        for time in times:
            axis.annotate(
                str(at_risk(survival, float(time))),
                (time, 0),
                xytext=(0, -42 - 13 * row),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                color=colour,
                fontsize="small",
            )


def at_risk(survival: Survival, time_ps: float) -> int:
    """Replicas without the event that were followed up to just before a time."""
    return sum(time >= time_ps * (1 - 1e-9) for time in survival.times_ps)


def _traces(axis: Any, replicas: Sequence[Replica], values: Sequence[Array]) -> None:
    # those with an event over those without
    by_events = sorted(
        zip(replicas, values, strict=True), key=lambda pair: pair[0].first is not None
    )
    for replica, series in by_events:
        time = np.array(replica.trace.time_ps)
        event = replica.unphysical
        after = len(time) if event is None else np.searchsorted(time, event.time_ps)
        # both parts have the sample at which the one becomes the other
        for part, colour in (
            (slice(0, after + 1), SOUND_COLOUR),
            (slice(after, None), UNPHYSICAL_COLOUR),
        ):
            axis.plot(time[part], series[part], color=colour, linewidth=0.7, alpha=0.6)
    low, high = _limits(replicas, values)
    axis.set_ylim(low, high)
    for replica, series in by_events:
        for kind, mark in MARKS.items():
            if (event := replica.event(kind)) is not None:
                value = np.interp(event.time_ps, replica.trace.time_ps, series)
                where = event.time_ps, np.clip(value, low, high)
                axis.plot(*where, linestyle="none", clip_on=False, **mark)


def _trace_handles(replicas: Sequence[Replica]) -> list[Any]:
    """Legend of the lines and marks, with how many replicas had each kind of event."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=SOUND_COLOUR, label="no event")]
    counts = {k: sum(r.event(k) is not None for r in replicas) for k in MARKS}
    words = {"unphysical": "unphysical geometry", "explosion": "explosion"}
    for kind, n in counts.items():
        if n:
            label = f"{words[kind]} ({n} of {len(replicas)})"
            handles.append(Line2D([], [], linestyle="", label=label, **MARKS[kind]))
    return handles


def _limits(
    replicas: Sequence[Replica], values: Sequence[Array]
) -> tuple[float, float]:
    """Limits for the stable part of the traces, whatever an explosion does."""
    if not values:
        return 0.0, 1.0
    pooled = np.concatenate(
        [
            series if replica.first is None else series[: int(0.9 * len(series)) + 1]
            for replica, series in zip(replicas, values, strict=True)
        ]
    )
    pooled = pooled[np.isfinite(pooled)]  # a trajectory may have no energies
    if not len(pooled):
        return 0.0, 1.0
    low, high = np.percentile(pooled, [0.5, 99.5])
    room = 0.35 * (high - low) if high > low else 1.0
    return float(low - room), float(high + room)


def _energy_change(replica: Replica, *, total: bool) -> Array:
    trace = replica.trace
    energy = np.array(trace.total_energy_eV if total else trace.potential_energy_eV)
    change: Array = (energy - energy[0]) * 1000 / replica.n_atoms
    return change


def _cut_note(axis: Any) -> str:
    """Says so when a line leaves the axis."""
    low, high = axis.get_ylim()
    cut = any(
        np.any((y := np.asarray(line.get_ydata())) > high) or np.any(y < low)
        for line in axis.lines
    )
    return "\n(explosions cut off)" if cut else ""
