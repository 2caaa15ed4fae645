"""Load what is inspected: a saved model and the frames of a data file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from nequip_decorr.errors import UserError
from nequip_decorr.paths import check_file, split_index
from nequip_decorr.wording import named

if TYPE_CHECKING:
    from ase import Atoms

#: What nequip-compile writes; such a model returns energies and forces alone.
COMPILED_SUFFIXES = (".pt2", ".pth", ".pt")


def load_feature_model(path: str | Path, device: str = "cpu") -> nn.Module:
    """Load a checkpoint or package to compute features: evaluation mode, no forces.

    The weights are those NequIP evaluates with (the averaged ones under EMA).

    Args:
        path: a ``.ckpt`` of ``nequip-train`` or ``.nequip.zip`` of ``nequip-package``.
        device: device to run on, as torch names it.

    Raises:
        UserError: when there is no such file, it is a compiled model or cannot be
            read, or the device is not available.
    """
    path = check_file(path, "a model file")
    if path.suffix in COMPILED_SUFFIXES:
        raise UserError(
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
        raise UserError(
            f"expected a checkpoint (.ckpt) or package (.nequip.zip) that NequIP can "
            f"load, got {path}: {named(error)}"
        ) from error
    try:
        model = model.eval().requires_grad_(False).to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"expected a device that torch can use, got '{device}': {named(error)}"
        ) from error
    for module in model.modules():
        # Features need no forces; by attribute, since a package brings its own classes
        if hasattr(module, "do_derivatives"):
            module.do_derivatives = False  # type: ignore[assignment]
    return model


def read_frames(path: str | Path, max_frames: int | None = None) -> Iterator[Atoms]:
    """Frames of a file that ase reads, one at a time, at most ``max_frames``.

    ``file@0:10:2`` picks from them, as in ase.

    Raises:
        UserError: at once, when there is no such file; while reading, when ase cannot
            read it or it has no frames.
    """
    if not split_index(path)[0].exists():
        # a folder is for ase to judge, which has formats that are folders
        raise UserError(
            f"expected a data file, got {path}, which does not exist; give the file's "
            "path"
        )
    return _read(path, max_frames)


def _read(path: str | Path, max_frames: int | None) -> Iterator[Atoms]:
    import ase.io

    empty = True
    name, index = split_index(path)
    try:
        frames = ase.io.iread(name, index or ":", do_not_split_by_at_sign=True)
        for atoms in islice(frames, max_frames):
            empty = False
            yield atoms
    except Exception as error:
        raise UserError(
            f"expected a data file that ase reads (extxyz, traj, ...), got {path}: "
            f"{named(error)}"
        ) from error
    if empty:
        raise UserError(f"expected at least one frame in {path}, got none")
