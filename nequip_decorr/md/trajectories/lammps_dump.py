"""LAMMPS text dumps (``dump ... custom``), one frame at a time.

https://docs.lammps.org/dump.html: atoms come in any order unless ``dump_modify sort``
is set, boxes are orthogonal or triclinic, and coordinates are wrapped (x), unwrapped
(xu), scaled (xs) or both (xsu).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from nequip_decorr.errors import UserError
from nequip_decorr.md.frames import Array
from nequip_decorr.md.trajectories import lammps_units
from nequip_decorr.md.trajectories.lammps_frame import (
    FORCES,
    IMAGES,
    VELOCITIES,
    Header,
    begins,
    box,
    coordinates_of,
    periodic,
    read_header,
    read_table,
    stacked,
)
from nequip_decorr.md.trajectories.snapshot import Snapshot, Warn
from nequip_decorr.md.trajectories.streams import CutOffError, open_lines


@dataclass(frozen=True)
class _Elements:
    """The atoms of the first frame, by id."""

    ids: NDArray[np.int64]
    column: str
    labels: NDArray[Any]
    numbers: NDArray[np.int64]
    masses: Array | None


def read_dump(
    path: Path,
    warn: Warn,
    *,
    types: Mapping[str, str] | None = None,
    log_types: Mapping[str, str] | None = None,
    units: str | None = None,
) -> Iterator[Snapshot]:
    """Frames of a text dump, sorted by atom id, in ase units.

    An incomplete frame (the run was killed while writing) is skipped with a warning.
    Atoms that are missing in a later frame are lost (:attr:`Snapshot.lost`): LAMMPS
    deletes an atom that leaves the box or moves too far between neighbour lists, and
    stops only if it comes to the next thermo output without ``thermo_modify lost``.

    Args:
        path: the file, which may be compressed (``.gz``).
        warn: called with warnings.
        types: LAMMPS atom type to chemical symbol; None to use the column ``element``.
        log_types: the same from a log, used if nothing else gives the elements.
        units: LAMMPS unit style; None uses the file's own, or metal.

    Raises:
        UserError: if the file is not a text dump, columns are missing, or atoms differ
            from those of the first frame.
    """
    first: _Elements | None = None
    style = ""
    step: int | None = None
    try:
        with open_lines(path) as lines:
            while begins(lines):
                step = None
                try:
                    header = read_header(lines)
                    step = header.step
                    table = read_table(lines, header)
                except CutOffError:
                    warn(_cut_off(path, step))
                    continue
                if first is None:
                    style = _style(header, units, path)
                    first = _elements(table, types, log_types, path)
                whole, lost = _sorted(table, first, header, path)
                yield _snapshot(header, whole, first, style, lost)
    except CutOffError:
        warn(_cut_off(path, None))


def _cut_off(path: Path, step: int | None) -> str:
    which = "a frame" if step is None else f"the frame of step {step}"
    return f"{which} of {path} is incomplete and is skipped (was the run killed?)"


def _style(header: Header, units: str | None, path: Path) -> str:
    own = header.units
    if own is not None and units is not None and own != units:
        raise UserError(
            f"expected units {own} as {path} says, got {units}; leave out --units"
        )
    return lammps_units.check_style(own or units or lammps_units.DEFAULT, str(path))


def _elements(
    table: NDArray[Any],
    types: Mapping[str, str] | None,
    log_types: Mapping[str, str] | None,
    path: Path,
) -> _Elements:
    """Atoms of the first frame."""
    table = table[np.argsort(table["id"], kind="stable")]
    ids = table["id"]
    if len(np.unique(ids)) < len(ids):
        raise UserError(
            f"expected each atom id once in a frame of {path}, got one twice; dump "
            "each trajectory to a file of its own"
        )
    names = table.dtype.names or ()
    # without `dump_modify element` LAMMPS writes C, whatever the type
    if types is None and "type" in names and set(_labels(table, "element")) <= {"C"}:
        types = log_types
    column = "type" if types is not None else "element"
    if column not in names:
        shown = " ".join(f"{n}=ELEMENT" for n in sorted(set(_labels(table, "type"))))
        raise UserError(
            f"expected a column {column} in {path}, got {' '.join(names)}; "
            + (
                f"say which type is what: --atom-types {shown or '1=ELEMENT'}"
                if column == "element"
                else "leave out --atom-types or dump the column"
            )
        )
    labels = table[column]
    present = sorted(set(labels.tolist()))
    known = dict(types) if types is not None else {name: name for name in present}
    if types is None and _all_carbon(table):
        shown = " ".join(f"{n}=ELEMENT" for n in sorted(set(_labels(table, "type"))))
        raise UserError(
            f"expected an element for each type in {path}, got C for all of them, "
            f"which LAMMPS writes without `dump_modify element`; give --atom-types "
            f"{shown}"
        )
    for label in present:
        if known.get(label) not in atomic_numbers:
            raise UserError(
                f"expected a chemical symbol for each {column} of {path}, got none for "
                f"{label!r}; say which type is what: --atom-types 1=ELEMENT ..."
            )
    numbers = np.array([atomic_numbers[known[label]] for label in labels.tolist()])
    masses = table["mass"].copy() if "mass" in names else None
    return _Elements(ids, column, labels, numbers, masses)


def _all_carbon(table: NDArray[Any]) -> bool:
    """Whether several types are all C, as without ``dump_modify element``."""
    elements, types = set(_labels(table, "element")), set(_labels(table, "type"))
    return elements == {"C"} and len(types) > 1


def _labels(table: NDArray[Any], name: str) -> list[str]:
    return table[name].tolist() if name in (table.dtype.names or ()) else []


def _sorted(
    table: NDArray[Any], first: _Elements, header: Header, path: Path
) -> tuple[NDArray[Any], tuple[int, ...]]:
    """The table sorted by id, with NaN for lost atoms, and the indices of these."""
    lost: tuple[int, ...] = ()
    ids = table["id"]
    if not (ids[1:] > ids[:-1]).all():
        table = table[np.argsort(ids, kind="stable")]
    if not np.array_equal(table["id"], first.ids):
        table, lost = _with_lost(table, first, header, path)
    changed = table[first.column] != first.labels
    if changed.any():
        raise UserError(
            f"expected atoms that keep their {first.column}, got atom "
            f"{int(table['id'][changed][0])} as another one in {path} at step "
            f"{header.step}; judge a run without such changes"
        )
    return table, lost


def _with_lost(
    table: NDArray[Any], first: _Elements, header: Header, path: Path
) -> tuple[NDArray[Any], tuple[int, ...]]:
    """The table with a row for each atom of the first frame; those without values."""
    present = np.isin(first.ids, table["id"])
    if int(present.sum()) != len(table):
        raise UserError(
            f"expected the {len(first.ids)} atoms of the first frame, got "
            f"{len(table)} or different ids in {path} at step {header.step}; only runs "
            "with a constant set of atoms can be judged"
        )
    whole = np.zeros(len(first.ids), dtype=table.dtype)
    for name in table.dtype.names or ():
        if table.dtype[name].kind == "f":
            whole[name] = np.nan
    whole["id"], whole[first.column] = first.ids, first.labels
    whole[present] = table
    return whole, tuple(np.flatnonzero(~present).tolist())


def _snapshot(
    header: Header,
    table: NDArray[Any],
    first: _Elements,
    style: str,
    lost: tuple[int, ...],
) -> Snapshot:
    names = table.dtype.names or ()
    cell, origin = box(header)
    found = coordinates_of(names)
    if found is None:
        raise AssertionError("read_table has coordinates")
    positions, wrapped = stacked(table, found.names), found.wrapped
    if found.scaled:
        positions = origin + positions @ cell
    if wrapped and set(IMAGES) <= set(names):
        positions = positions + stacked(table, IMAGES) @ cell
        wrapped = False
    masses = first.masses
    momenta = forces = None
    if set(VELOCITIES) <= set(names):
        weights = atomic_masses[first.numbers] if masses is None else masses
        velocities = stacked(table, VELOCITIES) * lammps_units.velocity(style)
        momenta = velocities * weights[:, None]
    if set(FORCES) <= set(names):
        forces = stacked(table, FORCES) * lammps_units.force(style)
    return Snapshot(
        numbers=first.numbers,
        positions_A=positions,
        cell_A=cell,
        pbc=periodic(header),
        wrapped=wrapped,
        step=header.step,
        masses=masses,
        momenta=momenta,
        forces_eV_per_A=forces,
        lost=lost,
    )
