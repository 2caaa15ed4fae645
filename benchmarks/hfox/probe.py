"""A cheap static probe: what it costs two atoms to come too close.

Bond scans: in a start structure the nearest pair of each kind is pushed together along
its line, all other atoms fixed, down to the distance at which MD counts an overlap. The
energy on the way is the barrier that keeps MD from failing so. (Bond deformations as a
probe of smoothness: arXiv:2602.04861. The barrier is our own.)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

POINTS = 15
OVERLAP_RATIO = 0.6  #: of the sum of covalent radii, as in the stability criteria


def nearest_pair(atoms: Atoms, kind: tuple[str, str]) -> tuple[int, int]:
    """Indices of the closest two atoms of these elements."""
    symbols = np.array(atoms.get_chemical_symbols())
    distances = atoms.get_all_distances(mic=True)
    np.fill_diagonal(distances, np.inf)
    wanted = np.ix_(symbols == kind[0], symbols == kind[1])
    rows, columns = (
        np.flatnonzero(symbols == kind[0]),
        np.flatnonzero(symbols == kind[1]),
    )
    i, j = np.unravel_index(np.argmin(distances[wanted]), distances[wanted].shape)
    return int(rows[i]), int(columns[j])


def scan(atoms: Atoms, pair: tuple[int, int], calculator: Any) -> np.ndarray:
    """Energies (eV) relative to the start, from there to the overlap distance."""
    atoms = atoms.copy()
    atoms.calc = calculator
    i, j = pair
    line = atoms.get_distance(i, j, mic=True, vector=True)
    start = np.linalg.norm(line)
    numbers = [atomic_numbers[atoms[k].symbol] for k in pair]
    end = OVERLAP_RATIO * sum(covalent_radii[n] for n in numbers)
    positions = atoms.get_positions()
    energies = []
    for distance in np.linspace(start, end, POINTS):
        moved = positions.copy()
        step = 0.5 * (start - distance) * line / start
        moved[i] += step
        moved[j] -= step
        atoms.set_positions(moved)
        energies.append(atoms.get_potential_energy())
    return np.array(energies) - energies[0]


def barriers(structures: Sequence[Atoms], calculator: Any) -> dict[str, Any]:
    """For each kind of pair the barrier (eV) of each structure."""
    elements = sorted(set(structures[0].get_chemical_symbols()))
    found = {}
    for kind in combinations_with_replacement(elements, 2):
        scans = [scan(a, nearest_pair(a, kind), calculator) for a in structures]
        found["-".join(kind)] = {
            "barrier_eV": [float(s.max()) for s in scans],
        }
    return found
