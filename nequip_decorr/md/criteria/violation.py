"""A test that failed, and how its message names atoms and times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms


class Violation(NamedTuple):
    """A test that failed: cause, a line for a person, atoms, value and limit."""

    cause: str
    message: str
    atoms: tuple[int, ...] = ()
    value: float | None = None
    limit: float | None = None


class Labels:
    """Names of atoms, such as ``Hf3``."""

    def __init__(self, atoms: Atoms) -> None:
        self._symbols = atoms.get_chemical_symbols()

    def one(self, index: int) -> str:
        """Name of one atom."""
        return f"{self._symbols[index]}{index}"

    def all(self, indices: Sequence[int] | np.ndarray[Any, Any]) -> str:
        """Names of some atoms, at most four."""
        names = [self.one(int(i)) for i in indices]
        if len(names) > 4:
            return f"{', '.join(names[:4])} and {len(names) - 4} more"
        return ", ".join(names)


def in_ps(step: int, timestep_fs: float) -> str:
    """The time of a step in ps, to four digits."""
    return f"{step * timestep_fs / 1000:.4g}"
