"""Forces from an ase calculator, one structure at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from nequip_decorr.md.dynamics.contract import Forces, System
from nequip_decorr.md.dynamics.loop import Loop
from nequip_decorr.md.models import load_nequip_calculator
from nequip_decorr.md.protocol import Protocol


class AseForces:
    """See :class:`nequip_decorr.md.dynamics.contract.ForceProvider`.

    Args:
        calculator: an ase calculator with energy and forces.
    """

    def __init__(self, calculator: Calculator) -> None:
        self._calculator = calculator
        self._structure: Atoms | None = None
        self._atoms: Atoms | None = None

    def __call__(self, systems: Sequence[System]) -> list[Forces | Exception]:
        """Energy and forces of each structure, or the exception raised on it."""
        return [self._one(system) for system in systems]

    def _one(self, system: System) -> Forces | Exception:
        atoms = self._placed(system)
        try:
            # what overflows in a calculator is not finite, and a failure
            with np.errstate(over="ignore", invalid="ignore"):
                # as if all had changed: results must not depend on earlier calls
                self._calculator.calculate(atoms, ["energy", "forces"], all_changes)
            results = self._calculator.results
            return Forces(
                float(results["energy"]), np.array(results["forces"], dtype=np.float64)
            )
        except Exception as error:
            self._calculator.reset()
            return error

    def _placed(self, system: System) -> Atoms:
        """The structure at these positions (copying it at each step would be slow)."""
        if self._atoms is None or self._structure is not system.atoms:
            self._structure, self._atoms = system.atoms, system.atoms.copy()
            self._atoms.set_constraint()
        self._atoms.set_positions(system.positions_A)
        return self._atoms


def load(path: Path, kind: str, device: str) -> Calculator:
    """Open a model file as an ase calculator."""
    return load_nequip_calculator(path, kind, device)


def build(model: Calculator, protocol: Protocol) -> Loop:
    """The engine for a calculator and a protocol."""
    return Loop(AseForces(model), protocol)
