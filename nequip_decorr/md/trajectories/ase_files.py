"""Trajectories read by ase: extended XYZ and ase's own ``.traj``."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.extxyz import read_extxyz
from ase.io.trajectory import TrajectoryReader

from nequip_decorr.errors import UserError
from nequip_decorr.md.frames import Array
from nequip_decorr.md.structures import VELOCITY_COLUMNS
from nequip_decorr.md.trajectories.snapshot import Snapshot, Warn
from nequip_decorr.md.trajectories.streams import CutOffError, Lines, open_lines
from nequip_decorr.wording import named


def read_xyz(path: Path, warn: Warn) -> Iterator[Snapshot]:
    """Frames of an (extended) XYZ file, which may be compressed (``.gz``).

    The MD step is read from ``step=``, and the time step from ``time_ps=`` beside it,
    as written by `nequip-decorr md`; or the MD step from ``Timestep: N``, as written by
    LAMMPS.

    Args:
        path: the file.
        warn: called with warnings.

    Raises:
        UserError: if this is not an XYZ file, or atoms differ from the first frame.
    """
    numbers: Any = None
    count = 0
    try:
        with open_lines(path) as lines:
            while (atoms := _next_xyz(lines, count)) is not None:
                if not count:
                    _warn_of_velocities(atoms, path, warn)
                    numbers = atoms.numbers
                count += 1
                _check_same(atoms, numbers, path, count)
                yield _snapshot(atoms)
    except CutOffError:
        warn(_cut_off(path, count + 1))


def _cut_off(path: Path, number: int) -> str:
    return (
        f"frame {number} of {path} is incomplete and is skipped (was the run killed?)"
    )


def read_traj(path: Path, warn: Warn) -> Iterator[Snapshot]:
    """Frames of an ase ``.traj`` file, up to one that cannot be read.

    Raises:
        UserError: if this is not such a file, or atoms differ from the first frame.
    """
    try:
        frames = TrajectoryReader(path)
        if not len(frames):
            return
        first = frames[0]
    except Exception as error:
        raise UserError(
            f"expected an ase trajectory with frames, got {path} "
            f"({named(error)}); check the file"
        ) from error
    _warn_of_velocities(first, path, warn)
    with frames:
        for count in range(len(frames)):
            try:
                atoms = frames[count]
            except Exception:
                warn(_cut_off(path, count + 1))
                return
            _check_same(atoms, first.numbers, path, count + 1)
            yield _snapshot(atoms)


def _next_xyz(lines: Lines, count: int) -> Atoms | None:
    """The next frame; None at the end of the file."""
    line = lines.next()
    while line and not line.strip():
        line = lines.next()
    if not line:
        return None
    try:
        n_atoms = int(line)
    except ValueError as error:
        raise UserError(
            f"expected a number of atoms before frame {count + 1} of {lines.path}, got "
            f"{line.strip()[:60]!r}; give a file in extended XYZ"
        ) from error
    block = [line, *lines.take(n_atoms + 1)]
    if len(block) < n_atoms + 2 or not block[-1].endswith("\n"):
        raise CutOffError  # half a number is a number, too
    try:
        # what ase.io.read calls, which takes longer than a small frame itself
        atoms: Atoms = next(read_extxyz(io.StringIO("".join(block)), slice(0, 1)))
    except Exception as error:
        raise UserError(
            f"expected extended XYZ that ase reads, got frame {count + 1} of "
            f"{lines.path} ({named(error)}); remove this "
            "frame"
        ) from error
    stamp = re.search(r"Timestep:\s*(\d+)", block[1])
    if stamp:
        atoms.info["step"] = int(stamp[1])
    return atoms


def _warn_of_velocities(atoms: Atoms, path: Path, warn: Warn) -> None:
    foreign = next((name for name in VELOCITY_COLUMNS if atoms.has(name)), None)
    if foreign is not None and not atoms.has("momenta"):
        warn(
            f"the column {foreign!r} of {path} is not used: the unit of its velocities "
            "is unknown (ase reads and writes momenta)"
        )


def _check_same(atoms: Atoms, numbers: Any, path: Path, count: int) -> None:
    if not np.array_equal(atoms.numbers, numbers):
        raise UserError(
            f"expected the {len(numbers)} atoms of the first frame in each frame of "
            f"{path}, got {len(atoms)} or different ones in frame {count}; put "
            "each simulation in its own file"
        )


def _snapshot(atoms: Atoms) -> Snapshot:
    info, results = atoms.info, dict(getattr(atoms.calc, "results", {}))
    if atoms.calc is not None:
        # it refers to itself, and so would be kept until the next garbage collection,
        # which comes late because it does not know how large arrays are
        vars(atoms.calc).clear()
    step = info.get("step")
    known = isinstance(step, int | np.integer)
    timestep_fs = None
    if known and step > 0 and isinstance(info.get("time_ps"), float):
        timestep_fs = 1000 * info["time_ps"] / step
    return Snapshot(
        numbers=atoms.numbers,
        positions_A=atoms.positions,
        cell_A=atoms.cell.array,
        pbc=atoms.pbc,
        wrapped=True,  # it may be; see unwrap
        step=int(step) if known else None,
        timestep_fs=timestep_fs,
        masses=atoms.get_masses(),
        momenta=atoms.arrays.get("momenta"),
        forces_eV_per_A=_array(results.get("forces")),
        energy_eV=_number(results.get("free_energy", results.get("energy"))),
    )


def _array(values: Any) -> Array | None:
    return None if values is None else np.asarray(values, dtype=np.float64)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
