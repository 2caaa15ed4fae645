"""Maps chemical elements to the atom types of a model.

The atom types of NequIP models need not be named by chemical symbols; a
``chemical_species_to_atom_type_map`` maps elements to types. NequIP keeps it in the
training config, a copy of which is in checkpoints and packages but not in compiled
models.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nequip_decorr.errors import UserError
from nequip_decorr.wording import nearest_name

#: NequIP's name for the map, in its transforms and its calculators
MAP_KEY = "chemical_species_to_atom_type_map"

#: How the command line names it, and says of it.
OPTION = "--atom-types"
OPTION_HELP = (
    "map elements to the model's atom types if the types are not chemical symbols; "
    "only compiled models need this, because checkpoints and packages contain the map"
)


def parse_species_map(items: Sequence[str]) -> dict[str, str]:
    """``["Hf=Hf_ion", "O=O_ion"]`` as ``{"Hf": "Hf_ion", "O": "O_ion"}``.

    Raises:
        UserError: for anything else, and for an element that is given twice.
    """
    return parse_pairs(items, form="ELEMENT=TYPE", example="Hf=Hf_ion O=O_ion")


def parse_pairs(items: Sequence[str], *, form: str, example: str) -> dict[str, str]:
    """The items of :data:`OPTION`, ``["a=b", ...]``, as ``{"a": "b", ...}``.

    Args:
        items: what the user wrote.
        form: names of both sides, for messages: ``LEFT=RIGHT``.
        example: what could be written, for messages.

    Raises:
        UserError: for anything else, and for a left side that is given twice.
    """
    found: dict[str, str] = {}
    for item in items:
        left, equals, right = item.partition("=")
        if not (left and equals and right):
            raise UserError(
                f"expected {form} for {OPTION}, got {item!r}; write "
                f"`{OPTION} {example}`, after the files"
            )
        if left in found:
            raise UserError(
                f"expected each {form.partition('=')[0].lower()} once for {OPTION}, "
                f"got {left} as {found[left]} and as {right}"
            )
        found[left] = right
    return found


def resolve_species_map(
    type_names: Sequence[str],
    given: Mapping[str, str] | None,
    trained: Mapping[str, str] | None,
) -> dict[str, str]:
    """The map to run a model with: element to atom type.

    Args:
        type_names: the model's atom types.
        given: the user's map, which need not name all types; None for none.
        trained: the map of the training; None if unknown. It is ignored if the types
            are chemical symbols and it adds nothing to that.

    Raises:
        UserError: if ``given`` contains unknown elements or types, or is needed but
            missing.
    """
    from ase.data import atomic_numbers

    if given is not None:
        _check(given, type_names)
        return dict(given)
    identity = {name: name for name in type_names if name in atomic_numbers}
    plain = len(identity) == len(type_names)
    known = trained if trained and set(trained.values()) <= set(type_names) else None
    if plain and all(identity.get(key) == name for key, name in (known or {}).items()):
        return identity
    if known is not None:
        return dict(known)
    foreign = [name for name in type_names if name not in atomic_numbers]
    example = " ".join(
        f"{_likely_element(name, atomic_numbers)}={name}" for name in type_names[:8]
    )
    raise UserError(
        f"expected atom types that are chemical symbols, or a map from elements to "
        f"them, got {', '.join(foreign[:8])} and no map in the model file; give "
        f"`{OPTION} {example}` ({MAP_KEY} in Python)"
    )


def trained_species_map(path: Path) -> dict[str, str] | None:
    """The map in the training config inside a checkpoint or package.

    None when there is none, or two that contradict each other.
    """
    if str(path).endswith(".nequip.zip"):
        config = _packaged_config(path)
    elif str(path).endswith((".nequip.pt2", ".nequip.pth")):
        return None
    else:
        config = _checkpoint_config(path)
    return configured_species_map(
        config.get("data") if isinstance(config, Mapping) else None
    )


def configured_species_map(data: Any) -> dict[str, str] | None:
    """The map in the ``data`` section of a training config, in plain types.

    None when there is none, or two that contradict each other.
    """
    found: dict[str, str] = {}
    for one in _maps(data):
        if any(found.get(element, name) != name for element, name in one.items()):
            return None
        found.update(one)
    return found or None


def _check(given: Mapping[str, str], type_names: Sequence[str]) -> None:
    from ase.data import atomic_numbers

    if not given:
        raise UserError(f"expected at least one element in {MAP_KEY}, got none")
    for element, name in given.items():
        if element not in atomic_numbers:
            raise UserError(
                f"expected chemical symbols in {MAP_KEY}, got {element!r}"
                f"{nearest_name(element.capitalize(), atomic_numbers)}"
            )
        if name not in type_names:
            raise UserError(
                f"expected atom types of the model ({', '.join(type_names)}) in "
                f"{MAP_KEY}, got {element}={name}{nearest_name(name, type_names)}"
            )


def _likely_element(name: str, symbols: Mapping[str, int]) -> str:
    """The element that a type is likely named after, for an example."""
    start = re.match(r"[A-Z][a-z]?", name)
    if start is None:
        return "ELEMENT"
    return next((s for s in (start[0], start[0][0]) if s in symbols), "ELEMENT")


def _checkpoint_config(path: Path) -> Any:
    import torch

    # mapped, so that the weights are not read; only zip files can be
    content = torch.load(
        path, map_location="cpu", weights_only=False, mmap=zipfile.is_zipfile(path)
    )
    return content.get("hyper_parameters", {}).get("info_dict")


def _packaged_config(path: Path) -> Any:
    with zipfile.ZipFile(path) as package:
        for name in package.namelist():
            if name.endswith("/model/config.yaml"):
                return yaml.safe_load(package.read(name))
    return None


def _maps(config: Any) -> Iterator[dict[str, str]]:
    """All maps in a config, wherever a data module has its transforms."""
    if isinstance(config, Mapping):
        found = config.get(MAP_KEY)
        if isinstance(found, Mapping):
            yield {str(key): str(name) for key, name in found.items()}
        for value in config.values():
            yield from _maps(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _maps(value)
