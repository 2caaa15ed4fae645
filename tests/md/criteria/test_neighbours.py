"""The pair tests against loops over all pairs and images."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import covalent_radii
from hypothesis import given, settings
from hypothesis import strategies as st

from nequip_decorr.md.criteria.neighbours import (
    Fragments,
    Isolation,
    Overlap,
    find_pairs,
    has_void,
)

SEEDS = st.integers(0, 2**32 - 1)


def all_pairs(atoms, positions):
    """(i, j, distance) of every atom with every image, one pair after the other."""
    reach = [np.arange(-6, 7) if periodic else np.zeros(1) for periodic in atoms.pbc]
    images = np.array(list(itertools.product(*reach))) @ atoms.cell.array
    for i, j in itertools.product(range(len(atoms)), repeat=2):
        distances = np.linalg.norm(positions[j] + images - positions[i], axis=1)
        for distance in distances[distances < 6.0]:
            if distance > 0:
                yield i, j, float(distance)


def limit(atoms, i, j, ratio):
    return ratio * sum(covalent_radii[atoms.numbers[[i, j]]])


def bonded(atoms, i, j, d):
    return d <= min(limit(atoms, i, j, 1.25), limit(atoms, i, j, 1.0) + 0.45)


def box(rng, n, pbc):
    """A skewed box of random atoms, some of them outside of it."""
    cell = np.diag(rng.uniform(4.0, 6.0, 3)) + rng.uniform(-0.8, 0.8, (3, 3))
    return Atoms(
        numbers=rng.choice([1, 8, 72], n),
        positions=rng.uniform(-3, 6, (n, 3)),
        cell=cell,
        pbc=pbc,
    )


PBC = st.sampled_from([(True,) * 3, (False,) * 3, (True, True, False)])


@given(seed=SEEDS, pbc=PBC)
@settings(deadline=None, max_examples=15)
def test_pairs(seed, pbc):
    atoms = box(np.random.default_rng(seed), 5, pbc)
    pairs = find_pairs(atoms, atoms.positions, 3.5)
    found = sorted(
        zip(pairs.first, pairs.second, pairs.distance_A.round(8), strict=True)
    )
    expected = sorted(
        (i, j, round(d, 8)) for i, j, d in all_pairs(atoms, atoms.positions) if d < 3.5
    )
    np.testing.assert_allclose(found, expected, atol=1e-7)


@given(seed=SEEDS, pbc=PBC)
@settings(deadline=None, max_examples=15)
def test_overlap_while_atoms_move(seed, pbc):
    """The kept list of pairs never hides a pair, however the atoms wander."""
    rng = np.random.default_rng(seed)
    atoms = box(rng, 4, pbc)
    overlap = Overlap(atoms, 0.6)
    positions = atoms.positions.copy()
    for _ in range(12):
        positions = positions + rng.normal(0, 0.15, positions.shape)
        worst = min(
            (
                (d / limit(atoms, i, j, 0.6), i, j)
                for i, j, d in all_pairs(atoms, positions)
            ),
            default=(9.0, 0, 0),
        )
        close = overlap(positions)
        if worst[0] >= 1:
            assert close is None
        else:
            assert close.distance_A / close.limit_A == pytest.approx(worst[0])
            assert sorted(close.atoms) == sorted(worst[1:])


@given(seed=SEEDS, pbc=PBC)
@settings(deadline=None, max_examples=15)
def test_isolation_while_atoms_move(seed, pbc):
    rng = np.random.default_rng(seed)
    atoms = box(rng, 5, pbc)
    bond = {}
    for i, j, d in all_pairs(atoms, atoms.positions):
        if bonded(atoms, i, j, d):
            bond[i] = min(d, bond.get(i, d))

    def near(positions):
        return {
            i
            for i, j, d in all_pairs(atoms, positions)
            if d <= 1.2 * max(limit(atoms, i, j, 1.0), bond.get(i, 0.0))
        }

    isolation = Isolation(atoms, 1.2)
    positions = atoms.positions
    for _ in range(12):
        positions = positions + rng.normal(0, 0.3, positions.shape)
        assert set(isolation(positions)) == set(bond) - near(positions)


@given(seed=SEEDS, pbc=PBC)
@settings(deadline=None, max_examples=15)
def test_fragments_while_atoms_move(seed, pbc):
    rng = np.random.default_rng(seed)
    atoms = box(rng, 5, pbc)

    def pieces(positions, near):
        label = list(range(len(atoms)))
        for i, j, d in all_pairs(atoms, positions):
            if near(i, j, d):
                old, new = label[j], label[i]
                label = [new if x == old else x for x in label]
        return label

    def connected(i, j, d):
        return d <= limit(atoms, i, j, 1.2)

    fragments = Fragments(atoms, 1.2)
    start = atoms.positions
    molecules = pieces(start, lambda i, j, d: bonded(atoms, i, j, d))
    assert fragments.at_start == max(
        len(set(molecules)), len(set(pieces(start, connected)))
    )
    positions = start
    for _ in range(12):
        positions = positions + rng.normal(0, 0.3, positions.shape)
        label = pieces(positions, connected)
        count, smallest = fragments(positions)
        if len(set(label)) > fragments.at_start:
            assert count == len(set(label))
            assert len({label[i] for i in smallest}) == 1
            assert len(smallest) == min(map(label.count, label))
        else:
            assert count <= fragments.at_start or count == len(set(label))


def test_a_molecule_far_apart():
    """Pieces may fly any distance: no box is built around them."""
    atoms = molecule("CH3CH2OH")
    fragments = Fragments(atoms, 1.5)
    assert fragments(atoms.positions) == (1, ())
    torn = atoms.positions.copy()
    torn[3] += 1e9
    assert fragments(torn) == (2, (3,))


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
