"""Figures of a study. Each function returns a figure and uses no global state."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, product
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from nequip_decorr.md.results import KINDS
from nequip_decorr.plotting import LINES, new_figure
from nequip_decorr.study.answers import Answer, ended_by_the_other
from nequip_decorr.study.models import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Panels beside each other; more would be too small on a page.
MAX_COLUMNS = 3

#: Of the page, in inches; a narrower figure would be enlarged.
MIN_WIDTH = 6.0

#: Share of the horizon in which half of the events are too early for a linear axis.
EARLY = 0.05

#: Ratios beyond these are arrows at the edge.
WIDEST = 20.0


def styles(variants: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Colour and dashes of each variant; the first five differ in both."""
    colours = [colour for colour, _ in LINES]
    dashes = [dash for _, dash in LINES]
    more = [(c, d) for d, c in product(dashes, colours) if (c, d) not in LINES]
    return dict(zip(variants, cycle([*LINES, *more]), strict=False))


def survival_figure(
    models: Sequence[Model],
    variants: Sequence[str],
    conditions: Sequence[str],
    kind: str,
) -> Figure:
    """Share of replicas without an event, seeds pooled; one panel per condition.

    Time is logarithmic if half of the events come in the first 5 % of the horizon.
    """
    columns = min(MAX_COLUMNS, len(conditions))
    rows = -(-len(conditions) // columns)
    legend = 0.22 * -(-len(variants) // 3)
    figure = new_figure(max(3.2 * columns + 0.6, MIN_WIDTH), 2.6 * rows + legend)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    start = _log_start(models, conditions, kind)
    for axis, condition in zip(axes, conditions, strict=False):
        for variant, (colour, dashes) in styles(variants).items():
            found = [
                (replica[kind], model.horizon_ps[condition])
                for model in models
                if model.variant == variant
                for replica in model.replicas.get(condition, [])
            ]
            if not found:
                continue
            time, survival = _curve([each for each, _ in found])
            end = found[0][1]
            axis.step(
                np.maximum(np.append(time, end), start),
                np.append(survival, survival[-1]),
                where="post",
                color=colour,
                linestyle=dashes,
                label=variant,
            )
            axis.set_xlim(start, end)
        if start:
            axis.set_xscale("log")
        axis.set(ylim=(0, 1.03), xlabel="time / ps")
        axis.set_title(condition, fontsize=10)
        axis.grid(alpha=0.3)
    for axis in axes[len(conditions) :]:
        axis.set_visible(False)
    for axis in axes[::columns]:
        axis.set_ylabel(f"without {kind} event")
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _log_start(models: Sequence[Model], conditions: Sequence[str], kind: str) -> float:
    """Where a logarithmic axis begins (ps); 0 for a linear one."""
    shares = [
        (replica[kind]["time_ps"], model.horizon_ps[condition])
        for model in models
        for condition in conditions
        for replica in model.replicas.get(condition, [])
        if replica[kind]["happened"] and replica[kind]["time_ps"] > 0
    ]
    if not shares or np.median([time / end for time, end in shares]) > EARLY:
        return 0.0
    return 0.8 * float(min(time for time, _ in shares))


def _curve(found: Sequence[dict[str, Any]]) -> tuple[Any, Any]:
    """Kaplan-Meier curve from time 0."""
    times = np.array([each["time_ps"] for each in found])
    happened = np.array([each["happened"] for each in found])
    data = stats.CensoredData(times[happened], right=times[~happened])
    curve = stats.ecdf(data).sf
    # the last time is known of nobody who is left
    return np.append(0.0, curve.quantiles), np.append(1.0, curve.probabilities)


def forest_figure(given: Sequence[Answer], variants: Sequence[str]) -> Figure:
    """Ratios to the baseline with intervals, one row per question and variant.

    The primary question is marked. Intervals without a limit end in an arrow.
    """
    shown = [a for a in given if a.effect is not None]
    figure = new_figure(8.0, 1.1 + 0.27 * len(shown))
    axis = figure.add_subplot()
    colours = styles(variants)
    for row, answer in enumerate(shown):
        effect = answer.effect
        assert effect is not None
        colour = colours[answer.question.variant][0]
        if effect.low is not None or effect.high is not None:
            low = 0.0 if effect.low is None else effect.low
            high = np.inf if effect.high is None else effect.high
            edges = [_clipped(low), _clipped(high)]
            axis.plot(edges, [row, row], color=colour, linewidth=2)
            if low < 1 / WIDEST:
                axis.plot(edges[:1], [row], "<", color=colour)
            if high > WIDEST:
                axis.plot(edges[1:], [row], ">", color=colour)
        if effect.value is not None:
            value = _clipped(effect.value)
            mark = "D" if answer.question.primary else "o"
            axis.plot([value], [row], mark, color=colour)
    axis.axvline(1.0, color="0.5", linewidth=1)
    axis.set_xscale("log")
    _plain_ticks(axis)
    axis.set_xlabel("ratio to the baseline")
    axis.set_yticks(range(len(shown)), [_label(answer) for answer in shown])
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.tick_params(axis="y", labelsize=8)
    axis.grid(axis="x", alpha=0.3)
    return figure


def _clipped(ratio: float) -> float:
    return float(np.clip(ratio, 1 / WIDEST, WIDEST))


def _plain_ticks(axis: Any) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    low, high = axis.get_xlim()
    steps = [0.05, 0.1, 0.2, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 5, 10, 20]
    if high / low > 4:
        steps = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    axis.xaxis.set_major_locator(FixedLocator([x for x in steps if low <= x <= high]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _label(answer: Answer) -> str:
    return answer.question.text + (" (primary)" if answer.question.primary else "")


def kinds_with_events(models: Sequence[Model]) -> list[str]:
    """Kinds of event that happened at least once, and were followed."""
    found = [
        (replica, model.horizon_ps[condition])
        for model in models
        for condition, replicas in model.replicas.items()
        for replica in replicas
    ]
    happened = [k for k in KINDS if any(replica[k]["happened"] for replica, _ in found)]
    if any(ended_by_the_other(replica, "explosion", end) for replica, end in found):
        return [kind for kind in happened if kind != "explosion"]
    return happened
