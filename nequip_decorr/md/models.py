"""Models to test: NequIP files of every kind, or any ase calculator."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nequip_decorr.errors import UserError
from nequip_decorr.md.files import file_sha256
from nequip_decorr.paths import check_file
from nequip_decorr.species import MAP_KEY, resolve_species_map, trained_species_map
from nequip_decorr.wording import named

#: kind of a model file -> how its name ends
KINDS = {
    "package": ".nequip.zip",
    "aotinductor": ".nequip.pt2",
    "torchscript": ".nequip.pth",
    "checkpoint": ".ckpt",
}

ADVICE = {
    "package": "make it with `nequip-package build CHECKPOINT NAME.nequip.zip`",
    "aotinductor": "make it with `nequip-compile --mode aotinductor --target TARGET`, "
    "where TARGET is `ase` for --engine ase and `batch` for --engine torchsim",
    "torchscript": "make it with `nequip-compile --mode torchscript`",
    "checkpoint": "give a checkpoint of nequip-train that this version can read",
}

Loader = Callable[[Path, str, str], Any]


@dataclass(frozen=True)
class ModelHandle:
    """A model that has been checked, and how to open it in any process.

    Attributes:
        path: the file, or the name of a calculator's class.
        kind: one of :data:`KINDS`, or ``calculator``.
        sha256: of the file; None for a calculator.
        species: chemical symbols that the model knows, None for any.
        species_map: element to the model's atom type; None if the types are named by
            their elements.
        cutoff_A: its cutoff, None when not known.
        open: makes the object that the engine uses; None when only ``loaded`` is
            there, and the model cannot go to other processes.
        loaded: that object in this process.
    """

    path: str
    kind: str
    sha256: str | None
    species: tuple[str, ...] | None
    cutoff_A: float | None
    open: Callable[[], Any] | None
    loaded: Any = field(repr=False, compare=False)
    species_map: dict[str, str] | None = None

    def identity(self) -> dict[str, Any]:
        """What identifies this model; a species map is part of it."""
        known = {"kind": self.kind, "sha256": self.sha256 or self.path}
        return known if self.species_map is None else {**known, **self._map()}

    def describe(self) -> dict[str, Any]:
        """What a result file says of the model."""
        return {
            "path": self.path,
            "sha256": self.sha256,
            "kind": self.kind,
            "species": None if self.species is None else list(self.species),
            **self._map(),
        }

    def _map(self) -> dict[str, Any]:
        return {} if self.species_map is None else {MAP_KEY: self.species_map}


@dataclass(frozen=True)
class _Opener:
    """Loads a model file; picklable, so that worker processes can."""

    loader: Loader
    path: Path
    kind: str
    device: str
    species_map: dict[str, str] = field(default_factory=dict)

    def __call__(self) -> Any:
        loaded = self.loader(self.path, self.kind, self.device)
        if self.species_map:
            set_species_map(loaded, self.species_map)
        return loaded


def model_kind(path: str | Path) -> str:
    """Kind of a model file, by the end of its name.

    Raises:
        UserError: when it ends like none of them.
    """
    for kind, ending in KINDS.items():
        if str(path).endswith(ending):
            return kind
    endings = ", ".join(f"{ending} ({kind})" for kind, ending in KINDS.items())
    raise UserError(
        f"expected a model file that ends in {endings}, got {path}; "
        "train with nequip-train or convert with nequip-package or nequip-compile"
    )


def model_stem(path: str | Path) -> str:
    """Name of a model file without what says its kind."""
    name = Path(path).name
    for ending in KINDS.values():
        name = name.removesuffix(ending)
    return name


def load_nequip_calculator(path: Path, kind: str, device: str) -> Any:
    """Load a model file as NequIP's ase calculator, which knows no element yet."""
    from nequip.integrations.ase import NequIPCalculator

    if kind in ("checkpoint", "package"):
        return NequIPCalculator._from_saved_model(
            path, device=device, chemical_species_to_atom_type_map={}
        )
    return NequIPCalculator.from_compiled_model(
        path, device=device, chemical_species_to_atom_type_map={}
    )


def load_model(
    path: str | Path,
    device: str = "cpu",
    loader: Loader = load_nequip_calculator,
    chemical_species_to_atom_type_map: Mapping[str, str] | None = None,
) -> ModelHandle:
    """Open a model file and find its elements and cutoff.

    Args:
        path: checkpoint, package, or compiled model.
        device: where the model runs, ``cpu`` or ``cuda``.
        loader: creates the object that the engine uses, from path, kind and device; it
            has the ``transforms`` of NequIP's integrations. Elements are mapped to
            types here, not there.
        chemical_species_to_atom_type_map: element to the model's atom type, as in
            NequIP's calculators; elements that are not in it cannot be run. By
            default, the map used in training (stored in checkpoints and packages), or
            the identity if all types are chemical symbols.

    Raises:
        UserError: if there is no such file, NequIP cannot load it, or the map is
            missing or does not fit the model.
    """
    path = check_file(path, "a model file")
    kind = model_kind(path)
    opener = _Opener(loader, path.resolve(), kind, device)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = opener()
            trained = trained_species_map(path)
        type_names, cutoff_A = _known(loaded.transforms)
    except Exception as error:
        raise UserError(
            f"expected a NequIP {kind} that loads on {device} for this engine, got "
            f"{path} ({named(error)}); {ADVICE[kind]}"
        ) from error
    species_map = resolve_species_map(
        type_names, chemical_species_to_atom_type_map, trained
    )
    set_species_map(loaded, species_map)
    # an identity in part says what the list of species says
    named_alike = all(element == name for element, name in species_map.items())
    return ModelHandle(
        path=str(path),
        kind=kind,
        sha256=file_sha256(path),
        species=tuple(
            sorted(species_map, key=lambda e: type_names.index(species_map[e]))
        ),
        cutoff_A=cutoff_A,
        open=replace(opener, species_map=species_map),
        loaded=loaded,
        species_map=None if named_alike else species_map,
    )


def set_species_map(loaded: Any, species_map: Mapping[str, str]) -> None:
    """Tell one of NequIP's integrations which element has which type."""
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper

    def mapped(transform: Any) -> Any:
        if not isinstance(transform, ChemicalSpeciesToAtomTypeMapper):
            return transform
        new = ChemicalSpeciesToAtomTypeMapper(
            transform.model_type_names, dict(species_map)
        )
        return new.to(transform.lookup_table.device)

    loaded.transforms = [mapped(transform) for transform in loaded.transforms]


def calculator_model(calculator: Any) -> ModelHandle:
    """An ase calculator, or a function that makes one, as a model.

    Only a function (importable by name) can be used with several processes.

    Raises:
        UserError: when it is neither, or has no energy and forces.
    """
    from ase.calculators.calculator import BaseCalculator

    is_calculator = isinstance(calculator, BaseCalculator)
    loaded = calculator if is_calculator else calculator()
    properties = getattr(loaded, "implemented_properties", ())
    if not {"energy", "forces"} <= set(properties):
        raise UserError(
            f"expected an ase calculator with energy and forces, got {loaded!r}"
        )
    return ModelHandle(
        path=f"{type(loaded).__module__}.{type(loaded).__qualname__}",
        kind="calculator",
        sha256=None,
        species=None,
        cutoff_A=None,
        open=None if is_calculator else calculator,
        loaded=loaded,
    )


def _known(transforms: Any) -> tuple[tuple[str, ...], float]:
    """Atom types and cutoff, from the transforms of an integration of NequIP."""
    from nequip.data.transforms import (
        ChemicalSpeciesToAtomTypeMapper,
        NeighborListTransform,
    )

    mapper = next(
        t for t in transforms if isinstance(t, ChemicalSpeciesToAtomTypeMapper)
    )
    neighbours = next(t for t in transforms if isinstance(t, NeighborListTransform))
    return tuple(mapper.model_type_names), float(neighbours.r_max)
