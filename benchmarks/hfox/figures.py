"""Figures of the results, drawn with the package's own style."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from nequip_decorr.plotting import LINES, new_figure

from .analysis import (
    BASELINE,
    Record,
    barrier,
    force_error,
    log_force_error,
    log_time,
    mean_correlation,
    paired,
)
from .models import CONTROLS, DECORRELATED, VARIANTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONDITION_NAMES = {
    "hfo1.56_1200K": "HfO1.56, 1200 K",
    "hfo1.12_1200K": "HfO1.12, 1200 K",
    "hfo2_2400K": "HfO2, 2400 K",
}
#: Curves have the same colour in every figure.
CURVES = (BASELINE, "constant-0.3", "cosine-down", "constant-every-4")
#: Ticks of logarithmic axes, from far apart to close together.
TICKS = (
    (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8),
    tuple(round(0.1 * i, 1) for i in range(1, 20)),
    tuple(round(0.02 * i, 2) for i in range(1, 100)),
)
FAMILIES = {"decorrelated": DECORRELATED, "no term": (BASELINE, *CONTROLS)}


def family(variant: str) -> str:
    """What a variant is an example of."""
    for name, variants in FAMILIES.items():
        if variant in variants:
            return name
    return "sharpness-aware"


def plain_ticks(axis: Any, low: float, high: float) -> None:
    """Ticks of a logarithmic axis as a person writes numbers, four if there are."""
    inside = [[t for t in ticks if low <= t <= high] for ticks in TICKS]
    chosen = next((ticks for ticks in inside if len(ticks) > 3), inside[-1])
    axis.set_ticks(chosen, [f"{t:g}" for t in chosen])
    axis.set_tick_params(which="minor", size=0, labelsize=0)
    axis.set_minor_formatter("")


def line_styles(variants: Sequence[str]) -> dict[str, Any]:
    """Colour and dashes of each; those of :data:`CURVES` are alike in all figures."""
    fixed = dict(zip(CURVES, LINES, strict=False))
    taken = [fixed[v] for v in variants if v in fixed]
    others = cycle([line for line in LINES if line not in taken] or LINES)
    return {v: fixed[v] if v in fixed else next(others) for v in variants}


def forest_figure(records: Sequence[Record]) -> Figure:
    """Ratios to the baseline: time to failure, and force error in distribution."""
    quantities = {
        "time to failure out of distribution": log_time,
        "force error in distribution": log_force_error,
    }
    shown = [v for v in VARIANTS if v != BASELINE and paired(records, v, log_time)]
    figure = new_figure(8.0, 1.2 + 0.3 * len(shown))
    axes = figure.subplots(1, 2, sharey=True)
    colours = dict(zip((*FAMILIES, "sharpness-aware"), LINES, strict=False))
    for axis, (title, quantity) in zip(axes, quantities.items(), strict=True):
        for row, variant in enumerate(shown):
            log_ratio = paired(records, variant, quantity)
            if log_ratio is None:
                continue
            ratio = log_ratio.exp()
            colour = colours[family(variant)][0]
            if log_ratio.seeds > 1:
                axis.plot([ratio.low, ratio.high], [row, row], color=colour, lw=2)
            axis.plot([ratio.value], [row], "o", color=colour)
        axis.axvline(1.0, color="0.5", lw=1)
        axis.set_xscale("log")
        plain_ticks(axis.xaxis, *axis.get_xlim())
        axis.set_xlabel(f"{title},\nratio to no extension")
    axes[0].set_yticks(range(len(shown)), shown)
    axes[0].invert_yaxis()
    for name in dict.fromkeys(map(family, shown)):
        axes[1].plot([], [], "o-", lw=2, color=colours[name][0], label=name)
    axes[1].legend(fontsize=8, frameon=False)
    return figure


def survival_figure(records: Sequence[Record], variants: Sequence[str]) -> Figure:
    """Share of surviving replicas of all seeds, one panel a condition."""
    conditions = records[0].conditions
    figure = new_figure(9.0, 3.2)
    axes = figure.subplots(1, len(conditions), sharex=True, sharey=True)
    styles = line_styles(variants)
    for axis, condition in zip(axes, conditions, strict=True):
        for variant, (colour, dashes) in styles.items():
            models = [r for r in records if r.variant == variant]
            if not models:
                continue
            times = np.concatenate([r.times_ps(condition) for r in models])
            horizon = models[0].data["md"][condition]["horizon_ps"]
            data = stats.CensoredData.right_censored(times, times >= horizon)
            curve = stats.ecdf(data).sf
            axis.step(
                np.concatenate([[0.01], curve.quantiles]),
                np.concatenate([[1.0], curve.probabilities]),
                where="post",
                color=colour,
                linestyle=dashes,
                label=variant,
            )
        axis.set(xscale="log", xlabel="time (ps)", ylim=(0, 1.02))
        axis.set_title(CONDITION_NAMES.get(condition, condition), fontsize=10)
    axes[0].set_ylabel("surviving replicas")
    axes[-1].legend(fontsize=8, frameon=False)
    return figure


def scatter_figure(records: Sequence[Record]) -> Figure:
    """Time to failure against what might explain it; one point a model."""
    panels = {
        "mean |rho| of edge features": mean_correlation,
        "force error in distribution (eV/A)": force_error,
        "barrier of Hf-Hf scans (eV)": barrier,
    }
    figure = new_figure(9.0, 3.2)
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (label, quantity) in zip(axes, panels.items(), strict=True):
        for name, (colour, _), marker in zip(
            (*FAMILIES, "sharpness-aware"), LINES, "os^", strict=False
        ):
            models = [r for r in records if family(r.variant) == name]
            if not models:
                continue
            axis.plot(
                [quantity(r) for r in models],
                [np.exp(log_time(r)) for r in models],
                marker,
                color=colour,
                alpha=0.7,
                label=name,
            )
        axis.set(xlabel=label, yscale="log")
        plain_ticks(axis.yaxis, *axis.get_ylim())
    axes[0].set_ylabel("time to failure (ps, geometric mean)")
    axes[0].legend(fontsize=8, frameon=False)
    return figure
