"""Nested settings by dotted names, and how two of them differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: A longer line of a difference names the setting only.
LONGEST = 160


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``; lists stay whole."""
    rows: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            rows |= flat(value, f"{prefix}{key}.")
        else:
            rows[prefix + key] = value
    return rows


def differing(
    first: Mapping[str, Any], second: Mapping[str, Any], absent: object = None
) -> Iterator[tuple[str, Any, Any]]:
    """Settings that differ, with both values; ``absent`` where one of them has none."""
    one, two = flat(first), flat(second)
    for name in sorted(one.keys() | two.keys()):
        values = one.get(name, absent), two.get(name, absent)
        if values[0] != values[1]:
            yield name, *values


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed between two documents of plain types, one line each."""
    lines = []
    for name, old, new in differing(before, now):
        line = f"{name} was {old}, is {new}"
        lines.append(line if len(line) < LONGEST else f"{name} differs")
    return lines
