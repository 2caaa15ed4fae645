"""What every figure of the package shares; matplotlib is an extra and imported late."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from nequip_decorr.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, and dashes for a reader who does not see them
LINES = (
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", ":"),
    ("#E69F00", (0, (5, 1, 1, 1, 1, 1))),
)


def require_matplotlib() -> None:
    """Raise UserError, saying what to install, where matplotlib is missing."""
    if find_spec("matplotlib") is None:
        raise UserError(
            "expected matplotlib for a figure, got an environment without it; run "
            'pip install "nequip-decorr[plot]"'
        )


def new_figure(width_in: float, height_in: float, dpi: float | None = None) -> Figure:
    """An empty figure on an Agg canvas, without pyplot.

    Args:
        width_in: width in inches.
        height_in: height in inches.
        dpi: dots per inch; None takes matplotlib's own.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
