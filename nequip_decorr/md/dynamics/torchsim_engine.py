"""The engine that moves many replicas at once, with one model call for a batch.

Of torch-sim it uses the state (``torch_sim.SimState``), the interface of models and
NequIP's implementation of it (``NequIPTorchSimCalc``). It steps the replicas itself
(:mod:`nequip_decorr.md.dynamics.integrators`): torch-sim's integrators wrap positions
into the cell, draw one stream of noise for a whole batch, and call the model before
anyone has seen the positions. A failed replica is simply not in the next batch.

A replica's random numbers are its own, and so is all arithmetic but the model's. What
is left of its batch is what the model's sums depend on: models compiled for the CPU,
on one thread, give the same bits in every batch; eager ones may differ in the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nequip_decorr.errors import UserError
from nequip_decorr.md.dynamics.contract import Job, ModelBrokenError, Observer
from nequip_decorr.md.dynamics.integrators import Walker
from nequip_decorr.md.dynamics.torchsim_model import (
    BatchedModel,
    Forces,
    ModelInterface,
    NequIPTorchSimCalc,
    System,
    check_agreement,
)
from nequip_decorr.md.protocol import Protocol


class TorchSimEngine:
    """Moves replicas in step (see :mod:`nequip_decorr.md.dynamics.contract`).

    Args:
        model: a torch-sim model with energy and forces.
        protocol: ensemble, time step, friction and thermostat time are taken.
    """

    batched = True

    def __init__(self, model: ModelInterface, protocol: Protocol) -> None:
        self._model = model
        self._batched = BatchedModel(model)
        self._protocol = protocol

    def run(self, jobs: Iterable[Job], observer: Observer) -> None:
        """Move the jobs until the observer has let go of each.

        Raises:
            UserError: when the forces of the first batch are not those that ase
                gets for each structure by itself.
        """
        walkers = [Walker(job, self._protocol) for job in jobs]
        checked = False
        while walkers:
            for walker in walkers:
                walker.depart()
            walkers = [
                walker
                for walker in walkers
                if observer.before_forces(
                    walker.job.replica, walker.step, walker.positions_A
                )
            ]
            results = self._batched(
                [System(walker.job.atoms, walker.positions_A) for walker in walkers]
            )
            if results and not checked:
                self._check(walkers, results)
                checked = True
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

    def _check(
        self, walkers: Sequence[Walker], results: Sequence[Forces | Exception]
    ) -> None:
        """Compare one replica of each structure with ase."""
        found = {
            id(walker.job.atoms): (System(walker.job.atoms, walker.positions_A), result)
            for walker, result in zip(walkers, results, strict=True)
            if isinstance(result, Forces)
        }
        check_agreement(
            self._model,
            [system for system, _ in found.values()],
            [result for _, result in found.values()],
        )

    def _arrived(
        self, walker: Walker, result: Forces | Exception, observer: Observer
    ) -> bool:
        if isinstance(result, Forces):
            walker.arrive(*result)
            return True
        name, text = type(result).__name__, str(result)
        if walker.last_good_A is None:
            raise ModelBrokenError(
                f"the model raises on a start structure "
                f"({walker.job.atoms.get_chemical_formula()}; {name}: {text}); "
                "check that they belong together"
            ) from result
        (before,) = self._batched([System(walker.job.atoms, walker.last_good_A)])
        if isinstance(before, Exception):
            raise ModelBrokenError(
                f"the model raises where it worked before ({type(before).__name__}: "
                f"{before}); check the machine and run the same command again"
            ) from before
        observer.fault(walker.job.replica, walker.step, result)
        return False


def load(path: Path, kind: str, device: str) -> NequIPTorchSimCalc:
    """Open a model file as NequIP's torch-sim calculator, without elements yet."""
    options = {
        "device": device,
        "chemical_species_to_atom_type_map": {},
        "neighborlist_backend": "matscipy",
    }
    if kind in ("checkpoint", "package"):
        return NequIPTorchSimCalc._from_saved_model(path, **options)
    return NequIPTorchSimCalc.from_compiled_model(path, **options)


def build(model: Any, protocol: Protocol) -> TorchSimEngine:
    """The engine for a torch-sim model and a protocol.

    Raises:
        UserError: when the model is not one of torch-sim's.
    """
    if not isinstance(model, ModelInterface):
        raise UserError(
            "expected a NequIP model file or a torch-sim model for engine 'torchsim', "
            f"got {type(model).__name__}; use --engine ase"
        )
    return TorchSimEngine(model, protocol)
