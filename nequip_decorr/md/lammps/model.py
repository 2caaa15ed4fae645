"""Compiled models for LAMMPS pair styles, read without being loaded."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nequip_decorr.errors import UserError
from nequip_decorr.md.models import model_kind
from nequip_decorr.paths import check_file
from nequip_decorr.species import resolve_species_map
from nequip_decorr.wording import named


@dataclass(frozen=True)
class LammpsModel:
    """A compiled model for LAMMPS.

    Attributes:
        path: the model file.
        pair_style: ``allegro`` or ``nequip``.
        species_map: chemical symbol to model type, in the model's order.
        cutoff_A: cutoff of the model.
    """

    path: Path
    pair_style: str
    species_map: dict[str, str]
    cutoff_A: float

    @property
    def newton(self) -> str:
        """LAMMPS ``newton`` setting, which differs between the two pair styles."""
        return "on" if self.pair_style == "allegro" else "off"


def read_model(
    path: str | Path,
    species_map: Mapping[str, str] | None = None,
    device: str = "cpu",
) -> LammpsModel:
    """Read the metadata of a compiled model.

    The model is not loaded, so one compiled for a GPU can be read without a GPU.

    Args:
        path: a file compiled with ``nequip-compile`` for pair_allegro or pair_nequip.
        species_map: chemical symbol to model type, if types are not named by their
            elements.
        device: device in the suggested compile command.

    Raises:
        UserError: if LAMMPS cannot use the model (the message has the command that
            makes one), or the map does not fit it.
    """
    path = check_file(path, "a compiled model")
    kind = model_kind(path)
    if kind in ("checkpoint", "package"):
        raise UserError(
            f"expected a compiled model for LAMMPS, got the {kind} {path}; "
            f"compile it: {_command(path, device)}"
        )
    try:
        metadata, pair_style = _AS_READ[kind](path)
        type_names = metadata["type_names"].split()
        cutoff_A = float(metadata["r_max"])
    except (zipfile.BadZipFile, KeyError, ValueError, StopIteration) as error:
        raise UserError(
            f"expected a model written by nequip-compile, got {path} "
            f"({named(error)}); compile it again"
        ) from error
    if pair_style is None:
        raise UserError(
            f"expected a model compiled for LAMMPS, got {path}, compiled for something "
            f"else; compile the checkpoint again: {_command(Path('CKPT'), device)}"
        )
    found = resolve_species_map(type_names, species_map, None)
    in_order = sorted(found.items(), key=lambda item: type_names.index(item[1]))
    return LammpsModel(path, pair_style, dict(in_order), cutoff_A)


def _command(path: Path, device: str) -> str:
    """The command that compiles a checkpoint or package for LAMMPS."""
    name = path.name.removesuffix(".nequip.zip").removesuffix(".ckpt")
    return (
        f"nequip-compile {path} {name}.nequip.pt2 --device {device} --mode aotinductor "
        f"--target pair_allegro (a NequIP GNN: pair_nequip)"
    )


def _aotinductor(path: Path) -> tuple[Mapping[str, str], str | None]:
    """Metadata and pair style of a ``.nequip.pt2``, by its input and output fields."""
    from allegro._compile import PAIR_ALLEGRO_INPUTS
    from nequip.scripts._compile_utils import LMP_OUTPUTS, PAIR_NEQUIP_INPUTS
    from nequip.utils.aoti_metadata import (
        NEQUIP_AOTI_INPUTS_KEY,
        NEQUIP_AOTI_OUTPUTS_KEY,
    )

    with zipfile.ZipFile(path) as package:
        name = next(n for n in package.namelist() if n.endswith("_metadata.json"))
        metadata: dict[str, str] = json.loads(package.read(name))
    if metadata[NEQUIP_AOTI_OUTPUTS_KEY].split() != LMP_OUTPUTS:
        return metadata, None
    styles = {"allegro": PAIR_ALLEGRO_INPUTS, "nequip": PAIR_NEQUIP_INPUTS}
    inputs = metadata[NEQUIP_AOTI_INPUTS_KEY].split()
    return metadata, next((s for s, keys in styles.items() if keys == inputs), None)


def _torchscript(path: Path) -> tuple[Mapping[str, str], str | None]:
    """Metadata and pair style of a ``.nequip.pth``, from the code in it."""
    with zipfile.ZipFile(path) as package:
        names = package.namelist()
        metadata = {
            key: package.read(next(n for n in names if n.endswith(f"/extra/{key}")))
            for key in ("type_names", "r_max")
        }
    allegro = any("/__torch__/allegro/" in name for name in names)
    text = {key: value.decode("utf-8") for key, value in metadata.items()}
    return text, "allegro" if allegro else "nequip"


_AS_READ = {"aotinductor": _aotinductor, "torchscript": _torchscript}
