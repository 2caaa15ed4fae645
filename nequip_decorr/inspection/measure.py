"""Per-layer correlation of a saved model's features over a data file.

Shows how redundant a model's channels are, whether or not it was trained with the term.
Moments are pooled over all rows (edges) of the data, with the functions that training
uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from nequip_decorr.correlation.channels import Block, block_moments, group_blocks
from nequip_decorr.correlation.functional import (
    Moments,
    correlation,
    diagnose,
    live_channels,
    merge,
)
from nequip_decorr.errors import UserError
from nequip_decorr.inspection.inputs import load_feature_model, read_frames
from nequip_decorr.inspection.result import Inspection, LayerReport
from nequip_decorr.species import resolve_species_map, trained_species_map
from nequip_decorr.training import nequip_models
from nequip_decorr.training.features import Features, find_features, tap

if TYPE_CHECKING:
    from ase import Atoms


def inspect_model(
    model: nn.Module,
    frames: Iterable[Atoms],
    *,
    features: str | None = None,
    layer_dim: int | None = None,
    batch_size: int = 5,
    chemical_species_to_atom_type_map: Mapping[str, str] | None = None,
    on_frames: Callable[[int], object] = lambda count: None,
    model_name: str = "",
    data_name: str = "",
) -> Inspection:
    """Run a model over frames and describe the correlations of its features.

    Args:
        model: a ``GraphModel`` in evaluation mode, see :func:`.load_feature_model`.
        frames: structures; labels in them are not read.
        features, layer_dim: see :func:`.features.find_features`.
        batch_size: frames in one call of the model; does not change the result beyond
            rounding.
        chemical_species_to_atom_type_map: element to the model's type for it, as in
            NequIP's calculators; None where types are chemical symbols.
        on_frames: called after each batch with the number of its frames.
        model_name, data_name: names of both in the result.

    Raises:
        UserError: when the model has no such features, does not know an element, or
            there is nothing to correlate (no frames, no edges, features not finite);
            when the map is missing or does not fit the model.
    """
    from nequip.data import get_field_type

    if batch_size < 1:
        raise UserError(f"expected a batch size of at least 1, got {batch_size}")
    species_map = resolve_species_map(
        _type_names(model), chemical_species_to_atom_type_map, None
    )
    found = find_features(model, features, layer_dim)
    groups = [
        [found.blocks[index] for index in group] for group in group_blocks(found.blocks)
    ]
    pooled: list[Moments] = []
    count = 0
    handles = tap(model, found)
    try:
        for batch, data in _batches(model, species_map, frames, batch_size):
            output = model(data)
            # float32 products leave eigenvalues of 1e-6 where there are none, and the
            # effective rank counts their roots
            wide = {b.field: output[b.field].detach().double() for b in found.blocks}
            new = [block_moments(wide, group) for group in groups]
            for m, group in zip(new, groups, strict=True):
                _require_finite(m, group, count, len(batch))
            pooled = list(map(merge, pooled, new)) or new
            count += len(batch)
            on_frames(len(batch))
    finally:
        for handle in handles:
            handle.remove()
    row_kind = "edges" if _has_edges(found, get_field_type) else "atoms"
    rows = int(pooled[0].rows) if pooled else 0
    if rows < 2:
        raise UserError(
            f"expected at least two {row_kind} to correlate over, got {rows} in "
            f"{count} frames; give frames with atoms within the model's cutoff"
        )
    names = _names(model, found)
    reports = {
        block: report
        for m, group in zip(pooled, groups, strict=True)
        for block, report in zip(
            group, _reports(m, [names[b] for b in group]), strict=True
        )
    }
    return Inspection(
        model=model_name,
        data=data_name,
        field=_title(found),
        frames=count,
        rows=rows,
        row_kind=row_kind,
        layers=tuple(reports[block] for block in found.blocks),
    )


def inspect_file(
    model_path: str | Path,
    data_path: str | Path,
    *,
    features: str | None = None,
    layer_dim: int | None = None,
    batch_size: int = 5,
    max_frames: int | None = None,
    device: str = "cpu",
    chemical_species_to_atom_type_map: Mapping[str, str] | None = None,
    on_frames: Callable[[int], object] = lambda count: None,
) -> Inspection:
    """:func:`inspect_model` for a model file and a data file, with the same errors.

    The map from elements to atom types is by default that of the training, which
    checkpoints and packages carry.

    Raises:
        UserError: when one of them does not exist.
        UserError: see :func:`.load_feature_model`, :func:`.read_frames`,
            :func:`inspect_model`.
    """
    if max_frames is not None and max_frames < 1:
        raise UserError(f"expected at least 1 frame to read, got {max_frames}")
    frames = read_frames(data_path, max_frames)
    model = load_feature_model(model_path, device)
    species_map = resolve_species_map(
        _type_names(model),
        chemical_species_to_atom_type_map,
        trained_species_map(Path(model_path)),
    )
    return inspect_model(
        model,
        frames,
        features=features,
        layer_dim=layer_dim,
        batch_size=batch_size,
        chemical_species_to_atom_type_map=species_map,
        on_frames=on_frames,
        model_name=str(model_path),
        data_name=str(data_path),
    )


def _batches(
    model: nn.Module,
    species_map: dict[str, str],
    frames: Iterable[Atoms],
    batch_size: int,
) -> Iterator[tuple[list[Atoms], Any]]:
    """Frames in batches, as ase has them and as the model takes them."""
    from ase.calculators.calculator import all_properties
    from nequip.data import AtomicDataDict, from_ase
    from nequip.integrations.utils import basic_transforms

    metadata: Any = model.metadata
    type_names = _type_names(model)
    transforms = basic_transforms(
        metadata, float(metadata["r_max"]), type_names, species_map
    )
    device = next(model.parameters()).device

    def prepare(atoms: Atoms, index: int) -> Any:
        _check_frame(atoms, index, list(species_map))
        # frames need not have the same labels, and nothing here reads them
        data = from_ase(atoms, exclude_keys=all_properties)
        for transform in transforms:
            data = transform(data)
        return data

    remaining = enumerate(frames)
    while batch := list(islice(remaining, batch_size)):
        data = AtomicDataDict.batched_from_list([prepare(a, i) for i, a in batch])
        yield [a for _, a in batch], AtomicDataDict.to_(data, device)


def _type_names(model: nn.Module) -> list[str]:
    metadata: Any = model.metadata
    names: list[str] = metadata["type_names"].split(" ")
    return names


def _check_frame(atoms: Atoms, index: int, species: list[str]) -> None:
    unknown = sorted(set(atoms.symbols) - set(species))
    if unknown:
        raise UserError(
            f"expected only the elements that the model knows, {species}, got "
            f"{unknown} in frame {index} (counted from 0)"
        )
    if (atoms.pbc & (atoms.cell.lengths() == 0)).any():
        raise UserError(
            f"expected a cell vector for each periodic direction, got none in frame "
            f"{index} (counted from 0); set the cell, or pbc to False"
        )
    if len(atoms) == 0 or not np.isfinite(atoms.positions).all():
        raise UserError(
            f"expected atoms at finite positions, got {atoms.symbols} in frame {index} "
            f"(counted from 0) with none, or with NaN or infinity; repair the data"
        )


def _require_finite(m: Moments, group: list[Block], start: int, count: int) -> None:
    bad = (~m.second.isfinite().all(dim=2).all(dim=1)).nonzero().flatten().tolist()
    if bad:
        block = group[bad[0]]
        raise UserError(
            f"expected finite features in `{block.field}`, got NaN or infinity in "
            f"layer {block.name}, frames {start} to {start + count - 1} (counted from "
            f"0); check these frames, or the training that the model comes from"
        )


def _has_edges(found: Features, field_type: Callable[[str], str]) -> bool:
    if found.outputs:
        return found.rows == "edge"
    return field_type(found.blocks[0].field) == "edge"


def _title(found: Features) -> str:
    """The field that the model outputs, or what a tap takes."""
    return found.title.split(",")[0] if found.outputs else found.blocks[0].field


def _names(model: nn.Module, found: Features) -> dict[Block, str]:
    names = {block: block.name.replace("_", " ") for block in found.blocks}
    first = found.blocks[0]
    if nequip_models.find_allegro(model) == (first.field, first.channels):
        names[first] = "0 (two-body)"
    return names


def _reports(pooled: Moments, names: list[str]) -> list[LayerReport]:
    pooled = Moments(*(part.cpu() for part in pooled))
    diagnosis = diagnose(pooled)
    matrices = correlation(pooled, floor=0.0)
    eigenvalues = torch.linalg.eigvalsh(matrices).flip(1)
    dead = ~live_channels(pooled)
    return [
        LayerReport(
            name=name,
            channels=matrices.shape[1],
            mean_abs=float(diagnosis.mean_abs[i]),
            rms=float(diagnosis.rms[i]),
            maximum=float(diagnosis.maximum[i]),
            mean_square_debiased=float(diagnosis.mean_square_debiased[i]),
            effective_rank=float(diagnosis.rankme[i]),
            participation_ratio=float(diagnosis.participation_ratio[i]),
            dead_channels=tuple(dead[i].nonzero().flatten().tolist()),
            eigenvalues=tuple(eigenvalues[i].tolist()),
            correlation=tuple(map(tuple, matrices[i].tolist())),
        )
        for i, name in enumerate(names)
    ]
