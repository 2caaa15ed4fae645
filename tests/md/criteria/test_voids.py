"""Voids, against the gaps and pores that structures are made with."""

import numpy as np
import pytest
from ase.build import bulk

from nequip_decorr.md.criteria.voids import has_void


@pytest.mark.parametrize("shear", [0.0, 2.0])
@pytest.mark.parametrize(("gap_A", "void"), [(0.0, False), (7.0, True)])
def test_void(gap_A, void, shear):
    """Copper with a gap: a sphere of 8 A fits from 1.8 A below to 1.8 A above 7 A."""
    atoms = bulk("Cu", cubic=True) * (2, 2, 3)
    cell = atoms.cell.array.copy()
    cell[2, 2] += gap_A
    cell[2, 0] += shear if gap_A else 0.0
    atoms.set_cell(cell)
    assert has_void(atoms) is void


def test_open_space_and_tiny_cells():
    open_space = bulk("Cu", cubic=True)
    open_space.pbc = False
    assert has_void(open_space)
    assert not has_void(bulk("Cu"))
    pore = bulk("Cu", cubic=True) * (4, 4, 4)
    distance = np.linalg.norm(pore.positions - pore.positions.mean(axis=0), axis=1)
    assert not has_void(pore)
    del pore[np.flatnonzero(distance < 5.0)]
    assert has_void(pore)
