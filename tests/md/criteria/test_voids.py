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


def test_a_huge_cell_is_not_searched():
    """A gas in a cell of a micrometre would need 1e12 points."""
    gas = bulk("Ar", cubic=True)
    gas.set_cell([1e4, 1e4, 1e4])
    assert has_void(gas)


@pytest.mark.parametrize("scale", [0.9, 1.0, 1.3, 1.5, 2.2, 4.0])
def test_a_crystal_that_is_stretched(scale):
    """Octahedral interstices of fcc are half a lattice constant from an atom."""
    crystal = bulk("Cu", a=5.0 * scale, cubic=True)
    assert has_void(crystal) is (5.0 * scale / 2 > 4.0)


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
