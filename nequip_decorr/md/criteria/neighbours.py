"""Tests based on neighbours: overlap, isolation, fragments, bonds.

Each test keeps a short list of pairs that is sufficient for most steps, and rebuilds it
only when atoms have moved far enough to invalidate it. The result is always the same as
that of a full search. Radii are the covalent radii of :data:`ase.data.covalent_radii`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree

from nequip_decorr.md.criteria.pair_search import periodic_pairs
from nequip_decorr.md.frames import Array

Indices = NDArray[np.int64]

#: Longest bond of a start structure over the sum of the covalent radii.
BOND_RATIO = 1.25

#: Longest bond beyond that sum, Angstrom (as Open Babel has it): two iodine molecules
#: touch at 1.26 times the sum.
BOND_TOLERANCE_A = 0.45

#: Pairs up to this much beyond the limit are watched, Angstrom.
SKIN_A = 0.5


class Pairs(NamedTuple):
    """Pairs of atoms, with the cell translation of the second, and their distances."""

    first: Indices
    second: Indices
    offset_A: Array
    distance_A: Array

    def lengths(self, positions_A: Array) -> Array:
        """Lengths at other positions."""
        vectors = positions_A[self.second] - positions_A[self.first] + self.offset_A
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)))

    def in_cell(self, atoms: Atoms, new_A: Array) -> Pairs:
        """The same pairs in a cell other than that of the atoms; distances are kept."""
        old_A = atoms.cell.complete().array
        shifts = np.round(self.offset_A @ np.linalg.inv(old_A))
        return self._replace(offset_A=in_vectors_of(new_A, shifts, old_A) @ new_A)

    def take(self, which: NDArray[np.bool_] | Indices | slice) -> Pairs:
        """The pairs selected by a mask or by indices, in their order."""
        return Pairs(
            self.first[which],
            self.second[which],
            self.offset_A[which],
            self.distance_A[which],
        )


def in_vectors_of(new_A: Array, shifts: Array, old_A: Array) -> Array:
    """Translations by whole vectors of one cell as those of another, (N, 3).

    A cell of another shape may span the same lattice: LAMMPS flips a box that tilts too
    far. A translation then has other multiples of its vectors.
    """
    flips = np.round(new_A @ np.linalg.inv(old_A))
    if round(abs(np.linalg.det(flips))) != 1:
        return shifts
    return np.asarray(np.round(shifts @ np.linalg.inv(flips)), dtype=np.float64)


def find_pairs(atoms: Atoms, positions_A: Array, cutoff_A: float) -> Pairs:
    """All pairs up to a distance, each in both directions, images included."""
    if not atoms.pbc.any():
        # a tree copes with a molecule in pieces that are far apart
        half = cKDTree(positions_A).query_pairs(cutoff_A, output_type="ndarray")
        first = np.concatenate([half[:, 0], half[:, 1]])
        second = np.concatenate([half[:, 1], half[:, 0]])
        offset = np.zeros((len(first), 3))
    else:
        first, second, shift = periodic_pairs(
            positions_A, atoms.cell.complete().array, atoms.pbc, cutoff_A
        )
        first, second = first.astype(np.int64), second.astype(np.int64)
        offset = shift @ atoms.cell.array
    pairs = Pairs(first, second, offset, np.empty(0))
    return pairs._replace(distance_A=pairs.lengths(positions_A))


def with_cell(atoms: Atoms, cell_A: Array) -> Atoms:
    """A copy with another cell; positions are unchanged."""
    copy = atoms.copy()
    copy.set_cell(cell_A)
    return copy


def covalent_sums(atoms: Atoms, pairs: Pairs) -> Array:
    """Sum of the covalent radii of each pair."""
    radii = covalent_radii[atoms.numbers]
    return np.asarray(radii[pairs.first] + radii[pairs.second])


def pairs_within(
    atoms: Atoms, positions_A: Array, ratio: float, skin_A: float = 0.0
) -> tuple[Pairs, Array]:
    """Pairs closer than ``ratio`` times their covalent sums (plus a skin); the sums."""
    cutoff = 2 * ratio * covalent_radii[atoms.numbers].max() + skin_A
    pairs = find_pairs(atoms, positions_A, cutoff)
    sums = covalent_sums(atoms, pairs)
    near = pairs.distance_A <= ratio * sums + skin_A
    return pairs.take(near), sums[near]


class Close(NamedTuple):
    """A pair with its distance and the sum of its covalent radii."""

    atoms: tuple[int, int]
    distance_A: float
    sum_A: float


class Closest:
    """The pair that is closest, relative to the sum of its covalent radii.

    Args:
        atoms: numbers, cell and periodicity.
        ratio: only pairs closer than this times the sum are found. May be lowered
            later through :attr:`ratio`.
    """

    def __init__(self, atoms: Atoms, ratio: float) -> None:
        self.ratio = ratio
        self._atoms = atoms
        self._built_at: Array | None = None
        self._skin_A = SKIN_A

    def __call__(self, positions_A: Array) -> Close | None:
        """The closest pair, or None."""
        way = self._way(positions_A)
        if not way <= self._skin_A / 2:
            self._build(positions_A)
            way = 0.0
        # a pair comes nearer by no more than the ways of its two atoms
        lowered = (self._built_ratio - self.ratio) * self._least_sum_A
        n_near = int(np.searchsorted(self._slack_A, 2 * way - lowered, side="right"))
        if not n_near:
            return None
        first, second = self._pairs.first[:n_near], self._pairs.second[:n_near]
        vectors = positions_A[second] - positions_A[first]
        vectors += self._pairs.offset_A[:n_near]
        squares = np.einsum("ij,ij->i", vectors, vectors)
        worst = int((squares / self._squared_sums[:n_near]).argmin())
        distance_A, sum_A = math.sqrt(squares[worst]), float(self._sums[worst])
        if not distance_A < self.ratio * sum_A:
            return None
        return Close((int(first[worst]), int(second[worst])), distance_A, sum_A)

    def follow_cell(self, cell_A: Array) -> None:
        """Test in another cell, (3, 3), from now on."""
        self._atoms = with_cell(self._atoms, cell_A)
        self._built_at = None

    def _way(self, positions_A: Array) -> float:
        """Largest displacement of an atom since the list was built."""
        if self._built_at is None:
            return np.inf
        moved = positions_A - self._built_at
        return math.sqrt(np.einsum("ij,ij->i", moved, moved).max())

    def _build(self, positions_A: Array) -> None:
        ratio = min(self.ratio, packed_ratio(self._atoms))
        # where atoms pile up, all pairs would be more than fit into memory; the closest
        # one is nearer than that
        self._skin_A = SKIN_A if ratio == self.ratio else 0.0
        pairs, sums = pairs_within(self._atoms, positions_A, ratio, self._skin_A)
        slack = pairs.distance_A - ratio * sums
        order = np.argsort(slack)
        order = order[(pairs.first <= pairs.second)[order]]
        self._pairs, self._sums = pairs.take(order), sums[order]
        self._squared_sums = self._sums**2
        self._slack_A = slack[order]
        self._built_at, self._built_ratio = positions_A, ratio
        self._least_sum_A = float(self._sums.min(initial=np.inf)) if len(order) else 0.0


def packed_ratio(atoms: Atoms) -> float:
    """A ratio of distance and sum of covalent radii below which there is a pair.

    No packing of spheres is denser than the close packing, so that two of N atoms in a
    periodic cell of volume V are at most ``(sqrt(2) V / N)^(1/3)`` apart. Infinite if
    the cell is not periodic in all directions.
    """
    if not atoms.pbc.all():
        return np.inf
    nearest_A = (math.sqrt(2) * atoms.get_volume() / len(atoms)) ** (1 / 3)
    # a little more, as positions are rounded
    return float(1.01 * nearest_A / (2 * covalent_radii[atoms.numbers].min()))


class Isolation:
    """Atoms that were bonded in the start structure and no longer have a neighbour.

    Bonds are defined by :func:`start_bonds`; noble gas atoms have none. A neighbour
    counts if it is within ``ratio`` times the atom's shortest bond, or times the sum of
    the covalent radii if that is longer.

    Args:
        atoms: the start structure.
        ratio: see above.
    """

    def __init__(self, atoms: Atoms, ratio: float) -> None:
        self._atoms = atoms
        self._ratio = ratio
        self._bond_A = _shortest_bonds(atoms)
        self._tested = np.isfinite(self._bond_A)
        widest = 2 * covalent_radii[atoms.numbers].max()
        self._reach_A = ratio * float(max([widest, *self._bond_A[self._tested]]))
        self._search(atoms.positions)
        self._settled = True

    def __call__(self, positions_A: Array) -> tuple[int, ...]:
        """Indices of the isolated atoms."""
        near = self._witness.lengths(positions_A) <= self._limits
        if self._settled and near.all():
            return ()
        alone = self._tested & ~self._search(positions_A)
        self._settled = not alone.any()
        return tuple(int(i) for i in np.flatnonzero(alone))

    def follow_cell(self, cell_A: Array) -> None:
        """Test in another cell, (3, 3), from now on."""
        self._witness: Pairs = self._witness.in_cell(self._atoms, cell_A)
        self._atoms = with_cell(self._atoms, cell_A)

    def _search(self, positions_A: Array) -> NDArray[np.bool_]:
        """Find the nearest neighbour of each bonded atom, and which atoms have one."""
        pairs = find_pairs(self._atoms, positions_A, self._reach_A)
        pairs = pairs.take(self._tested[pairs.first])
        longest = np.maximum(
            covalent_sums(self._atoms, pairs), self._bond_A[pairs.first]
        )
        limits = self._ratio * longest
        kept = pairs.distance_A <= limits
        pairs, limits = pairs.take(kept), limits[kept]
        order = np.lexsort((pairs.distance_A / limits, pairs.first))
        owners, best = np.unique(pairs.first[order], return_index=True)
        chosen = order[best]
        self._witness = pairs.take(chosen)
        self._limits = limits[chosen]
        found = np.zeros(len(self._atoms), dtype=bool)
        found[owners] = True
        return found


def _shortest_bonds(atoms: Atoms) -> Array:
    """Each atom's shortest bond, (N,), A; infinite where it has none."""
    bonds = start_bonds(atoms)
    shortest = np.full(len(atoms), np.inf)
    for ends in (bonds.first, bonds.second):
        np.minimum.at(shortest, ends, bonds.distance_A)
    return shortest


class Fragments:
    """Counts fragments, and finds one that came off if there are more than before.

    Args:
        atoms: the start structure.
        ratio: largest distance within a fragment, relative to the sum of the
            covalent radii.
    """

    def __init__(self, atoms: Atoms, ratio: float) -> None:
        self._atoms = atoms
        self._ratio = ratio
        pieces = 1 + int(self._search(atoms.positions).max())
        # molecules that only touch at the start may part
        self.at_start = max(pieces, _n_molecules(atoms))
        self._settled = True

    def __call__(self, positions_A: Array) -> tuple[int, tuple[int, ...]]:
        """Number of fragments (an upper bound), and the atoms of the smallest."""
        near = self._tree.lengths(positions_A) <= self._limits
        if self._settled and near.all():
            return self.at_start, ()
        labels = self._search(positions_A)
        sizes = np.bincount(labels)
        self._settled = len(sizes) <= self.at_start
        smallest = np.flatnonzero(labels == np.argmin(sizes))
        return len(sizes), tuple(int(i) for i in smallest)

    def follow_cell(self, cell_A: Array) -> None:
        """Test in another cell, (3, 3), from now on."""
        self._tree: Pairs = self._tree.in_cell(self._atoms, cell_A)
        self._atoms = with_cell(self._atoms, cell_A)

    def _search(self, positions_A: Array) -> NDArray[np.int32]:
        """Find a spanning tree of each fragment, and the fragment of each atom."""
        pairs, sums = pairs_within(self._atoms, positions_A, self._ratio)
        n = len(self._atoms)
        order = np.argsort(pairs.distance_A, kind="stable")
        keys, best = np.unique(
            pairs.first[order] * n + pairs.second[order], return_index=True
        )
        shortest = order[best]
        graph = coo_array(
            (pairs.distance_A[shortest], (keys // n, keys % n)), shape=(n, n)
        ).tocsr()
        tree = minimum_spanning_tree(graph).tocoo()
        chosen = shortest[
            np.searchsorted(keys, tree.row.astype(np.int64) * n + tree.col)
        ]
        self._tree = pairs.take(chosen)
        self._limits = self._ratio * sums[chosen]
        return np.asarray(connected_components(graph, directed=False)[1])


def _n_molecules(atoms: Atoms) -> int:
    """Number of molecules in a start structure; single atoms count."""
    bonds = start_bonds(atoms)
    graph = coo_array(
        (np.ones(len(bonds.first)), (bonds.first, bonds.second)),
        shape=(len(atoms), len(atoms)),
    )
    return int(connected_components(graph, directed=False)[0])


def start_bonds(atoms: Atoms) -> Pairs:
    """The bonds of a start structure, each listed once (images of an atom separately).

    A pair is bonded if its distance is within :data:`BOND_RATIO` times the sum of its
    covalent radii and within :data:`BOND_TOLERANCE_A` of that sum.
    """
    pairs, sums = pairs_within(atoms, atoms.positions, BOND_RATIO)
    once = pairs.first <= pairs.second
    return pairs.take(once & (pairs.distance_A <= sums + BOND_TOLERANCE_A))
