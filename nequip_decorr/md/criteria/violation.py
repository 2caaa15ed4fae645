"""A test that a step has failed, and how atoms are named in its message."""

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


class Names:
    """Names of atoms for messages: ``Hf0, O7 and 3 more``."""

    def __init__(self, atoms: Atoms) -> None:
        self._symbols = atoms.get_chemical_symbols()

    def __call__(self, indices: Sequence[int] | np.ndarray[Any, Any]) -> str:
        """Names of these atoms."""
        names = [f"{self._symbols[int(i)]}{int(i)}" for i in indices]
        if len(names) > 4:
            return f"{', '.join(names[:4])} and {len(names) - 4} more"
        return ", ".join(names)
