"""Parts of messages for a user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest_name(name: object, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for a misspelt name, else an empty string."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def one_line(error: BaseException, longest: int = 200) -> str:
    """What an exception says, on one line of at most ``longest`` characters."""
    return " ".join(str(error).split())[:longest] or "no message"
