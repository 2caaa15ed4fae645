"""Potentials that go wrong as planned, and the failure that a run of them meets."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from nequip_decorr.md import Criteria, Protocol, results, run_stability
from tests.support.potentials import Analytic
from tests.support.systems import Built


def of(ensemble: str, **changes: Any) -> Protocol:
    how = {
        "timestep_fs": 1.0,
        "horizon_ps": 0.4,
        "replicas": 1,
        "frame_interval_steps": 1,
        **changes,
    }
    end = 400.0 if ensemble == "ramp" else None
    return Protocol(ensemble=ensemble, ramp_end_temperature_K=end, **how)


class Broken(Analytic):
    """Another potential, which goes wrong at its ``call``-th call (from 1)."""

    def __init__(self, sound: Calculator, atoms: Atoms, call: int, what: str) -> None:
        super().__init__()
        self.sound, self.system, self.call, self.what = sound, atoms.copy(), call, what
        self.cursed: np.ndarray | None = None

    def field(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        if self.calls == self.call:
            self.cursed = positions.copy()
        self.system.positions = positions
        self.sound.calculate(self.system, ["energy", "forces"], all_changes)
        energy = float(self.sound.results["energy"])
        forces = np.array(self.sound.results["forces"])
        if self.cursed is not None and np.array_equal(positions, self.cursed):
            if self.what == "raise":
                raise ArithmeticError("no such place")
            if self.what == "nan-energy":
                return np.nan, forces
            forces[0] = {"nan": np.nan, "inf": np.inf, "strong": 1e6}[self.what]
        return energy, forces


class Pushed(Analytic):
    """Another potential, and a constant force on each atom."""

    def __init__(self, sound: Calculator, atoms: Atoms, push: np.ndarray) -> None:
        super().__init__()
        self.sound, self.system, self.push = sound, atoms.copy(), push

    def field(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        self.system.positions = positions
        self.sound.calculate(self.system, ["energy", "forces"], all_changes)
        energy = float(self.sound.results["energy"]) - (self.push * positions).sum()
        return energy, self.sound.results["forces"] + self.push


class Holed(Analytic):
    """Another potential, and a hole between atom 0 and its nearest neighbour.

    ``-0.1 eV (d / r)^14``, with d their distance at the start, outdoes any wall of the
    other potential.
    """

    def __init__(self, sound: Calculator, atoms: Atoms) -> None:
        super().__init__()
        self.sound, self.system = sound, atoms.copy()
        distances = atoms.get_distances(0, range(len(atoms)), mic=True)
        distances[0] = np.inf
        self.other, self.start_A = int(np.argmin(distances)), float(distances.min())

    def field(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        self.system.positions = positions
        self.sound.calculate(self.system, ["energy", "forces"], all_changes)
        away = self.system.get_distance(0, self.other, mic=True, vector=True)
        well = 0.1 * (self.start_A**2 / (away @ away)) ** 7
        pull = 14 * well / (away @ away) * away
        forces = np.array(self.sound.results["forces"])
        forces[0] += pull
        forces[self.other] -= pull
        return float(self.sound.results["energy"]) - well, forces


def failure(
    built: Built, protocol: Protocol, folder: Any
) -> tuple[results.Event, results.Replica]:
    atoms, potential = built
    (replica,) = run_stability(potential, atoms, protocol, output=folder).replicas
    assert replica.first is not None
    return replica.first, replica


def sparse(n: int = 8, spacing_A: float = 20.0) -> Atoms:
    """Copper atoms that know nothing of each other."""
    places = np.indices((n, 1, 1)).reshape(3, -1).T * spacing_A
    return Atoms(f"Cu{n}", positions=places, cell=[n * spacing_A, 20, 20], pbc=True)


COLD = {"temperatures_K": (1.0,)}
#: without the tests of the mean temperature, which few atoms raise quickly
COOL = Criteria(runaway_sigma=None, max_temperature_K=None)
