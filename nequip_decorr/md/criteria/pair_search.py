"""Search for pairs of atoms in periodic cells, also in ones that are almost empty."""

from __future__ import annotations

import numpy as np
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nequip_decorr.md.frames import Array

Indices = NDArray[np.int64]
Search = tuple[Indices, Indices, Array]

#: Largest cell for a search by bins, in cubes of the cutoff. Any matter of a million
#: atoms fits in it; a cell that explodes would need more memory than there is.
MOST_BINS = 1e7


def periodic_pairs(
    positions_A: Array, cell_A: Array, pbc: NDArray[np.bool_], cutoff_A: float
) -> Search:
    """All pairs up to a distance, each in both directions, images included.

    Args:
        positions_A: (N, 3).
        cell_A: (3, 3), a complete cell.
        pbc: periodic directions, (3,).
        cutoff_A: the distance.

    Returns:
        First atoms, second atoms, and the cell translations of the second, (pairs, 3).
    """
    if abs(np.linalg.det(cell_A)) > MOST_BINS * cutoff_A**3:
        return _sparse_pairs(positions_A, cell_A, pbc, cutoff_A)
    first, second, shift = neighbour_list(
        "ijS", positions=positions_A, cell=cell_A, pbc=pbc, cutoff=cutoff_A
    )
    return first, second, shift


def _sparse_pairs(
    positions_A: Array, cell_A: Array, pbc: NDArray[np.bool_], cutoff_A: float
) -> Search:
    """By a tree of the atoms and one of their images, whatever the size of the cell."""
    inverse = np.linalg.inv(cell_A)
    fractions = positions_A @ inverse
    home = np.where(pbc, np.floor(fractions), 0.0)
    inside = fractions - home
    margin = cutoff_A * np.linalg.norm(inverse, axis=0)
    reach = np.where(pbc, np.ceil(margin), 0).astype(int)
    images = np.indices((2 * reach + 1).tolist()).reshape(3, -1).T - reach
    copies = inside[None] + images[:, None]
    near = ((copies >= -margin) & (copies <= 1 + margin)) | ~pbc
    image, owner = np.nonzero(near.all(axis=2))
    found = cKDTree(inside @ cell_A).sparse_distance_matrix(
        cKDTree(copies[image, owner] @ cell_A), cutoff_A, output_type="ndarray"
    )
    first, second = found["i"], owner[found["j"]]
    shift = images[image[found["j"]]] + home[first] - home[second]
    other = (first != second) | shift.any(axis=1)
    return first[other], second[other], shift[other]
