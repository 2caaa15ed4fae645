"""Figures of inspected models: redundant channels and correlation spectra.

matplotlib is an extra, imported when a figure is drawn. Its global state is neither
read nor changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nequip_decorr.plotting import LINES, new_figure

if TYPE_CHECKING:
    from nequip_decorr.inspection.result import Inspection, LayerReport

_DPI = 100
_WIDTH_IN = 12.0
_MARGIN_IN = 1.2
# wider panels waste space, narrower ones cannot hold their titles
_LARGEST_PANEL_IN, _SMALLEST_PANEL_IN = 3.6, 2.1
_DEAD_COLOUR = "#9fb4c7"
# the spectra's lower edge; float32 features resolve little below it
_SMALLEST_EIGENVALUE = 1e-4


def cluster_order(correlation: NDArray[np.float64]) -> NDArray[np.intp]:
    """Order channels so that redundant ones are side by side.

    Leaves of the average-linkage tree of the distance 1 - |rho|, turned so that
    neighbours are close (scipy's ``optimal_ordering``; Bar-Joseph et al. 2001). Dead
    channels, which have a diagonal of 0, come last.

    Args:
        correlation: symmetric ``(C, C)``.

    Returns:
        a permutation of the C channels.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    alive = np.diagonal(correlation) > 0
    live, dead = np.flatnonzero(alive), np.flatnonzero(~alive)
    if len(live) < 3:
        return np.concatenate([live, dead])
    distance = 1 - np.abs(correlation[np.ix_(live, live)])
    condensed = squareform(distance, checks=False).clip(min=0)
    tree = linkage(condensed, method="average", optimal_ordering=True)
    return np.concatenate([live[leaves_list(tree)], dead])


def correlation_figure(inspections: Mapping[str, Inspection]) -> Any:
    """Heat maps of |rho| per layer, a row for each model, and their spectra below.

    Each map has its own order of channels (:func:`cluster_order`), because channels of
    different models do not correspond. The last row overlays the eigenvalues of the
    correlation matrices, all 1 for uncorrelated channels.

    Args:
        inspections: label -> inspected model, top to bottom; at least one.

    Returns:
        a ``matplotlib.figure.Figure`` with the Agg canvas; as PNG 1200 px wide for
        three to five layers.
    """
    columns = max(len(each.layers) for each in inspections.values())
    rows = len(inspections) + 1
    panel = (_WIDTH_IN - _MARGIN_IN) / columns
    panel = max(_SMALLEST_PANEL_IN, min(panel, _LARGEST_PANEL_IN))
    size = (panel * columns + _MARGIN_IN, (panel + 0.4) * rows + 0.6)
    figure = new_figure(*size, dpi=_DPI)
    axes = figure.subplots(rows, columns, squeeze=False)
    image: Any = None
    for row, (label, inspection) in zip(axes, inspections.items(), strict=False):
        for axis, layer in zip(row, inspection.layers, strict=False):
            image = _heat_map(axis, layer)
        for axis in row[len(inspection.layers) :]:
            axis.set_axis_off()
        row[0].set_ylabel(label, fontsize=13, fontweight="bold")
    figure.colorbar(image, ax=axes[:-1], label="|ρ|", shrink=0.8, pad=0.01)
    for column, axis in enumerate(axes[-1]):
        _spectra(axis, inspections, column)
        axis.sharey(axes[-1][0])
    largest = max(
        layer.eigenvalues[0] for each in inspections.values() for layer in each.layers
    )
    axes[-1][0].set_ylim(_SMALLEST_EIGENVALUE, 2 * max(largest, 1))
    axes[-1][0].set_ylabel("eigenvalue", fontsize=10)
    axes[-1][0].legend(fontsize=9, frameon=False)
    fields = ", ".join(dict.fromkeys(each.field for each in inspections.values()))
    figure.suptitle(
        f"|ρ| between channels of {fields}, clustered:\n"
        f"dark blocks are redundant channels",
        fontsize=12,
    )
    figure.supxlabel("eigenvalues of ρ, largest first", fontsize=10)
    return figure


def _heat_map(axis: Any, layer: LayerReport) -> Any:
    matrix = np.asarray(layer.correlation)
    order = cluster_order(matrix)
    shown = np.abs(matrix)[np.ix_(order, order)]
    alive = layer.channels - len(layer.dead_channels)
    shown[alive:, :] = shown[:, alive:] = np.nan
    image = axis.imshow(shown, vmin=0, vmax=1, cmap="magma_r", interpolation="nearest")
    axis.set_facecolor(_DEAD_COLOUR)
    dead = f", {len(layer.dead_channels)} dead (grey)" if layer.dead_channels else ""
    axis.set_title(
        f"layer {layer.name}\nmean |ρ| {layer.mean_abs:.2f}{dead}\n"
        f"effective rank {layer.effective_rank:.1f} of {layer.channels}",
        fontsize=10,
    )
    # a clustered position is not the channel's number
    axis.set_xticks([])
    axis.set_yticks([])
    return image


def _spectra(axis: Any, inspections: Mapping[str, Inspection], column: int) -> None:
    from matplotlib.ticker import MaxNLocator

    for (label, inspection), (colour, dashes) in zip(
        inspections.items(), cycle(LINES), strict=False
    ):
        if column >= len(inspection.layers):
            continue
        eigenvalues = np.asarray(inspection.layers[column].eigenvalues)
        axis.plot(
            np.arange(1, len(eigenvalues) + 1),
            # 0 has no logarithm; values below the axis are cut off
            eigenvalues.clip(min=_SMALLEST_EIGENVALUE**4),
            color=colour,
            linestyle=dashes,
            label=label,
        )
    axis.axhline(1, color="0.6", linewidth=0.8, zorder=0, label="uncorrelated")
    axis.set_yscale("log")
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axis.tick_params(labelsize=9)
