"""Predicts with saved models and writes what came out; run with any environment.

Usage: python predict.py OUT.npz FRAMES.extxyz MODEL [MODEL ...]
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from nequip.data import AtomicDataDict
from nequip.data.ase import from_ase
from nequip.data.transforms import (
    ChemicalSpeciesToAtomTypeMapper,
    NeighborListTransform,
)
from nequip.integrations.ase import NequIPCalculator
from nequip.model.inference_models import load_compiled_model

CUTOFF = 3.5


def by_calculator(calculator: Any, frames: list[Atoms]) -> list[np.ndarray]:
    values = []
    for frame in frames:
        frame.calc = calculator
        values += [np.array([frame.get_potential_energy()]), frame.get_forces()]
    return values


def graph(frame: Atoms) -> AtomicDataDict.Type:
    data = from_ase(frame)
    data = ChemicalSpeciesToAtomTypeMapper(model_type_names=["Hf", "O"])(data)
    return NeighborListTransform(r_max=CUTOFF)(data)


def by_compiled(path: str, frames: list[Atoms], periodic: bool) -> list[np.ndarray]:
    model, _ = load_compiled_model(path, "cpu")
    if not periodic:
        frames = [Atoms(frame.symbols, frame.positions) for frame in frames]
        outputs = [model(graph(frame)) for frame in frames]
    else:
        batch = AtomicDataDict.batched_from_list([graph(frame) for frame in frames])
        outputs = [model(batch)]
    return [
        output[key].detach().numpy()
        for output in outputs
        for key in (AtomicDataDict.PER_ATOM_ENERGY_KEY, AtomicDataDict.FORCE_KEY)
    ]


def predict(path: str, frames: list[Atoms]) -> list[np.ndarray]:
    name = Path(path).name
    if name.startswith("batch"):
        return by_compiled(path, frames, periodic=True)
    if name.startswith("pair"):
        return by_compiled(path, frames, periodic=False)
    types = {"Hf": "Hf", "O": "O"}
    load = (
        NequIPCalculator.from_compiled_model
        if name.endswith((".nequip.pt2", ".nequip.pth"))
        else NequIPCalculator._from_saved_model
    )
    return by_calculator(load(path, chemical_species_to_atom_type_map=types), frames)


def main() -> None:
    out, data, *paths = sys.argv[1:]
    torch.set_num_threads(1)
    frames = [frame.copy() for frame in read(data, ":2")]
    arrays = {
        f"{Path(path).name}:{index}": value
        for path in paths
        for index, value in enumerate(predict(path, frames))
    }
    np.savez(out, **arrays)
    found = importlib.util.find_spec("nequip_decorr") is not None
    print("nequip_decorr is", "here" if found else "not here")


if __name__ == "__main__":
    main()
