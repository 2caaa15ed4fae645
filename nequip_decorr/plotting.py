"""Shared by all figures. matplotlib is an extra, imported when a figure is drawn."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from nequip_decorr.errors import UserError
from nequip_decorr.paths import check_output_file, write_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: File types of figures.
SUFFIXES = (".png", ".svg", ".pdf")

# Okabe and Ito's colours, with dashes for readers who cannot tell these apart
LINES = (
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", ":"),
    ("#E69F00", (0, (5, 1, 1, 1, 1, 1))),
)


def require_matplotlib() -> None:
    """Raise UserError, naming the extra to install, if matplotlib is missing."""
    if find_spec("matplotlib") is None:
        raise UserError(
            "figures need matplotlib, which is not installed; run "
            'pip install "nequip-decorr[plot]"'
        )


def new_figure(width_in: float, height_in: float, dpi: float | None = None) -> Figure:
    """An empty figure on an Agg canvas, without pyplot.

    Args:
        width_in: width in inches.
        height_in: height in inches.
        dpi: dots per inch; None takes matplotlib's own.

    Raises:
        UserError: if matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def check_figure_path(path: str | Path) -> Path:
    """Check, before the work, that a figure can be written to a path.

    Raises:
        UserError: for a suffix not in :data:`SUFFIXES`, if the file cannot be written
            (see :func:`nequip_decorr.paths.check_output_file`), or if matplotlib is not
            installed.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"expected a figure file ending in {', '.join(SUFFIXES)}, got {path}"
        )
    check_output_file(path)
    require_matplotlib()
    return path


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, SVG or PDF, by the suffix of ``path``.

    Raises:
        UserError: see :func:`check_figure_path` and :func:`.paths.write_output`.
    """
    path = check_figure_path(path)
    # a figure that cannot be drawn leaves an earlier file as it was
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi="figure", format=path.suffix[1:].lower())
    write_output(path, buffer.getvalue())
