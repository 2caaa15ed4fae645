"""Helpers for the wording of messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def counted(n: int, noun: str) -> str:
    """``1 replica``, ``2 replicas``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def nearest_name(name: object, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for a misspelt name, else an empty string."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def one_line(error: BaseException, longest: int = 200) -> str:
    """What an exception says, on one line of at most ``longest`` characters."""
    return " ".join(str(error).split())[:longest] or "no message"


def named(error: BaseException) -> str:
    """The kind of an exception and what it says, on one line."""
    return f"{type(error).__name__}: {one_line(error)}"
