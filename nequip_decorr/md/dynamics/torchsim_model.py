"""Energies and forces of many structures with few calls of a torch-sim model."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from ase import Atoms
from nequip.data import AtomicDataDict
from nequip.integrations.ase import NequIPCalculator

from nequip_decorr.errors import UserError
from nequip_decorr.md.dynamics.contract import Forces, System
from nequip_decorr.md.frames import Array

with warnings.catch_warnings():
    # torch-sim imports vesin by a name that vesin is about to drop
    warnings.simplefilter("ignore", DeprecationWarning)
    import torch_sim as ts
    from nequip.integrations.torchsim import NequIPTorchSimCalc
    from torch_sim.models.interface import ModelInterface

__all__ = [
    "BatchedModel",
    "ModelInterface",
    "NequIPTorchSimCalc",
    "check_agreement",
    "sim_state",
]

#: Atoms in one call on the CPU: above, an atom takes longer (1.3 to 1.6 times at 3000,
#: Allegro on one core), for what is computed on no longer stays in the caches.
MAX_ATOMS_ON_CPU = 384

#: How far forces may be apart, relative and in eV/A: single precision, and TF32's
#: sums, with room; a wrong cell, order or element is off by far more.
FORCE_TOLERANCE = 1e-4


class BatchedModel:
    """A torch-sim model that is called on as many structures at once as memory allows.

    Args:
        model: NequIP's torch-sim calculator, or another torch-sim model.
    """

    def __init__(self, model: ModelInterface) -> None:
        self._model = model
        on_cpu = model.device.type == "cpu"
        self.max_atoms: float = MAX_ATOMS_ON_CPU if on_cpu else math.inf

    def __call__(self, systems: Sequence[System]) -> list[Forces | Exception]:
        """Energy and forces of each structure, or the exception raised on it alone.

        Non-finite results of a batch are recomputed for the structure alone, so that
        they do not depend on the batch.
        """
        results: list[Forces | Exception] = []
        for chunk in self._chunks(systems):
            results += self._chunk(chunk)
        return results

    def _chunks(self, systems: Sequence[System]) -> Iterator[list[System]]:
        """Runs of systems with the same periodicity, as a torch-sim state requires."""
        start = 0
        while start < len(systems):
            sizes = accumulate(len(system.atoms) for system in systems[start:])
            pbc = systems[start].atoms.pbc
            end = start
            for size, system in zip(sizes, systems[start:], strict=False):
                fits = size <= self.max_atoms or end == start
                if not (fits and (system.atoms.pbc == pbc).all()):
                    break
                end += 1
            yield list(systems[start:end])
            start = end

    def _chunk(self, systems: list[System]) -> list[Forces | Exception]:
        try:
            batch = self._call(systems)
        except Exception:
            batch = None
        if batch is None:
            # outside of the handler, which holds on to the failed call's memory
            return self._one_by_one(systems)
        if len(systems) == 1:
            return list(batch)
        return [
            result if _finite(result) else self._alone(system)
            for system, result in zip(systems, batch, strict=True)
        ]

    def _one_by_one(self, systems: list[System]) -> list[Forces | Exception]:
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        results = [self._alone(system) for system in systems]
        if not any(isinstance(result, Exception) for result in results):
            # each works, all do not: too many (compiled models do not say why)
            n_atoms = sum(len(system.atoms) for system in systems)
            self.max_atoms = max(n_atoms // 2, 1)
        return results

    def _alone(self, system: System) -> Forces | Exception:
        try:
            return self._call([system])[0]
        except Exception as error:
            return error

    def _call(self, systems: list[System]) -> list[Forces]:
        results = self._model(sim_state(systems, self._model.device))
        energies = results["energy"].detach().cpu().numpy().astype(np.float64)
        forces = results["forces"].detach().cpu().numpy().astype(np.float64)
        ends = np.cumsum([len(system.atoms) for system in systems])[:-1]
        return [
            Forces(float(energy), one)
            for energy, one in zip(energies, np.split(forces, ends), strict=True)
        ]


def sim_state(systems: Sequence[System], device: torch.device) -> ts.SimState:
    """The structures, all with the same periodicity, as one torch-sim state."""

    def joined(arrays: Sequence[Any]) -> torch.Tensor:
        return torch.as_tensor(np.concatenate(arrays), device=device)

    pbc = systems[0].atoms.pbc
    sizes = [len(system.atoms) for system in systems]
    # torch-sim stores cell vectors as columns; what is not periodic needs none, but
    # a cell without a volume is none that every model takes
    cells = [system.atoms.cell.complete().array.T[None] for system in systems]
    return ts.SimState(
        positions=joined([system.positions_A for system in systems]),
        masses=joined([system.atoms.get_masses() for system in systems]),
        cell=joined(cells),
        # torch-sim's own models know all or nothing; NequIP's takes each direction
        pbc=bool(pbc.all())
        if pbc.all() or not pbc.any()
        else torch.as_tensor(pbc, device=device),
        atomic_numbers=joined([system.atoms.numbers for system in systems]),
        system_idx=torch.as_tensor(
            np.repeat(np.arange(len(systems)), sizes), device=device
        ),
    )


def check_agreement(
    model: ModelInterface, systems: Sequence[System], found: Sequence[Forces]
) -> None:
    """Refuse a batch whose forces differ from those of each structure alone.

    NequIP models are evaluated through their ase calculator, all others on a batch of
    one.

    Raises:
        UserError: names the structure and the difference.
    """
    alone = _NequIPAlone(model) if isinstance(model, NequIPTorchSimCalc) else None
    for system, (_, forces) in zip(systems, found, strict=True):
        if alone is not None:
            expected = alone.forces(system)
        else:
            state = sim_state([system], model.device)
            expected = model(state)["forces"].detach().cpu().numpy()
        # numbers that are not finite in both agree: criteria will have them
        if not np.allclose(
            forces,
            expected,
            rtol=0.0,
            atol=FORCE_TOLERANCE * (1 + np.abs(expected).max()),
            equal_nan=True,
        ):
            raise UserError(
                "expected the same forces from the batch and from ase, got a "
                f"difference of {np.abs(forces - expected).max():.3g} eV/A on "
                f"{system.atoms.get_chemical_formula()}; use --engine ase"
            )


class _NequIPAlone(NequIPCalculator):
    """NequIP's ase calculator, using the network of its torch-sim calculator."""

    def __init__(self, model: NequIPTorchSimCalc) -> None:
        super().__init__(
            model=model.model.eval(),
            device=model.device,
            # the calculator moves them to the device of its liking
            transforms=[copy.deepcopy(transform) for transform in model.transforms],
        )

    def forces(self, system: System) -> Array:
        """Forces of one structure, (N, 3) in eV/A."""
        atoms = Atoms(
            numbers=system.atoms.numbers,
            positions=system.positions_A,
            cell=system.atoms.cell.complete(),
            pbc=system.atoms.pbc,
        )
        self.calculate(atoms)
        return np.asarray(self.results["forces"])

    def atoms_to_data(self, atoms: Atoms) -> AtomicDataDict.Type:
        """Convert one structure to a batch of one, for models compiled for batches."""
        data = super().atoms_to_data(atoms)
        data[AtomicDataDict.BATCH_KEY] = torch.zeros(
            len(atoms), dtype=torch.int64, device=self.device
        )
        data[AtomicDataDict.NUM_NODES_KEY] = torch.tensor(
            [len(atoms)], device=self.device
        )
        return data


def _finite(result: Forces) -> bool:
    return math.isfinite(result.energy_eV) and bool(
        np.isfinite(result.forces_eV_per_A).all()
    )
