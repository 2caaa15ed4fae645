"""Tests of what is near what: overlap, isolation, fragments, bonds.

Each keeps a short list of pairs that settles the question for most steps, and
searches for neighbours anew only when atoms have moved so far that it may not.
The answer is that of a full search at every call. Radii are the covalent radii of
:data:`ase.data.covalent_radii`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree

from nequip_decorr.md.frames import Array

Indices = NDArray[np.int64]

#: Longest bond of a start structure over the sum of the covalent radii.
BOND_RATIO = 1.25

#: Longest bond beyond that sum, Angstrom (as Open Babel has it): two iodine molecules
#: touch at 1.26 times the sum.
BOND_TOLERANCE_A = 0.45

#: A sphere of this radius without an atom in it is a void, Angstrom: interstices of
#: dense matter are smaller.
VOID_RADIUS_A = 4.0

#: Distance of the points at which voids are looked for, Angstrom.
PROBE_SPACING_A = 1.0

#: Pairs up to this much beyond the limit are watched, Angstrom.
SKIN_A = 0.5


class Pairs(NamedTuple):
    """Pairs of atoms with the translation of the second, and their lengths."""

    first: Indices
    second: Indices
    offset_A: Array
    distance_A: Array

    def lengths(self, positions_A: Array) -> Array:
        """Their lengths at other positions."""
        vectors = positions_A[self.second] - positions_A[self.first] + self.offset_A
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)))

    def take(self, which: NDArray[np.bool_] | Indices | slice) -> Pairs:
        """Those that a mask keeps, or indices name, in their order."""
        return Pairs(
            self.first[which],
            self.second[which],
            self.offset_A[which],
            self.distance_A[which],
        )


def find_pairs(atoms: Atoms, positions_A: Array, cutoff_A: float) -> Pairs:
    """All pairs up to a distance, each in both directions, images included."""
    if not atoms.pbc.any():
        # a tree copes with a molecule in pieces that are far apart
        half = cKDTree(positions_A).query_pairs(cutoff_A, output_type="ndarray")
        first = np.concatenate([half[:, 0], half[:, 1]])
        second = np.concatenate([half[:, 1], half[:, 0]])
        offset = np.zeros((len(first), 3))
    else:
        first, second, shift = neighbour_list(
            "ijS",
            positions=positions_A,
            cell=atoms.cell.complete().array,
            pbc=atoms.pbc,
            cutoff=cutoff_A,
        )
        first, second = first.astype(np.int64), second.astype(np.int64)
        offset = shift @ atoms.cell.array
    pairs = Pairs(first, second, offset, np.empty(0))
    return pairs._replace(distance_A=pairs.lengths(positions_A))


def covalent_sums(atoms: Atoms, pairs: Pairs) -> Array:
    """Sum of the covalent radii of each pair."""
    radii = covalent_radii[atoms.numbers]
    return np.asarray(radii[pairs.first] + radii[pairs.second])


def pairs_within(
    atoms: Atoms, positions_A: Array, ratio: float, skin_A: float = 0.0
) -> tuple[Pairs, Array]:
    """Pairs closer than ``ratio`` times their covalent sum (plus a skin); the sums."""
    cutoff = 2 * ratio * covalent_radii[atoms.numbers].max() + skin_A
    pairs = find_pairs(atoms, positions_A, cutoff)
    sums = covalent_sums(atoms, pairs)
    near = pairs.distance_A <= ratio * sums + skin_A
    return pairs.take(near), sums[near]


class Close(NamedTuple):
    """A pair with its distance and the limit of that distance."""

    atoms: tuple[int, int]
    distance_A: float
    limit_A: float


class Overlap:
    """The pair that is closest, relative to its limit, if it is closer than that.

    Args:
        atoms: numbers, cell and periodicity.
        ratio: limit over the sum of the covalent radii.
    """

    def __init__(self, atoms: Atoms, ratio: float) -> None:
        self._atoms = atoms
        self._ratio = ratio
        self._built_at: Array | None = None

    def __call__(self, positions_A: Array) -> Close | None:
        """The worst overlapping pair, or None."""
        way = self._way(positions_A)
        if not way <= SKIN_A / 2:
            self._build(positions_A)
            way = 0.0
        # a pair comes nearer by no more than the ways of its two atoms
        n_near = int(np.searchsorted(self._slack_A, 2 * way, side="right"))
        if not n_near:
            return None
        near, limits = self._pairs.take(slice(n_near)), self._limits[:n_near]
        distances = near.lengths(positions_A)
        if (distances >= limits).all():
            return None
        worst = int(np.argmin(distances / limits))
        return Close(
            (int(near.first[worst]), int(near.second[worst])),
            float(distances[worst]),
            float(limits[worst]),
        )

    def _way(self, positions_A: Array) -> float:
        """The longest way of an atom since the list was built."""
        if self._built_at is None:
            return np.inf
        moved = positions_A - self._built_at
        return float(np.sqrt(np.einsum("ij,ij->i", moved, moved).max()))

    def _build(self, positions_A: Array) -> None:
        pairs, sums = pairs_within(self._atoms, positions_A, self._ratio, SKIN_A)
        slack = pairs.distance_A - self._ratio * sums
        order = np.argsort(slack)
        order = order[(pairs.first <= pairs.second)[order]]
        self._pairs, self._limits = pairs.take(order), self._ratio * sums[order]
        self._slack_A = slack[order]
        self._built_at = positions_A


class Isolation:
    """Atoms that were bonded in the start structure and have no neighbour any more.

    For bonds see :func:`start_bonds`; the atoms of a noble gas have none. A neighbour
    is near within ``ratio`` times the atom's shortest bond, or the sum of the covalent
    radii if that is longer.

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

    def _search(self, positions_A: Array) -> NDArray[np.bool_]:
        """Find each bonded atom's nearest neighbour; which atoms have one."""
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


def has_void(atoms: Atoms, radius_A: float = VOID_RADIUS_A) -> bool:
    """Whether a sphere fits between the atoms: a vacuum, a pore, or open boundaries.

    Args:
        atoms: the structure.
        radius_A: of the sphere, which no atom's centre is in.
    """
    if not atoms.pbc.all():
        return True
    cell = atoms.cell.array
    heights = 1 / atoms.cell.reciprocal().lengths()
    reach = np.ceil(radius_A / heights).astype(int) + 1
    images = np.indices(2 * reach + 1).reshape(3, -1).T - reach
    wrapped = atoms.get_scaled_positions(wrap=True)
    copies = (wrapped[None] + images[:, None]).reshape(-1, 3)
    margin = radius_A / heights
    kept = ((copies >= -margin) & (copies <= 1 + margin)).all(axis=1)
    counts = np.ceil(atoms.cell.lengths() / PROBE_SPACING_A).astype(int)
    probes = (np.indices(counts).reshape(3, -1).T / counts) @ cell
    nearest, _ = cKDTree(copies[kept] @ cell).query(
        probes, distance_upper_bound=radius_A
    )
    return bool(np.isinf(nearest).any())


class Fragments:
    """The pieces, and one that came off when they are more than the start's molecules.

    Args:
        atoms: the start structure.
        ratio: what holds pieces together, over the sum of the covalent radii.
    """

    def __init__(self, atoms: Atoms, ratio: float) -> None:
        self._atoms = atoms
        self._ratio = ratio
        pieces = 1 + int(self._search(atoms.positions).max())
        # molecules that only touch at the start may part
        self.at_start = max(pieces, _n_molecules(atoms))
        self._settled = True

    def __call__(self, positions_A: Array) -> tuple[int, tuple[int, ...]]:
        """How many pieces there are (at most), and the atoms of the smallest."""
        near = self._tree.lengths(positions_A) <= self._limits
        if self._settled and near.all():
            return self.at_start, ()
        labels = self._search(positions_A)
        sizes = np.bincount(labels)
        self._settled = len(sizes) <= self.at_start
        smallest = np.flatnonzero(labels == np.argmin(sizes))
        return len(sizes), tuple(int(i) for i in smallest)

    def _search(self, positions_A: Array) -> NDArray[np.int32]:
        """Find a tree that spans each piece; each atom's piece."""
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
    """How many molecules the bonds of a start structure make; lone atoms count."""
    bonds = start_bonds(atoms)
    graph = coo_array(
        (np.ones(len(bonds.first)), (bonds.first, bonds.second)),
        shape=(len(atoms), len(atoms)),
    )
    return int(connected_components(graph, directed=False)[0])


def start_bonds(atoms: Atoms) -> Pairs:
    """The bonds of a start structure, each once (each image of an atom for itself).

    A pair is bonded within :data:`BOND_RATIO` times the sum of its covalent radii and
    :data:`BOND_TOLERANCE_A` more than it.
    """
    pairs, sums = pairs_within(atoms, atoms.positions, BOND_RATIO)
    once = pairs.first <= pairs.second
    return pairs.take(once & (pairs.distance_A <= sums + BOND_TOLERANCE_A))
