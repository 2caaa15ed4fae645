"""Checks of option values that several classes share."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Any

from nequip_decorr.errors import UserError


def is_whole(value: Any) -> bool:
    """Whether a value is an integer, and not a boolean."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether a value is a number, and neither a boolean nor NaN or infinity."""
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


def as_list(name: str, value: Any) -> list[Any] | None:
    """A list of an option's values, or None.

    Raises:
        UserError: for any other value, naming the option.
    """
    if value is None:
        return None
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    raise UserError(f"expected `{name}` to be a list or null, got {value!r}")


def plain(value: Any) -> Any:
    """A sequence, except a string, as a list for checkpoints; other values as is."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return value
