"""Per-layer correlation of a saved model's features over a data file.

For a person who has a model, trained with the term or without, and wants to know how
redundant its channels are. Everything is measured over all rows (edges) of the data
pooled, with the functions that training uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from . import _host
from .features import FeatureLayout, find_layout
from .functional import (
    Moments,
    as_blocks,
    correlation,
    diagnose,
    live_channels,
    merge,
    moments,
)
from .inspection import Inspection, LayerReport

if TYPE_CHECKING:
    from ase import Atoms

#: What nequip-compile writes; such a model returns energies and forces alone.
COMPILED_SUFFIXES = (".pt2", ".pth", ".pt")


def load_model(path: str | Path, device: str = "cpu") -> nn.Module:
    """Load a checkpoint or package for its features: evaluation mode, no derivatives.

    The weights are those that NequIP evaluates with (the averaged ones under EMA).

    Args:
        path: a ``.ckpt`` of ``nequip-train`` or ``.nequip.zip`` of ``nequip-package``.
        device: where it shall run, as torch names it.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is a compiled model or cannot be read, or the device is not
            there.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a model file, got {path}: no such file")
    if path.suffix in COMPILED_SUFFIXES:
        raise ValueError(
            f"expected a checkpoint (.ckpt) or package (.nequip.zip), got the compiled "
            f"model {path}, which does not output features; give the file it was "
            f"compiled from"
        )
    from nequip.model.saved_models import load_utils
    from nequip.utils.global_state import set_global_state

    set_global_state(allow_tf32=False)
    try:
        model: nn.Module = load_utils.load_saved_model(str(path))
    except Exception as error:
        raise ValueError(
            f"expected a checkpoint (.ckpt) or package (.nequip.zip) that NequIP can "
            f"load, got {path}: {_one_line(error)}"
        ) from error
    try:
        model = model.eval().requires_grad_(False).to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"expected a device that torch can use, got '{device}': {_one_line(error)}"
        ) from error
    for module in model.modules():
        # Features need no forces; by attribute, since a package brings its own classes
        if hasattr(module, "do_derivatives"):
            module.do_derivatives = False  # type: ignore[assignment]
    return model


def read_frames(path: str | Path, max_frames: int | None = None) -> Iterator[Atoms]:
    """Frames of a file that ase reads, one at a time, at most ``max_frames``.

    Raises:
        FileNotFoundError: at once, when there is no such file.
        ValueError: while reading, when ase cannot, or when there is no frame in it.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"expected a data file, got {path}: no such file")
    return _read(path, max_frames)


def _read(path: str | Path, max_frames: int | None) -> Iterator[Atoms]:
    import ase.io

    empty = True
    try:
        for atoms in islice(ase.io.iread(path), max_frames):
            empty = False
            yield atoms
    except Exception as error:
        raise ValueError(
            f"expected a data file that ase reads (extxyz, traj, ...), got {path}: "
            f"{_one_line(error)}"
        ) from error
    if empty:
        raise ValueError(f"expected at least one frame in {path}, got none")


def inspect_model(
    model: nn.Module,
    frames: Iterable[Atoms],
    *,
    field: str | None = None,
    layer_dim: int | None = None,
    batch_size: int = 5,
    on_frames: Callable[[int], object] = lambda count: None,
    model_name: str = "",
    data_name: str = "",
) -> Inspection:
    """Run a model over frames and describe the correlations of its features.

    Args:
        model: a ``GraphModel`` in evaluation mode, see :func:`load_model`.
        frames: structures; labels in them are not read.
        field, layer_dim: see :func:`.features.find_layout`.
        batch_size: frames in one call of the model; does not change the result beyond
            rounding.
        on_frames: called after each batch with the number of its frames.
        model_name, data_name: what the result shall call them.

    Raises:
        ValueError: when the model has no such features, does not know an element, or
            there is nothing to correlate (no frames, no edges, features not finite).
    """
    from nequip.data import get_field_type

    if batch_size < 1:
        raise ValueError(f"expected a batch size of at least 1, got {batch_size}")
    layout = find_layout(model, field, layer_dim)
    pooled: Moments | None = None
    count = 0
    for batch, data in _batches(model, frames, batch_size):
        output = model(data)
        blocks = as_blocks(output[layout.field].detach(), layout.layer_dim)
        _require_finite(blocks, layout.field, count, len(batch))
        # float32 products leave eigenvalues of 1e-6 where there are none, and the
        # effective rank counts their roots
        new = moments(blocks.double())
        pooled = new if pooled is None else merge(pooled, new)
        count += len(batch)
        on_frames(len(batch))
    row_kind = "edges" if get_field_type(layout.field) == "edge" else "atoms"
    rows = 0 if pooled is None else int(pooled.rows)
    if pooled is None or rows < 2:
        raise ValueError(
            f"expected at least two {row_kind} to correlate over, got {rows} in "
            f"{count} frames; give frames with atoms within the model's cutoff"
        )
    return Inspection(
        model=model_name,
        data=data_name,
        field=layout.field,
        frames=count,
        rows=rows,
        row_kind=row_kind,
        layers=_layer_reports(pooled, _layer_names(model, layout)),
    )


def inspect_file(
    model_path: str | Path,
    data_path: str | Path,
    *,
    field: str | None = None,
    layer_dim: int | None = None,
    batch_size: int = 5,
    max_frames: int | None = None,
    device: str = "cpu",
    on_frames: Callable[[int], object] = lambda count: None,
) -> Inspection:
    """:func:`inspect_model` for a model file and a data file, whose errors it shares.

    Raises:
        FileNotFoundError: when one of them does not exist.
        ValueError: see :func:`load_model`, :func:`read_frames`, :func:`inspect_model`.
    """
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"expected at least 1 frame to read, got {max_frames}")
    frames = read_frames(data_path, max_frames)
    return inspect_model(
        load_model(model_path, device),
        frames,
        field=field,
        layer_dim=layer_dim,
        batch_size=batch_size,
        on_frames=on_frames,
        model_name=str(model_path),
        data_name=str(data_path),
    )


def _batches(
    model: nn.Module, frames: Iterable[Atoms], batch_size: int
) -> Iterator[tuple[list[Atoms], Any]]:
    """Frames in batches, as ase has them and as the model takes them."""
    from ase.calculators.calculator import all_properties
    from nequip.data import AtomicDataDict, from_ase
    from nequip.integrations.utils import basic_transforms

    metadata: Any = model.metadata
    type_names = metadata["type_names"].split(" ")
    identity = {name: name for name in type_names}
    transforms = basic_transforms(
        metadata, float(metadata["r_max"]), type_names, identity
    )
    device = next(model.parameters()).device

    def prepare(atoms: Atoms, index: int) -> Any:
        _check_frame(atoms, index, type_names)
        # frames need not have the same labels, and nothing here reads them
        data = from_ase(atoms, exclude_keys=all_properties)
        for transform in transforms:
            data = transform(data)
        return data

    remaining = enumerate(frames)
    while batch := list(islice(remaining, batch_size)):
        data = AtomicDataDict.batched_from_list([prepare(a, i) for i, a in batch])
        yield [a for _, a in batch], AtomicDataDict.to_(data, device)


def _check_frame(atoms: Atoms, index: int, type_names: list[str]) -> None:
    unknown = sorted(set(atoms.symbols) - set(type_names))
    if unknown:
        raise ValueError(
            f"expected only the elements that the model knows, {type_names}, got "
            f"{unknown} in frame {index} (counted from 0)"
        )
    if len(atoms) == 0 or not np.isfinite(atoms.positions).all():
        raise ValueError(
            f"expected atoms at finite positions, got {atoms.symbols} in frame {index} "
            f"(counted from 0) with none, or with NaN or infinity; repair the data"
        )


def _require_finite(blocks: Tensor, field: str, start: int, count: int) -> None:
    bad = (~blocks.isfinite().all(dim=2)).any(dim=0).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"expected finite features in `{field}`, got NaN or infinity in layer "
            f"{bad[0]}, frames {start} to {start + count - 1} (counted from 0); check "
            f"these frames, or the training that the model comes from"
        )


def _layer_names(model: nn.Module, layout: FeatureLayout) -> list[str]:
    names = [str(layer) for layer in range(layout.layers)]
    if _host.find_allegro(model) == (layout.field, layout.layer_dim):
        names[0] = "0 (two-body)"
    return names


def _layer_reports(pooled: Moments, names: list[str]) -> tuple[LayerReport, ...]:
    pooled = Moments(*(part.cpu() for part in pooled))
    diagnosis = diagnose(pooled)
    matrices = correlation(pooled, floor=0.0)
    eigenvalues = torch.linalg.eigvalsh(matrices).flip(1)
    dead = ~live_channels(pooled)
    return tuple(
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
    )


def _one_line(error: Exception) -> str:
    """First line of an error's message, or its kind where there is none."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
