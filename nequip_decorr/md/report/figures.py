"""Figures of a run: survival curves, traces, and where a replica failed.

Every function returns a figure and draws on nothing global. matplotlib is the extra
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

SURVIVED_COLOUR = "#0072B2"
FAILED_COLOUR = "#D55E00"
N_RISK_TIMES = 6


def survival_figure(survivals: Mapping[str, Survival]) -> Figure:
    """Kaplan-Meier curves with pointwise 95 % bands, and replicas at risk below.

    Args:
        survivals: label -> curve; at least one.
    """
    figure = new_figure(7.0, 3.6 + 0.2 * len(survivals))
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
        ylabel="share of replicas surviving",
    )
    axis.grid(alpha=0.3)
    # below the curves where they are high, above where they are low
    axis.legend(loc="best", frameon=True, framealpha=0.9, fontsize="small")
    _at_risk(axis, survivals, np.linspace(0, end, N_RISK_TIMES))
    return figure


def traces_figure(result: RunResult) -> Figure:
    """Temperature and energy of every replica against time.

    Failed replicas are drawn over those that survived, with a mark where they failed.
    The last samples of an explosion are cut off, and the axis label says so.
    """
    figure = new_figure(7.0, 5.0)
    upper, lower = figure.subplots(2, 1, sharex=True)
    replicas = [r for r in result.replicas if r.trace.time_ps]
    _traces(upper, replicas, [np.array(r.trace.temperature_K) for r in replicas])
    nve = result.ensemble == "nve"
    _traces(lower, replicas, [_energy_change(r, total=nve) for r in replicas])
    if result.ensemble != "ramp":
        for kelvin in sorted({r.temperature_K for r in replicas}):
            upper.axhline(kelvin, color="black", linewidth=0.8, linestyle=":")
    upper.set_ylabel("temperature / K" + _cut_note(upper))
    name = "total" if nve else "potential"
    lower.set_ylabel(f"{name} energy change\n/ (meV/atom)" + _cut_note(lower))
    longest = max((r.trace.time_ps[-1] for r in replicas), default=0.0)
    lower.set(xlabel="time / ps", xlim=(0, longest or result.horizon_ps))
    for axis in (upper, lower):
        axis.grid(alpha=0.3)
    failed = sum(r.failed for r in replicas)
    handles = []
    if failed < len(replicas):
        handles.append(
            _line(SURVIVED_COLOUR, "", f"survived ({len(replicas) - failed})")
        )
    if failed:
        handles.append(_line(FAILED_COLOUR, "x", f"failed ({failed})"))
    if handles:
        upper.legend(handles=handles, loc="best", fontsize="small", framealpha=0.9)
    return figure


def distribution_figure(pairs: Mapping[str, Mapping[str, Any]], kind: str) -> Figure:
    """Pair distributions of model and reference, a panel for each element pair.

    Args:
        pairs: element pair -> fields of a
            :class:`~nequip_decorr.md.statistics.rdf.PairError`.
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
            color=SURVIVED_COLOUR,
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
    return f"{survival.n_failures} of {survival.n_replicas} failed: {name}"


def _at_risk(axis: Any, survivals: Mapping[str, Survival], times: Array) -> None:
    """Numbers at risk under the axis, a row for each curve."""
    axis.set_xticks(times)
    axis.annotate(
        "still running",
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
    """Replicas that had neither failed nor been censored just before a time."""
    return sum(time >= time_ps * (1 - 1e-9) for time in survival.times_ps)


def _traces(axis: Any, replicas: Sequence[Replica], values: Sequence[Array]) -> None:
    for failed in (False, True):
        for replica, series in zip(replicas, values, strict=True):
            if replica.failed == failed:
                axis.plot(
                    replica.trace.time_ps,
                    series,
                    color=FAILED_COLOUR if failed else SURVIVED_COLOUR,
                    linewidth=0.7,
                    alpha=0.6,
                )
    low, high = _limits(replicas, values)
    axis.set_ylim(low, high)
    for replica, series in zip(replicas, values, strict=True):
        if replica.failed:
            axis.plot(
                replica.trace.time_ps[-1],
                np.clip(series[-1], low, high),
                marker="x",
                color=FAILED_COLOUR,
                clip_on=False,
            )


def _limits(
    replicas: Sequence[Replica], values: Sequence[Array]
) -> tuple[float, float]:
    """Limits for the stable part of the traces, whatever an explosion does."""
    if not values:
        return 0.0, 1.0
    pooled = np.concatenate(
        [
            series[: int(0.9 * len(series)) + 1] if replica.failed else series
            for replica, series in zip(replicas, values, strict=True)
        ]
    )
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


def _line(colour: str, marker: str, label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, marker=marker, label=label)
