"""Forces of many replicas from one call of a torch-sim model.

From torch-sim it uses the state (``torch_sim.SimState``), the interface of models and
NequIP's implementation of it (``NequIPTorchSimCalc``). The integrators are our own
(:mod:`nequip_decorr.md.dynamics.integrators`): torch-sim's wrap positions into the
cell, draw one stream of noise for a whole batch, and call the model before anyone has
seen the positions. A failed replica is left out of the next batch.

A replica has its own random numbers, and all arithmetic but the model's is its own.
What depends on the batch is the order of the model's sums: forces of models compiled
for the CPU, on one thread, have the same bits in every batch, and so have the paths;
their energies, and forces of eager models, may differ in the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nequip_decorr.errors import UserError
from nequip_decorr.md.dynamics.contract import Forces, System
from nequip_decorr.md.dynamics.loop import Loop
from nequip_decorr.md.dynamics.torchsim_model import (
    BatchedModel,
    ModelInterface,
    NequIPTorchSimCalc,
    check_agreement,
)
from nequip_decorr.md.protocol import Protocol


class TorchSimForces:
    """See :class:`nequip_decorr.md.dynamics.contract.ForceProvider`.

    Args:
        model: a torch-sim model with energy and forces.
    """

    def __init__(self, model: ModelInterface) -> None:
        self._model = model
        self._batched = BatchedModel(model)
        self._checked = False

    def __call__(self, systems: Sequence[System]) -> list[Forces | Exception]:
        """Energy and forces of each structure, or the exception raised on it.

        Raises:
            UserError: if the forces of the first batch differ from those that ase
                computes for each structure separately.
        """
        results = self._batched(systems)
        if results and not self._checked:
            self._check(systems, results)
            self._checked = True
        return results

    def _check(
        self, systems: Sequence[System], results: Sequence[Forces | Exception]
    ) -> None:
        """Compare one replica of each structure with ase."""
        found = {
            id(system.atoms): (system, result)
            for system, result in zip(systems, results, strict=True)
            if isinstance(result, Forces)
        }
        check_agreement(
            self._model,
            [system for system, _ in found.values()],
            [result for _, result in found.values()],
        )


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


def build(model: Any, protocol: Protocol) -> Loop:
    """The engine for a torch-sim model and a protocol.

    Raises:
        UserError: if the model is not a torch-sim model.
    """
    if not isinstance(model, ModelInterface):
        raise UserError(
            "expected a NequIP model file or a torch-sim model for engine 'torchsim', "
            f"got {type(model).__name__}; use --engine ase"
        )
    return Loop(TorchSimForces(model), protocol)
