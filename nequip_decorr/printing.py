"""Lines of text on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def say(console: Console, text: str, style: str = "", *, wrap: bool = False) -> None:
    """Print text as it is: brackets, as in a path, are no markup.

    Args:
        console: where to print.
        text: one line.
        style: of the whole line, e.g. ``bold``.
        wrap: break it between words at the width of the terminal.
    """
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=not wrap)
