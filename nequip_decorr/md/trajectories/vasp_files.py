"""VASP's XDATCAR and vasprun.xml, one frame at a time."""

from __future__ import annotations

import gzip
import re
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from nequip_decorr.errors import UserError
from nequip_decorr.md.frames import Array
from nequip_decorr.md.trajectories.snapshot import Snapshot, Warn
from nequip_decorr.md.trajectories.streams import CutOffError, Lines, open_lines
from nequip_decorr.wording import named

PERIODIC = np.array([True, True, True])

#: Settings that are read from a vasprun.xml.
SETTINGS = ("POTIM", "IBRION", "ML_OUTBLOCK")


def read_xdatcar(path: Path, warn: Warn) -> Iterator[Snapshot]:
    """Frames of an XDATCAR (VASP 5 and 6), with fixed or variable cell.

    The file contains neither velocities nor the time step.

    Args:
        path: the file, which may be compressed (``.gz``).
        warn: called with warnings.

    Raises:
        UserError: if this is not an XDATCAR, or atoms differ from the first frame.
    """
    count = 0
    cell: Array | None = None
    numbers: NDArray[np.int64] | None = None
    try:
        with open_lines(path) as lines:
            while line := lines.next():
                if not line.strip() and not _scale_follows(lines):
                    continue
                if "configuration=" not in line:
                    before = numbers
                    cell, numbers = _xdatcar_header(lines)
                    if before is not None and not np.array_equal(before, numbers):
                        raise _other_atoms(path, before, numbers, count + 1)
                    continue
                if cell is None or numbers is None:
                    raise _no_xdatcar(path)
                scaled = _xdatcar_positions(lines, len(numbers), count)
                count += 1
                yield Snapshot(
                    numbers=numbers,
                    positions_A=scaled @ cell,
                    cell_A=cell,
                    pbc=PERIODIC,
                    wrapped=True,
                )
    except CutOffError:
        warn(
            f"frame {count + 1} of {path} is incomplete and is skipped (was the run "
            "killed?)"
        )


def _xdatcar_header(lines: Lines) -> tuple[Array, NDArray[np.int64]]:
    block = lines.take(6)
    try:
        scale = float(block[0])
        cell = np.array([line.split() for line in block[1:4]], dtype=np.float64)
        names, counts = block[4].split(), [int(word) for word in block[5].split()]
        numbers = [_number_of(name) for name in names]
        cell *= scale if scale > 0 else (-scale / abs(np.linalg.det(cell))) ** (1 / 3)
    except (IndexError, ValueError, KeyError) as error:
        raise _no_xdatcar(lines.path) from error
    if not (len(names) == len(counts) > 0 and min(counts) > 0):
        raise _no_xdatcar(lines.path)
    return cell, np.repeat(np.array(numbers), counts)


def _scale_follows(lines: Lines) -> bool:
    """Whether the next line has the scale, so that this one is an empty title."""
    line = lines.next()
    lines.put_back([line] if line else [])
    return re.fullmatch(r"-?[\d.]+", line.strip()) is not None


def _number_of(name: str) -> int:
    """``Hf``, ``Hf_pv`` and ``Hf/5c7ae1`` are all hafnium."""
    return int(atomic_numbers[re.split(r"[_/]", name)[0]])


def _xdatcar_positions(lines: Lines, n_atoms: int, count: int) -> Array:
    block = lines.take(n_atoms)
    if len(block) < n_atoms or not block[-1].endswith("\n"):
        raise CutOffError
    try:
        return np.loadtxt(block, usecols=(0, 1, 2), comments=None, ndmin=2)
    except ValueError as error:
        raise UserError(
            f"expected {n_atoms} lines of numbers in each frame of {lines.path}, but "
            f"frame {count + 1} is damaged; remove that frame"
        ) from error


def _no_xdatcar(path: Path) -> UserError:
    return UserError(
        f"expected an XDATCAR of VASP 5 or newer (with a line of elements), got "
        f"{path}; check the file"
    )


def _other_atoms(
    path: Path, before: NDArray[np.int64], now: NDArray[np.int64], count: int
) -> UserError:
    return UserError(
        f"expected the {len(before)} atoms of the first frame in each frame of {path}, "
        f"got {len(now)} or different ones in frame {count}; put each simulation in "
        "its own file"
    )


@dataclass
class _Vasprun:
    """The header of a vasprun.xml, before its steps."""

    settings: dict[str, str] = field(default_factory=dict)
    symbols: list[str] = field(default_factory=list)


def read_vasprun(path: Path, warn: Warn) -> Iterator[Snapshot]:
    """Ionic steps of the MD in a vasprun.xml, with forces and energies.

    The temperature comes from the kinetic energy, as the file has no velocities. With
    ``ML_OUTBLOCK`` above 1 a step is written every so many, or each one, by version of
    VASP; such frames have no step.

    Args:
        path: the file, which may be compressed (``.gz``).
        warn: called with warnings.

    Raises:
        UserError: if this is not a vasprun.xml of an MD run.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    above, step, root = _Vasprun(), 0, None
    try:
        with opener(path, "rb") as handle:
            for event, element in ET.iterparse(handle, events=("start", "end")):
                if root is None:
                    root = element
                if event == "start":
                    continue
                _settings(element, above)
                if element.tag == "calculation":
                    _check_md(above, path)
                    each = above.settings.get("ML_OUTBLOCK", "1") == "1"
                    yield _ionic_step(element, above, step if each else None)
                    step += 1
                    root.clear()  # or the whole file would stay in memory
    except (ET.ParseError, EOFError) as error:
        if root is None or root.tag != "modeling":
            raise _no_vasprun(path, error) from error
        warn(
            f"{path} ends in the middle of step {step}, which is skipped (was the run "
            "killed?)"
        )
    except (OSError, AttributeError, zlib.error) as error:
        raise _no_vasprun(path, error) from error


def _no_vasprun(path: Path, error: Exception) -> UserError:
    return UserError(
        f"expected a vasprun.xml of an MD run, got {path} ({named(error)}); check "
        "the file"
    )


def _settings(element: ET.Element, above: _Vasprun) -> None:
    if element.tag == "i" and element.get("name") in SETTINGS:
        above.settings[str(element.get("name"))] = (element.text or "").strip()
    elif element.tag == "atominfo":
        rows = element.findall("array[@name='atoms']/set/rc")
        above.symbols = [(row[0].text or "").strip() for row in rows]


def _check_md(above: _Vasprun, path: Path) -> None:
    kind = above.settings.get("IBRION")
    if kind not in ("0", None):
        raise UserError(
            f"expected a vasprun.xml of an MD run (IBRION = 0), got IBRION = {kind} in "
            f"{path}; give that of the MD"
        )
    unknown = [name for name in above.symbols if name not in atomic_numbers]
    if unknown or not above.symbols:
        raise UserError(
            f"expected elements in {path}, got {', '.join(unknown) or 'none'}; check "
            "the file"
        )


def _ionic_step(element: ET.Element, above: _Vasprun, step: int | None) -> Snapshot:
    cell = _rows(element.find("structure/crystal/varray[@name='basis']"))
    scaled = _rows(element.find("structure/varray[@name='positions']"))
    forces = element.find("varray[@name='forces']")
    potim = _floats([above.settings.get("POTIM", "")])[0]
    return Snapshot(
        numbers=np.array([atomic_numbers[name] for name in above.symbols]),
        positions_A=scaled @ cell,
        cell_A=cell,
        pbc=PERIODIC,
        wrapped=True,
        step=step,
        timestep_fs=potim if potim > 0 else None,
        forces_eV_per_A=None if forces is None else _rows(forces),
        energy_eV=_energy(element, "e_fr_energy"),
        kinetic_energy_eV=_energy(element, "kinetic"),
    )


def _energy(element: ET.Element, name: str) -> float | None:
    found = element.find(f"energy/i[@name='{name}']")
    return None if found is None else _floats([found.text or ""])[0]


def _rows(varray: ET.Element | None) -> Array:
    """Vectors as rows."""
    if varray is None:
        raise AttributeError("a step without cell or positions")
    words = " ".join(v.text or "" for v in varray.findall("v")).split()
    return np.array(_floats(words)).reshape(-1, 3)


def _floats(words: Sequence[str]) -> list[float]:
    """Numbers; Fortran writes stars for one that is too wide for its field."""
    try:
        return [float(word) for word in words]
    except ValueError:
        return [float("nan") if "*" in w or not w else float(w) for w in words]
