"""Checks of option values; each error names the option."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from math import isfinite
from typing import Any

from nequip_decorr.errors import UserError
from nequip_decorr.wording import nearest_name


def is_whole(value: object) -> bool:
    """Whether a value is an integer, and not a boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """Whether a value is a number, and neither a boolean nor NaN or infinity."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and isfinite(value)
    )


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> None:
    """Raise a UserError unless a value is a finite number in a range.

    Args:
        name: of the option.
        value: of the option.
        above: it must be larger than this; None accepts 0 and larger.
        below: it must be smaller than this.
        most: it must be no larger than this.
    """
    limits = [">= 0" if above is None else f"> {above:g}"]
    limits += [] if below is None else [f"< {below:g}"]
    limits += [] if most is None else [f"<= {most:g}"]
    inside = (
        is_finite(value)
        and (value >= 0 if above is None else value > above)
        and (below is None or value < below)
        and (most is None or value <= most)
    )
    if not inside:
        raise UserError(
            f"expected `{name}` to be a finite number {' and '.join(limits)}, got "
            f"{value!r}"
        )


def check_whole(name: str, value: Any, least: int, *, null: bool = False) -> None:
    """Raise a UserError unless a value is a whole number >= ``least``.

    ``null`` accepts None as well.
    """
    if (null and value is None) or (is_whole(value) and value >= least):
        return
    raise UserError(
        f"expected `{name}` to be a whole number >= {least}"
        f"{' or null' if null else ''}, got {value!r}"
    )


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raise a UserError unless a value is one of the choices."""
    if value not in list(choices):  # a list from YAML cannot be looked up in a mapping
        raise UserError(
            f"expected `{name}` to be one of {', '.join(choices) or 'none'}, got "
            f"{value!r}{nearest_name(value, choices)}"
        )


def check_switch(name: str, value: object) -> None:
    """Raise a UserError unless a value is True or False."""
    if not isinstance(value, bool):
        raise UserError(f"expected `{name}` to be true or false, got {value!r}")


def check_mapping(what: str, value: object) -> Mapping[str, Any]:
    """The value, if it is a mapping.

    Raises:
        UserError: when it is not.
    """
    if not isinstance(value, Mapping):
        raise UserError(f"expected a mapping (NAME: VALUE) for {what}, got {value!r}")
    return value


def check_keys(what: str, data: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise a UserError for a key that is not known."""
    for key in data:
        if key not in known:
            raise UserError(
                f"expected a known key in the {what}, got {key!r}"
                f"{nearest_name(key, known)} (known: {', '.join(known)})"
            )


def names_of(cls: type[Any]) -> list[str]:
    """Names of a dataclass's fields."""
    return [each.name for each in fields(cls)]


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
