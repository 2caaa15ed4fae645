"""The MD loop of all engines: integrate, call the model, handle its errors.

Replicas advance step by step and share model calls; forces come from a
:class:`~nequip_decorr.md.dynamics.contract.ForceProvider`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nequip_decorr.md.dynamics.contract import (
    ForceProvider,
    Forces,
    Job,
    ModelBrokenError,
    Observer,
    OutOfMemoryError,
    System,
)
from nequip_decorr.md.dynamics.integrators import Walker
from nequip_decorr.md.protocol import Protocol


class Loop:
    """An engine (see :mod:`nequip_decorr.md.dynamics.contract`).

    Args:
        forces: provides energies and forces.
        protocol: provides ensemble, time step, friction and thermostat time.
    """

    def __init__(self, forces: ForceProvider, protocol: Protocol) -> None:
        self._forces = forces
        self._protocol = protocol

    def run(self, jobs: Iterable[Job], observer: Observer) -> None:
        """Integrate all jobs until the observer has dropped them."""
        walkers = [Walker(job, self._protocol) for job in jobs]
        while walkers:
            # what overflows is not finite, and the observer sees it
            with np.errstate(over="ignore", invalid="ignore"):
                for walker in walkers:
                    walker.depart()
            walkers = [
                walker
                for walker in walkers
                if observer.before_forces(
                    walker.job.replica, walker.step, walker.positions_A
                )
            ]
            results = self._forces([walker.system for walker in walkers])
            walkers = [
                walker
                for walker, result in zip(walkers, results, strict=True)
                if self._arrived(walker, result, observer)
            ]
            walkers = [
                walker
                for walker in walkers
                if observer.after_step(walker.frame(), walker.snapshot)
            ]

    def _arrived(
        self, walker: Walker, result: Forces | Exception, observer: Observer
    ) -> bool:
        """Finish the step; replicas on which the model keeps failing are dropped."""
        result = _unless_out_of_memory(result)
        if isinstance(result, Exception):
            result = self._ask(walker.system)
        if isinstance(result, Forces):
            with np.errstate(over="ignore", invalid="ignore"):
                walker.arrive(*result)
            return True
        atoms = walker.job.atoms
        if walker.last_good_A is None:
            raise ModelBrokenError(
                "the model raises an exception on a start structure "
                f"({atoms.get_chemical_formula()}; {type(result).__name__}: {result}); "
                "check that the model and the structure belong together"
            ) from result
        before = self._ask(System(atoms, walker.last_good_A))
        if isinstance(before, Exception):
            raise ModelBrokenError(
                "the model raises an exception at positions that it handled before "
                f"({type(before).__name__}: {before}); check the machine and rerun the "
                "same command"
            ) from before
        observer.fault(walker.job.replica, walker.step, result)
        return False

    def _ask(self, system: System) -> Forces | Exception:
        (result,) = self._forces([system])
        return _unless_out_of_memory(result)


def _unless_out_of_memory(result: Forces | Exception) -> Forces | Exception:
    if isinstance(result, Exception) and out_of_memory(result):
        raise OutOfMemoryError(str(result)) from result
    return result


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on any device."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "can't allocate memory" in text)
    )
