"""Figures as data URIs, so that a page needs no files beside it."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def svg(figure: Figure) -> str:
    """A figure as a vector drawing."""
    return _data_uri(figure, "svg", "image/svg+xml", metadata={"Date": None})


def png(figure: Figure, dpi: int = 180) -> str:
    """A figure as pixels: traces as a vector drawing would be tens of megabytes."""
    return _data_uri(figure, "png", "image/png", dpi=dpi)


def _data_uri(figure: Figure, style: str, mime: str, **options: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=style, **options)
    return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"
