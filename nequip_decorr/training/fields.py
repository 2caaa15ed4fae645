"""Groups of options: declared as dataclasses, read from a mapping, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from typing import Any, TypeVar

from nequip_decorr._validation import is_finite, is_whole, plain
from nequip_decorr.errors import UserError

T = TypeVar("T")


def option(default: Any, meaning: str) -> Any:
    """A field of an option group; ``MISSING`` as a default makes it required."""
    return field(default=default, metadata={"meaning": meaning})


def names(group: type) -> list[str]:
    """Names of the options of a group."""
    return [each.name for each in fields(group)]


def read_mapping(group: str, given: Any, example: str) -> dict[str, Any]:
    """The options given for a group; None for the defaults.

    Raises:
        UserError: for anything but a mapping, showing ``example``.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise UserError(
            f"expected `{group}` to be a mapping such as {example}, got {given!r}"
        )
    return {str(key): plain(value) for key, value in given.items()}


def build(cls: type[T], group: str, given: Mapping[str, Any]) -> T:
    """An option group with the given values; the names must be known.

    Raises:
        UserError: when a required option is missing, or one is out of range.
    """
    declared: tuple[Field[Any], ...] = fields(cls)  # type: ignore[arg-type]
    for each in declared:
        if each.default is MISSING and each.name not in given:
            raise UserError(
                f"`{group}.{each.name}` is not set; set it to the "
                f"{each.metadata['meaning']}"
            )
    return cls(**given)


def check_number(
    name: str, value: Any, *, above: float | None = None, most: float | None = None
) -> None:
    """Raise UserError unless ``value`` is a finite number in a range.

    Args:
        name: of the option.
        value: of the option.
        above: it must be larger than this; None accepts 0 and larger.
        most: largest value; None for no limit.
    """
    low = ">= 0" if above is None else f"> {above:g}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"expected `{name}` to be a number {low}, got {value!r}")
    large = value >= 0 if above is None else value > above
    if not (is_finite(value) and large and (most is None or value <= most)):
        end = "" if most is None else f" and <= {most:g}"
        raise UserError(f"expected a finite `{name}` {low}{end}, got {value}")


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise UserError unless ``value`` is a whole number of at least ``least``."""
    if not (is_whole(value) and value >= least):
        raise UserError(
            f"expected `{name}` to be a whole number of at least {least}, got {value!r}"
        )


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise UserError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise UserError(
            f"expected `{name}` to be {', '.join(choices[:-1])} or {choices[-1]}, got "
            f"{value!r}"
        )
