"""Tables of a report, and formatting of the numbers in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Titles of columns, and rows of text in their order.

    Attributes:
        columns: titles; empty for a table whose first column names the rows.
        rows: cells.
        long: indices of columns whose text may wrap.
    """

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    long: tuple[int, ...] = ()


def number(value: float | None, style: str) -> str:
    """A number in a format, ``-`` if there is none."""
    return "-" if value is None else format(value, style)
