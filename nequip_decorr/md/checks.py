"""Checks of protocol values; each error names the option."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from nequip_decorr.errors import UserError
from nequip_decorr.wording import nearest_name


def check_positive(name: str, value: object) -> None:
    """Raise a UserError unless a value is a number > 0 and finite."""
    if not 0 < _number(name, value) < math.inf:
        raise UserError(f"expected {name} > 0 and finite, got {value}")


def check_not_negative(name: str, value: object) -> None:
    """Raise a UserError unless a value is a number >= 0 and finite."""
    if not 0 <= _number(name, value) < math.inf:
        raise UserError(f"expected {name} >= 0 and finite, got {value}")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raise a UserError unless a value is one of the choices."""
    if value not in choices:
        raise UserError(
            f"expected {name} to be one of {', '.join(choices)}, "
            f"got {value!r}{nearest_name(str(value), choices)}"
        )


def check_count(name: str, value: object, least: int) -> None:
    """Raise a UserError unless a value is a whole number >= ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or not value >= least:
        raise UserError(f"expected a whole number >= {least} for {name}, got {value!r}")


def check_switch(name: str, value: object) -> None:
    """Raise a UserError unless a value is True or False."""
    if not isinstance(value, bool):
        raise UserError(f"expected true or false for {name}, got {value!r}")


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
    return [item.name for item in fields(cls)]


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"expected a number for {name}, got {value!r}")
    return value
