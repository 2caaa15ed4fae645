"""Pair distributions of trajectories, and how far two of them are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from nequip_decorr.paths import split_index
from nequip_decorr.wording import one_line

#: Blocks of frames for the jackknife.
N_BLOCKS = 5
R_MAX_A = 6.0
BIN_A = 0.05


@dataclass(frozen=True)
class PairDistributions:
    """Pair distributions of a trajectory, one row a frame.

    Attributes:
        kind: ``g(r)``, the radial distribution function of a periodic system, 1 for an
            ideal gas; or ``h(r)``, the distribution of interatomic distances of a
            molecule, in 1/A, of which the integral over all r is 1.
        r_A: bin centres, shape (n_bins,), A.
        pairs: element pair such as ``Hf-O`` to values of shape (n_frames, n_bins).
    """

    kind: str
    r_A: Array
    pairs: dict[str, Array]

    @property
    def n_frames(self) -> int:
        """Frames that were averaged."""
        return len(next(iter(self.pairs.values())))


@dataclass(frozen=True)
class PairError:
    """How far the distribution of one element pair is from the reference's.

    Attributes:
        error: integral of the absolute difference over r, up to ``R_MAX_A``; in A for
            g(r), dimensionless and at most 2 for h(r). The definition is that of Fu et
            al., "Forces are not enough" (TMLR 2023, arXiv:2210.07237).
        standard_error: of it, by the jackknife over five blocks of frames; None with
            fewer than five frames.
        reference_error: the same integral between the two halves of the reference: an
            error below it shows no difference. None for a table or a single frame.
        r_A: bin centres, A.
        model: the model's distribution.
        reference: the reference's.
    """

    error: float
    standard_error: float | None
    reference_error: float | None
    r_A: tuple[float, ...]
    model: tuple[float, ...]
    reference: tuple[float, ...]


def pair_distributions(
    frames: Sequence[Atoms],
    *,
    r_max_A: float = R_MAX_A,
    bin_A: float = BIN_A,
) -> PairDistributions:
    """Pair distributions of every frame, by element pair.

    Periodic images are counted as often as they lie within ``r_max_A``, so r may go
    beyond half of a small cell, and images of the atom itself count as neighbours:
    ``g_ab(r) = n_ab(r) V / (N_a N_b 4 pi r^2 dr)``.

    Args:
        frames: a trajectory of one formula and periodicity.
        r_max_A: largest distance, A.
        bin_A: width of a bin, A.

    Raises:
        UserError: no frames, different formulas among them, or a bin that is no
            positive part of ``r_max_A``.
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
    measure = _radial if periodic else _distances
    rows = [measure(atoms, elements, edges) for atoms in frames]
    # a single atom of an element in a molecule has no partner of its own kind
    present = [name for name in names if any(name in row for row in rows)]
    return PairDistributions(
        kind="g(r)" if periodic else "h(r)",
        r_A=_centres(edges),
        pairs={name: np.array([row[name] for row in rows]) for name in present},
    )


def distribution_error(
    model: Array,
    reference: Array,
    width_A: float,
) -> tuple[float, float | None]:
    """Integral of |model - reference| over r and its jackknife standard error.

    Args:
        model: values per frame, shape (n_frames, n_bins).
        reference: values, shape (n_bins,); NaN where the reference says nothing.
        width_A: width of a bin, A.

    Raises:
        UserError: the reference says nothing at all: no error is not an error of 0.
    """
    if not np.isfinite(reference).any():
        raise UserError(
            f"expected a reference with values in some of the {len(reference)} bins, "
            "got none; give one that covers them"
        )

    def integral(values: Array) -> float:
        return float(np.nansum(np.abs(values - reference)) * width_A)

    error = integral(model.mean(axis=0))
    if len(model) < N_BLOCKS:
        return error, None
    blocks = np.array_split(np.arange(len(model)), N_BLOCKS)
    left_out = np.array(
        [integral(np.delete(model, block, axis=0).mean(axis=0)) for block in blocks]
    )
    spread = np.sum((left_out - left_out.mean()) ** 2)
    return error, float(np.sqrt((N_BLOCKS - 1) / N_BLOCKS * spread))


def compare_distributions(
    model: PairDistributions, reference: PairDistributions | Mapping[str, Array]
) -> dict[str, PairError]:
    """Error of each element pair that both sides have.

    Args:
        model: of the model's trajectory.
        reference: of a reference trajectory with the same bins, or from
            :func:`read_table`, already at the model's bin centres.

    Raises:
        UserError: nothing in common, g(r) against h(r), other bins, or a reference
            without a value in any of them.
    """
    halves: dict[str, Array] = {}
    if isinstance(reference, PairDistributions):
        if not (
            reference.kind == model.kind and np.array_equal(reference.r_A, model.r_A)
        ):
            raise UserError(
                f"expected a reference with {model.kind} at the same distances, got "
                f"{reference.kind}; is one of them not periodic?"
            )
        means = {name: values.mean(axis=0) for name, values in reference.pairs.items()}
        if reference.n_frames > 1:
            middle = reference.n_frames // 2
            halves = {
                name: np.abs(v[:middle].mean(axis=0) - v[middle:].mean(axis=0))
                for name, v in reference.pairs.items()
            }
    else:
        means = dict(reference)
    common = [name for name in model.pairs if name in means]
    if not common:
        raise UserError(
            f"expected a reference with some of the pairs {', '.join(model.pairs)}, "
            f"got {', '.join(means) or 'none'}"
        )
    width = float(model.r_A[1] - model.r_A[0])
    errors = {}
    for name in common:
        error, standard_error = distribution_error(
            model.pairs[name], means[name], width
        )
        known = np.isfinite(means[name])
        errors[name] = PairError(
            error=error,
            standard_error=standard_error,
            reference_error=float(halves[name].sum() * width) if halves else None,
            r_A=tuple(model.r_A[known].tolist()),
            model=tuple(model.pairs[name].mean(axis=0)[known].tolist()),
            reference=tuple(means[name][known].tolist()),
        )
    return errors


def partial_cover(
    model: PairDistributions, errors: Mapping[str, PairError]
) -> list[str]:
    """What to know of pairs whose reference says nothing in some of the bins."""
    return [
        f"{name}: the reference covers {len(error.r_A)} of {len(model.r_A)} bins "
        f"(from {error.r_A[0]:.3g} to {error.r_A[-1]:.3g} A), the error is of these "
        "alone"
        for name, error in errors.items()
        if len(error.r_A) < len(model.r_A)
    ]


def read_table(path: str | Path, r_A: Array) -> dict[str, Array]:
    """Read reference distributions from a table and interpolate them to ``r_A``.

    The first line names the columns, the first of them ``r_A``, the others element
    pairs in either order: ``r_A, O-O, Hf-O``. Outside the table's range the values are
    NaN and not compared.

    Raises:
        UserError: another first column, a cell that is no number, distances that do
            not increase, or a column without a value at any of ``r_A``.
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
            trajectory that ase reads (``file@100:`` picks).

    Raises:
        UserError: when there is no such file.
        UserError: when it cannot be read as what its suffix says.
    """
    name, index = split_index(path)
    if not name.is_file():
        raise UserError(
            f"expected a reference trajectory or table, got {path}, which is not "
            "there; give its path"
        )
    if name.suffix.lower() in (".csv", ".dat", ".txt"):
        return read_table(name, _centres(_edges(R_MAX_A, BIN_A)))
    try:
        frames = list(ase.io.iread(name, index or ":", do_not_split_by_at_sign=True))
    except Exception as error:
        raise UserError(
            f"expected a reference trajectory that ase reads, or a table (.csv, .dat "
            f"or .txt), got {path} ({type(error).__name__}: {one_line(error)}); try "
            f"`ase info {path}`"
        ) from error
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
