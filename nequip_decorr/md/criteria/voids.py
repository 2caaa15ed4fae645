"""Voids of a structure, beside which atoms may evaporate."""

from __future__ import annotations

import math

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

#: A sphere of this radius without an atom in it is a void, Angstrom: interstices of
#: dense matter are smaller.
VOID_RADIUS_A = 4.0

#: Distance of the points at which voids are looked for, Angstrom.
PROBE_SPACING_A = 1.0


def has_void(atoms: Atoms) -> bool:
    """Whether a sphere without the centre of any atom fits between the atoms.

    As in a vacuum, a pore, or beyond open boundaries.
    """
    if not atoms.pbc.all():
        return True
    if len(atoms) * 4 / 3 * math.pi * VOID_RADIUS_A**3 < atoms.get_volume():
        return True  # spheres around all atoms could not cover so large a cell
    cell = atoms.cell.array
    heights = 1 / atoms.cell.reciprocal().lengths()
    reach = np.ceil(VOID_RADIUS_A / heights).astype(int) + 1
    images = np.indices(2 * reach + 1).reshape(3, -1).T - reach
    wrapped = atoms.get_scaled_positions(wrap=True)
    copies = (wrapped[None] + images[:, None]).reshape(-1, 3)
    margin = VOID_RADIUS_A / heights
    kept = ((copies >= -margin) & (copies <= 1 + margin)).all(axis=1)
    counts = np.ceil(atoms.cell.lengths() / PROBE_SPACING_A).astype(int)
    probes = (np.indices(counts).reshape(3, -1).T / counts) @ cell
    nearest, _ = cKDTree(copies[kept] @ cell).query(
        probes, distance_upper_bound=VOID_RADIUS_A
    )
    return bool(np.isinf(nearest).any())
