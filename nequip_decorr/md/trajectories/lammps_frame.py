"""The text of a LAMMPS dump: headers, boxes and columns of one frame."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nequip_decorr.errors import UserError
from nequip_decorr.md.frames import Array
from nequip_decorr.md.trajectories.streams import CutOffError, Lines

#: How a frame begins; with ``dump_modify time`` or ``units`` the others come first.
BEGIN = re.compile(r"ITEM: (TIMESTEP|TIME|UNITS)")
TILTS = ("xy", "xz", "yz")


class Coordinates(NamedTuple):
    """Columns of coordinates; scaled ones are fractions of the box."""

    names: tuple[str, str, str]
    scaled: bool
    wrapped: bool


#: By preference.
COORDINATES = (
    Coordinates(("xu", "yu", "zu"), scaled=False, wrapped=False),
    Coordinates(("xsu", "ysu", "zsu"), scaled=True, wrapped=False),
    Coordinates(("x", "y", "z"), scaled=False, wrapped=True),
    Coordinates(("xs", "ys", "zs"), scaled=True, wrapped=True),
)
IMAGES = ("ix", "iy", "iz")
VELOCITIES = ("vx", "vy", "vz")
FORCES = ("fx", "fy", "fz")


@dataclass(frozen=True)
class Header:
    """The header of a frame."""

    step: int
    n_atoms: int
    bounds: Array
    flags: list[str]
    units: str | None
    columns: list[str]


def begins(lines: Lines) -> bool:
    """Whether another frame begins; False at the end of the file."""
    line = lines.next()
    while line and not line.strip():
        line = lines.next()
    if line and not BEGIN.match(line):
        raise UserError(
            f"expected a LAMMPS text dump, got {lines.path} with {line.strip()[:60]!r} "
            "where 'ITEM: TIMESTEP' should be; use `dump ... custom`"
        )
    lines.put_back([line] if line else [])
    return bool(line)


def _line(lines: Lines) -> str:
    """A complete line of this frame."""
    line = lines.next()
    _check_whole([line], lines)
    return line.strip()


def _check_whole(block: Sequence[str], lines: Lines) -> None:
    """Raise CutOffError if a frame ends in these lines; the next one is put back."""
    for number, line in enumerate(block):
        found = BEGIN.search(line)
        if found is not None:
            lines.put_back([line[found.start() :], *block[number + 1 :]])
            raise CutOffError
    if not block or not block[-1].endswith("\n"):
        raise CutOffError


def _first_line(lines: Lines) -> str:
    """The item named by the first lines of a frame."""
    line = lines.next()
    _check_whole([line[1:]], lines)
    return line.removeprefix("ITEM: ").strip()


def read_header(lines: Lines) -> Header:
    """Read up to the column names.

    Raises:
        CutOffError: if the frame ends before them.
        UserError: if the frame has no box or no number of atoms.
    """
    found: dict[str, Any] = {"units": None}
    try:
        while "step" not in found:
            item = _first_line(lines)
            value = _line(lines)
            if item == "UNITS":
                found["units"] = value
            elif item == "TIMESTEP":
                found["step"] = int(value)
        while True:
            item = _line(lines).removeprefix("ITEM: ")
            if item.startswith("ATOMS"):
                found["columns"] = item.split()[1:]
                break
            if item.startswith("BOX BOUNDS"):
                found["flags"] = item.split()[2:]
                rows = [_line(lines).split() for _ in range(3)]
                found["bounds"] = np.array(rows, dtype=np.float64)
            elif item == "NUMBER OF ATOMS":
                found["n_atoms"] = int(_line(lines))
            else:  # what is yet to come
                _line(lines)
    except ValueError as error:
        raise CutOffError from error
    for name, item in (("bounds", "BOX BOUNDS"), ("n_atoms", "NUMBER OF ATOMS")):
        if name not in found:
            raise UserError(
                f"expected ITEM: {item} in each frame of {lines.path}, got none at "
                f"step {found['step']}; write the trajectory with `dump ... custom`"
            )
    return Header(**found)


def read_table(lines: Lines, header: Header) -> NDArray[Any]:
    """Atom columns by name, in the order of the file.

    Raises:
        CutOffError: if the frame ends before its last atom.
        UserError: if ids or coordinates are missing or not numbers.
    """
    columns = header.columns
    coordinates = coordinates_of(columns)
    if coordinates is None or "id" not in columns:
        missing = "id" if coordinates else "x y z"
        raise UserError(
            f"expected columns id and x y z (or xu, xs, xsu) in {lines.path}, got "
            f"{' '.join(columns)} without {missing}; dump `id type element x y z vx vy "
            "vz`"
        )
    kinds: dict[str, Any] = {"id": np.int64}
    kinds |= {name: "U8" for name in ("type", "element") if name in columns}
    wanted = [*coordinates.names, "mass"]
    for names in (IMAGES, VELOCITIES, FORCES):
        wanted += names if set(names) <= set(columns) else ()
    kinds |= {name: np.float64 for name in wanted if name in columns}
    if not header.n_atoms:
        return np.empty(0, dtype=list(kinds.items()))
    block = lines.take(header.n_atoms)
    if len(block) < header.n_atoms or not block[-1].endswith("\n"):
        _check_whole(block, lines)
        raise CutOffError
    try:
        return np.loadtxt(
            block,
            dtype=list(kinds.items()),
            usecols=[columns.index(name) for name in kinds],
            comments=None,
            ndmin=1,
        )
    except ValueError as error:
        _check_whole(block, lines)
        if len(block[-1].split()) < len(columns):  # ended by what resumed the run
            raise CutOffError from error
        raise UserError(
            f"expected numbers in the columns of {lines.path}, got a line at step "
            f"{header.step} that is damaged; remove this frame"
        ) from error


def coordinates_of(columns: Sequence[str]) -> Coordinates | None:
    """The best available coordinates among these columns."""
    return next((c for c in COORDINATES if set(c.names) <= set(columns)), None)


def stacked(table: NDArray[Any], names: Sequence[str]) -> Array:
    """Some columns as an array, (N, columns)."""
    return np.stack([table[name] for name in names], axis=1)


def periodic(header: Header) -> NDArray[np.bool_]:
    """Periodic directions (``pp``); old LAMMPS versions do not write them."""
    flags = [flag for flag in header.flags if len(flag) == 2 and flag not in TILTS]
    return np.array([flag == "pp" for flag in flags[-3:]] or [True] * 3)


def box(header: Header) -> tuple[Array, Array]:
    """Cell vectors as rows, (3, 3), and the corner of the box, (3,)."""
    rows = header.bounds
    if "abc" in header.flags:  # general triclinic: a vector and the origin in each row
        return rows[:, :3], rows[:, 3]
    low, high = rows[:, 0].copy(), rows[:, 1].copy()
    xy = xz = yz = 0.0
    if rows.shape[1] == 3:  # https://docs.lammps.org/Howto_triclinic.html
        xy, xz, yz = rows[:, 2]
        low[0] -= min(0.0, xy, xz, xy + xz)
        high[0] -= max(0.0, xy, xz, xy + xz)
        low[1] -= min(0.0, yz)
        high[1] -= max(0.0, yz)
    x, y, z = high - low
    return np.array([[x, 0, 0], [xy, y, 0], [xz, yz, z]], dtype=np.float64), low
