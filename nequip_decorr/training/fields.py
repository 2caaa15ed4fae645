"""Groups of options: declared as dataclasses, read from a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any, TypeVar

from nequip_decorr.checks import plain
from nequip_decorr.errors import UserError

T = TypeVar("T")


def option(default: Any, meaning: str) -> Any:
    """A field of an option group; ``MISSING`` as a default makes it required."""
    return field(default=default, metadata={"meaning": meaning})


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
