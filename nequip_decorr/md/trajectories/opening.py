"""Opens the files of one replica: trajectory and log, and the time steps in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from nequip_decorr.errors import UserError
from nequip_decorr.md.trajectories.ase_files import read_traj, read_xyz
from nequip_decorr.md.trajectories.first_frame import check_first_frame
from nequip_decorr.md.trajectories.judging import atoms_of
from nequip_decorr.md.trajectories.lammps_dump import read_dump
from nequip_decorr.md.trajectories.lammps_log import RunLog, read_log
from nequip_decorr.md.trajectories.layout import Source
from nequip_decorr.md.trajectories.snapshot import Snapshot, Warn
from nequip_decorr.md.trajectories.timeline import continuous
from nequip_decorr.md.trajectories.vasp_files import read_vasprun, read_xdatcar

READERS: Mapping[str, Any] = {
    "dump": read_dump,
    "traj": read_traj,
    "vasprun": read_vasprun,
    "xdatcar": read_xdatcar,
    "xyz": read_xyz,
}


class NoFramesError(UserError):
    """A trajectory without a complete frame, as of a run that has not begun."""


#: How much the cell vectors of the start structure and the first frame may differ, A.
CELL_A = 1.0


@dataclass(frozen=True)
class Reading:
    """Settings for reading files.

    Attributes:
        types: LAMMPS atom type to chemical symbol, if dumps do not name elements.
        units: LAMMPS unit style; None to use that of the files.
        interval_steps: MD steps between frames, if the files do not state them.
        start: the structure from which all replicas started; None for the first frame
            of each.
    """

    types: Mapping[str, str] | None = None
    units: str | None = None
    interval_steps: int | None = None
    start: Atoms | None = None


@dataclass(frozen=True)
class Opened:
    """A replica whose first frames have been read.

    Attributes:
        source: files of the replica.
        log: LAMMPS log, or None.
        units: LAMMPS unit style; None for other programs.
        first: the first frame.
        start: reference structure for bonds and fragments.
        interval_steps: MD steps between the first two frames; None if there is one.
        timestep_fs: time step from the files, or None.
    """

    source: Source
    log: RunLog | None
    units: str | None
    first: Snapshot
    start: Atoms
    interval_steps: int | None
    timestep_fs: float | None

    @property
    def first_step(self) -> int:
        """The step that counts as time zero."""
        return self.first.step or 0


def open_replica(source: Source, reading: Reading) -> Opened:
    """Read the log and the first two frames of a replica, and check them.

    Raises:
        NoFramesError: for a file without a complete frame.
        UserError: for files that cannot be judged.
    """
    log = None if source.log is None else read_log(source.log, reading.units)
    units = _units(source, log, reading)
    frames = stream(source, log, reading, _ignore, alone=True)
    two = list(islice(frames, 2)) if source.path.stat().st_size else []
    if not two:
        raise NoFramesError(
            f"expected frames in {source.path}, got no complete one; check that the "
            "run has written some"
        )
    start = _start(two[0], reading, source.path)
    steps = [frame.step or 0 for frame in two]
    told = [frame.timestep_fs for frame in two if frame.timestep_fs is not None]
    if not np.allclose(told, told[-1:], rtol=1e-6, atol=0):
        told = []  # times and steps that are not counted from the same start
    from_log = None if log is None else log.timestep_fs
    return Opened(
        source=source,
        log=log,
        units=units,
        first=two[0],
        start=start,
        interval_steps=steps[1] - steps[0] if len(two) == 2 else None,
        timestep_fs=told[-1] if told else from_log,
    )


def stream(
    source: Source,
    log: RunLog | None,
    reading: Reading,
    warn: Warn,
    *,
    alone: bool = False,
) -> Iterator[Snapshot]:
    """All frames of a replica, with increasing steps and unwrapped positions.

    Args:
        source: files of the replica.
        log: LAMMPS log, whose units and types are used if nothing else gives them.
        reading: settings for reading files.
        warn: called with warnings.
        alone: leave the first frame where it is; otherwise its atoms are moved to the
            images nearest to those of the start structure.
    """
    reader = READERS[source.format]
    if source.format == "dump":
        reader = partial(
            reader,
            types=reading.types,
            log_types=None if log is None else log.types,
            units=_units(source, log, reading),
        )
    before = None if alone or reading.start is None else reading.start.positions
    return continuous(
        reader(source.path, warn), reading.interval_steps, source.path, warn, before
    )


def _units(source: Source, log: RunLog | None, reading: Reading) -> str | None:
    if source.format != "dump":
        return None
    of_log = None if log is None else log.units
    if reading.units is not None and of_log not in (None, reading.units):
        raise UserError(
            f"expected units {of_log} as {source.log} says, got {reading.units}; leave "
            "out --units"
        )
    return reading.units or of_log


def _start(first: Snapshot, reading: Reading, path: Path) -> Atoms:
    atoms = atoms_of(first)
    atoms.info["name"] = str(path)
    check_first_frame(atoms)
    if reading.start is None:
        return atoms
    start = reading.start.copy()
    start.set_constraint()  # ignored: the trajectory shows what moved
    if not np.array_equal(start.numbers, atoms.numbers):
        raise UserError(
            f"expected the atoms of {path} in the same order in --start, got "
            f"{start.get_chemical_formula()} in another order; sort it by atom id"
        )
    if first.masses is not None:  # or temperatures would be those of other masses
        start.set_masses(first.masses)
    apart = (start.cell.array - atoms.cell.array)[first.pbc]
    if not (np.abs(apart) <= CELL_A).all():
        raise UserError(
            f"expected the cell of {path} in --start, in the same orientation, got "
            f"lengths and angles {start.cell.cellpar().round(2).tolist()}; write it "
            "from the first frame or the data file of the run"
        )
    start.pbc = first.pbc  # many structure formats do not store periodicity
    check_first_frame(start)
    return start


def _ignore(_: str) -> None:
    """Ignore warnings here; they are given when the file is read to its end."""
