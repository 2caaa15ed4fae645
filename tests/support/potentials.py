"""Analytic potentials as ase calculators, whose trajectories are known."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes


class Analytic(Calculator):
    """Base: counts calls; subclasses give energy and forces of positions."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.calls = 0

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        energy, forces = self.field(atoms.positions)
        self.results = {"energy": energy, "forces": forces}

    def field(self, positions):
        raise NotImplementedError


class Free(Analytic):
    """No forces: atoms fly straight on."""

    def field(self, positions):
        return 0.0, np.zeros_like(positions)


class Einstein(Analytic):
    """Each atom on a spring of its own."""

    def __init__(self, sites, k_eV_per_A2):
        super().__init__()
        self.sites = sites
        self.k = k_eV_per_A2

    def field(self, positions):
        away = positions - self.sites
        return 0.5 * self.k * (away**2).sum(), -self.k * away


class Beyond(Free):
    """Free flight up to a plane x = ``x_A``; behind it the hole of a bad model.

    Args:
        x_A: where the hole begins.
        what: ``nan-energy``, ``nan-forces``, ``inf-forces``, ``strong`` (1e6 eV/A),
            ``raise``.
    """

    def __init__(self, x_A, what):
        super().__init__()
        self.x_A = x_A
        self.what = what

    def field(self, positions):
        energy, forces = super().field(positions)
        inside = positions[:, 0] > self.x_A
        if not inside.any():
            return energy, forces
        if self.what == "raise":
            raise ArithmeticError("no such place")
        if self.what == "nan-energy":
            return float("nan"), forces
        forces[inside] = {
            "nan-forces": np.nan,
            "inf-forces": np.inf,
            "strong": 1e6,
        }[self.what]
        return energy, forces


class AtCall(Einstein):
    """A spring crystal at whose ``call``-th call (from 1) something happens."""

    def __init__(self, sites, k_eV_per_A2, call, what):
        super().__init__(sites, k_eV_per_A2)
        self.call = call
        self.what = what

    def field(self, positions):
        if self.what == "broken" and self.calls >= self.call:
            raise OSError("the card fell off the bus")
        if self.calls == self.call:
            if self.what == "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
            elif self.what == "terminate":
                os.kill(os.getpid(), signal.SIGTERM)
            elif self.what == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.what == "once":
                raise RuntimeError("a hiccup")
            elif self.what == "memory":
                raise MemoryError("97 GiB")
        return super().field(positions)


K = 3.0


def crystal():
    """32 copper atoms on fcc sites."""
    return bulk("Cu", cubic=True) * (2, 2, 2)


def einstein():
    """Spring crystal on the sites of :func:`crystal`; sent to worker processes."""
    return Einstein(crystal().positions, K)


def dying():
    """The spring crystal of a process that the system kills at its 20th call."""
    return AtCall(crystal().positions, K, 20, "die")


def cardless():
    """The spring crystal, which only the first process finds a card for."""
    if multiprocessing.parent_process() is not None:
        raise RuntimeError("no card left")
    return einstein()


class Greedy(Einstein):
    """Memory runs out at the 300th call of the process that is first there."""

    def field(self, positions):
        if self.calls == 300:
            try:
                Path(os.environ["GREEDY"]).touch(exist_ok=False)
            except FileExistsError:
                return super().field(positions)
            raise MemoryError("97 GiB")
        return super().field(positions)


def greedy():
    """A greedy spring crystal; processes know each other by ``$GREEDY``."""
    return Greedy(crystal().positions, K)


def flyer():
    """One hydrogen atom in a box without walls."""
    return Atoms("H", positions=[[0.0, 0.0, 0.0]])
