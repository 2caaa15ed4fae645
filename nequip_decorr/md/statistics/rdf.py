"""Pair distributions of trajectories, and reference distributions from files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from matscipy.neighbours import neighbour_list
from scipy.spatial.distance import pdist

from nequip_decorr.errors import UserError
from nequip_decorr.md.frames import Array
from nequip_decorr.paths import check_file, split_index
from nequip_decorr.wording import named

R_MAX_A = 6.0
BIN_A = 0.05


@dataclass(frozen=True)
class PairDistributions:
    """Pair distributions of a trajectory, one row per frame.

    Attributes:
        kind: ``g(r)``, the radial distribution function of a periodic system, 1 for an
            ideal gas; or ``h(r)``, the distribution of interatomic distances of a
            molecule, in 1/A, whose integral over all r is 1.
        r_A: bin centres, shape (n_bins,), A.
        pairs: element pair such as ``Hf-O`` to values of shape (n_frames, n_bins).
    """

    kind: str
    r_A: Array
    pairs: dict[str, Array]

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(next(iter(self.pairs.values())))


def pair_distributions(
    frames: Sequence[Atoms],
    *,
    r_max_A: float = R_MAX_A,
    bin_A: float = BIN_A,
) -> PairDistributions:
    """Pair distributions of every frame, by element pair.

    All periodic images within ``r_max_A`` are counted, so r may exceed half of a small
    cell, and images of the atom itself count as neighbours:
    ``g_ab(r) = n_ab(r) V / (N_a N_b 4 pi r^2 dr)``.

    Args:
        frames: a trajectory with one formula and periodicity.
        r_max_A: largest distance, A.
        bin_A: width of a bin, A.

    Raises:
        UserError: if there are no frames, formulas differ, a periodic cell has no
            volume, or ``bin_A`` is not between 0 and ``r_max_A``.
    """
    if not 0 < bin_A <= r_max_A:
        raise UserError(
            f"expected 0 < bin_A <= r_max_A, got bin_A {bin_A} and r_max_A {r_max_A}"
        )
    _check_alike(frames)
    edges = _edges(r_max_A, bin_A)
    elements = sorted(set(frames[0].get_chemical_symbols()))
    names = [f"{a}-{b}" for a, b in combinations_with_replacement(elements, 2)]
    periodic = bool(frames[0].pbc.any())
    _check_cells(frames, "periodic frames")
    measure = _radial if periodic else _distances
    rows = [measure(atoms, elements, edges) for atoms in frames]
    # a single atom of an element in a molecule has no partner of its own kind
    present = [name for name in names if any(name in row for row in rows)]
    return PairDistributions(
        kind="g(r)" if periodic else "h(r)",
        r_A=_centres(edges),
        pairs={name: np.array([row[name] for row in rows]) for name in present},
    )


def read_table(path: str | Path, r_A: Array) -> dict[str, Array]:
    """Read reference distributions from a table and interpolate them to ``r_A``.

    The first line names the columns: first ``r_A``, then element pairs in either order,
    as in ``r_A, O-O, Hf-O``. Values outside the range of the table are NaN and are not
    compared.

    Raises:
        UserError: if the first column is not ``r_A``, a cell is not a number, distances
            do not increase, or a column has no value at any of ``r_A``.
    """
    text = Path(path).read_text(encoding="utf-8").replace(",", " ")
    rows = [line.split() for line in text.splitlines() if line.strip()]
    header = rows[0] if rows else []
    if not (len(header) > 1 and header[0] == "r_A"):
        raise UserError(
            f"expected a first line 'r_A, El-El, ...' in {path}, got {header}"
        )
    try:
        values = np.array(rows[1:], dtype=float)
    except ValueError as error:
        raise UserError(
            f"expected {len(header)} numbers a line in {path}: {error}"
        ) from None
    if not (
        values.ndim == 2
        and values.shape[1] == len(header)
        and np.all(np.diff(values[:, 0]) > 0)
    ):
        raise UserError(
            f"expected lines of {len(header)} numbers with increasing r_A in {path}"
        )
    table = {}
    for name, column in zip(header[1:], values.T[1:], strict=True):
        at = np.interp(r_A, values[:, 0], column, left=np.nan, right=np.nan)
        if not np.isfinite(at).any():
            raise UserError(
                f"expected values of {name} between {r_A[0]:g} and {r_A[-1]:g} A in "
                f"{path}, got none there (r_A is from {values[0, 0]:g} to "
                f"{values[-1, 0]:g}); give r_A in A"
            )
        table["-".join(sorted(name.split("-")))] = at
    return table


def read_reference(path: Path) -> PairDistributions | dict[str, Array]:
    """Reference distributions in the default bins.

    Args:
        path: a table (``.csv``, ``.dat`` or ``.txt``, see :func:`read_table`), or a
            trajectory that ase reads (``file@100:`` selects frames).

    Raises:
        UserError: if the file does not exist or cannot be read as its suffix says.
    """
    name, index = split_index(path)
    check_file(name, "a reference trajectory or table")
    if name.suffix.lower() in (".csv", ".dat", ".txt"):
        return read_table(name, _centres(_edges(R_MAX_A, BIN_A)))
    try:
        frames = list(ase.io.iread(name, index or ":", do_not_split_by_at_sign=True))
    except Exception as error:
        raise UserError(
            f"expected a reference trajectory that ase reads, or a table (.csv, .dat "
            f"or .txt), got {path} ({named(error)}); try "
            f"`ase info {path}`"
        ) from error
    _check_cells(frames, f"the reference {path}")
    for atoms in frames:
        if len(atoms) < 2 and not atoms.pbc.any():
            raise UserError(
                f"expected two atoms or more in the reference {path}, got {len(atoms)}"
            )
    return pair_distributions(frames)


def _edges(r_max_A: float, bin_A: float) -> Array:
    return np.linspace(0, r_max_A, round(r_max_A / bin_A) + 1)


def _centres(edges: Array) -> Array:
    centres: Array = (edges[1:] + edges[:-1]) / 2
    return centres


def _radial(atoms: Atoms, elements: list[str], edges: Array) -> dict[str, Array]:
    symbols = np.array(atoms.get_chemical_symbols())
    i, j, distance = neighbour_list("ijd", atoms, float(edges[-1]))
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    values = {}
    for a, b in combinations_with_replacement(elements, 2):
        counts = np.histogram(
            distance[(symbols[i] == a) & (symbols[j] == b)], bins=edges
        )[0]
        n_a, n_b = int((symbols == a).sum()), int((symbols == b).sum())
        values[f"{a}-{b}"] = counts * atoms.get_volume() / (n_a * n_b * shells)
    return values


def _distances(atoms: Atoms, elements: list[str], edges: Array) -> dict[str, Array]:
    symbols = np.array(atoms.get_chemical_symbols())
    distance = pdist(atoms.positions)
    first, second = np.triu_indices(len(atoms), k=1)
    values = {}
    for a, b in combinations_with_replacement(elements, 2):
        pair = ((symbols[first] == a) & (symbols[second] == b)) | (
            (symbols[first] == b) & (symbols[second] == a)
        )
        if pair.any():
            counts = np.histogram(distance[pair], bins=edges)[0]
            values[f"{a}-{b}"] = counts / (pair.sum() * np.diff(edges))
    return values


def _check_cells(frames: Sequence[Atoms], where: str) -> None:
    for atoms in frames:
        if atoms.pbc.any() and atoms.cell.rank < 3:
            raise UserError(
                f"expected three cell vectors in {where}, got {atoms.cell.rank}; give "
                "a slab or a wire the cell of its vacuum"
            )


def _check_alike(frames: Sequence[Atoms]) -> None:
    if not frames:
        raise UserError("expected at least one frame, got none")
    first = frames[0]
    for atoms in frames:
        if not (
            np.array_equal(np.sort(atoms.numbers), np.sort(first.numbers))
            and np.array_equal(atoms.pbc, first.pbc)
        ):
            raise UserError(
                "expected frames of one formula, all periodic or none, got "
                f"{first.get_chemical_formula()} and {atoms.get_chemical_formula()}; "
                "compare one composition at a time"
            )
