"""Tables in Markdown, as the pages of benchmarks have them."""

from __future__ import annotations


def rows(text: str) -> list[list[str]]:
    """Cells of the lines of a table, without its first two."""
    lines = [each for each in text.splitlines() if each.startswith("|")][2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
