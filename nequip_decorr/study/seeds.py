"""Keys of a config that have to be set to the training seed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any


def seed_keys(plain: Mapping[str, Any]) -> Iterator[str]:
    """Dotted keys of all seeds, except those in lists, which hydra cannot override.

    One that is interpolated from another (``${seed}``) follows it, and one from
    anything else has to be set itself.
    """
    seeds = {
        tuple(map(str, key)): value
        for key, value in leaves(plain)
        if key[-1] == "seed" and all(isinstance(k, str) for k in key)
    }
    for key, value in seeds.items():
        source = _source(key, value)
        if type(value) is int or (source is not None and source not in seeds):
            yield ".".join(key)


def _source(key: tuple[str, ...], value: Any) -> tuple[str, ...] | None:
    """The key that a value is interpolated from; empty if it is from anything else.

    None for a value that is not interpolated.
    """
    if not isinstance(value, str) or "${" not in value:
        return None
    found = re.fullmatch(r"\$\{(\.*)([\w.]+)\}", value)
    if found is None:
        return ()
    dots, path = found.groups()
    start = key[: len(key) - len(dots)] if dots else ()
    return (*start, *path.split("."))


def leaves(
    node: Any, prefix: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Each value of nested mappings and lists, with the keys that lead to it."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from leaves(value, (*prefix, str(key)))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from leaves(value, (*prefix, index))
    else:
        yield prefix, node
