"""One frame of a trajectory, whatever program wrote it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nequip_decorr.md.frames import Array

#: Receives what a user should know of a file, one line at a time.
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Snapshot:
    """One frame; data missing from the file are None.

    Atoms are in the same order in all frames of a trajectory.

    Attributes:
        numbers: atomic numbers, (N,).
        positions_A: (N, 3).
        cell_A: (3, 3), rows are the cell vectors.
        pbc: which directions are periodic, (3,).
        wrapped: whether positions are wrapped into the cell.
        joined: whether the frame continues another run than the frame before it.
        step: MD step, as counted by the program.
        timestep_fs: time step of the program.
        masses: (N,), amu.
        momenta: (N, 3), ase units.
        forces_eV_per_A: (N, 3).
        energy_eV: potential energy.
        kinetic_energy_eV: total kinetic energy, if there are no momenta.
        lost: indices of atoms that the program has lost; their values are NaN.
    """

    numbers: NDArray[np.int64]
    positions_A: Array
    cell_A: Array
    pbc: NDArray[np.bool_]
    wrapped: bool
    joined: bool = False
    step: int | None = None
    timestep_fs: float | None = None
    masses: Array | None = None
    momenta: Array | None = None
    forces_eV_per_A: Array | None = None
    energy_eV: float | None = None
    kinetic_energy_eV: float | None = None
    lost: tuple[int, ...] = ()
