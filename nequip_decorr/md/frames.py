"""One step of one replica, as shared by engines, tests and recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """One step of one replica.

    Attributes:
        replica: index of the replica.
        step: steps taken since its start.
        positions_A: (N, 3), not wrapped into the cell.
        momenta: (N, 3), ase units.
        forces_eV_per_A: (N, 3).
        energy_eV: potential energy.
    """

    replica: int
    step: int
    positions_A: Array
    momenta: Array
    forces_eV_per_A: Array
    energy_eV: float
