"""What values of a protocol must be; each check names the option."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from nequip_decorr.errors import UserError
from nequip_decorr.wording import nearest_name


def check_positive(name: str, value: object) -> None:
    """Raise a UserError unless a value is a number > 0 and finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"expected a number for {name}, got {value!r}")
    if not 0 < value < math.inf:
        raise UserError(f"expected {name} > 0 and finite, got {value}")


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
        raise UserError(f"expected names and values for {what}, got {value!r}")
    return value


def check_names(what: str, data: Mapping[str, Any], cls: type[Any]) -> None:
    """Raise a UserError for a name that is no field of a dataclass."""
    names = [item.name for item in fields(cls)]
    for name in data:
        if name not in names:
            raise UserError(
                f"expected a known name in the {what}, got {name!r}"
                f"{nearest_name(name, names)} (known: {', '.join(names)})"
            )
