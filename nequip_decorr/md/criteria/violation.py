"""A failed test of a step, and the names of atoms in its message."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms


class Violation(NamedTuple):
    """A failed test: cause, message, atoms, value and limit."""

    cause: str
    message: str
    atoms: tuple[int, ...] = ()
    value: float | None = None
    limit: float | None = None


class Names:
    """Names of atoms for messages: ``Hf0, O7 and 3 more``."""

    def __init__(self, atoms: Atoms) -> None:
        self._symbols = atoms.get_chemical_symbols()

    def __call__(self, indices: Sequence[int] | np.ndarray[Any, Any]) -> str:
        """Names of the given atoms."""
        names = [f"{self._symbols[int(i)]}{int(i)}" for i in indices]
        if len(names) > 4:
            return f"{', '.join(names[:4])} and {len(names) - 4} more"
        return ", ".join(names)


def too_far(names: Names, atom: int, square_A2: float, limit_A: float) -> Violation:
    """An atom whose squared displacement exceeds a limit."""
    way_A = math.sqrt(square_A2)
    message = f"{names([atom])} moved {way_A:.3g} A in one step, limit {limit_A:.3g} A"
    return Violation("blowup", message, (atom,), way_A, limit_A)


def too_strong(names: Names, atom: int, square: float, limit: float) -> Violation:
    """An atom whose squared force exceeds that of a limit in eV/A."""
    force = math.sqrt(square)
    message = f"force on {names([atom])} is {force:.4g} eV/A, limit {limit:g} eV/A"
    return Violation("blowup", message, (atom,), force, limit)


def too_close(
    names: Names, pair: tuple[int, int], distance_A: float, limit_A: float
) -> Violation:
    """A pair that is closer than a limit."""
    message = f"{names(pair)} are {distance_A:.3f} A apart, limit {limit_A:.3f} A"
    return Violation("overlap", message, pair, distance_A, limit_A)
