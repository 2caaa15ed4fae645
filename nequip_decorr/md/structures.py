"""Start structures: read, check, and give velocities."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.data import chemical_symbols

from nequip_decorr.errors import UserError
from nequip_decorr.md.criteria.neighbours import Overlap
from nequip_decorr.md.frames import Array
from nequip_decorr.paths import split_index
from nequip_decorr.species import OPTION
from nequip_decorr.wording import one_line

#: How programs call velocities in extended XYZ; ase itself writes momenta.
VELOCITY_COLUMNS = ("vel", "velo", "velocity", "velocities")


def read_structures(path: str | Path) -> list[Atoms]:
    """Read all structures of any file that ase reads.

    ``file@0:10:2`` picks from them, as in ase. Each gets its name, the file's and its
    number among those picked, in ``info["name"]``.

    Raises:
        UserError: when there is no such file.
        UserError: when ase cannot read it, or there is nothing in it.
    """
    name, index = split_index(path)
    if not name.is_file():
        raise UserError(
            f"expected a file of start structures, got {path}, which is not there"
        )
    try:
        found = ase.io.read(name, index or ":", do_not_split_by_at_sign=True)
    except Exception as error:
        raise UserError(
            f"expected start structures that ase reads, got {path} "
            f"({type(error).__name__}: {one_line(error)}); try `ase info {name}`"
        ) from error
    structures = found if isinstance(found, list) else [found]
    if not structures:
        raise UserError(f"expected at least one structure, got none in {path}")
    for number, atoms in enumerate(structures):
        atoms.info["name"] = f"{Path(path).name}#{number}"
    return structures


def prepare_structures(
    structures: Sequence[Atoms], *, keep_velocities: bool, drop_constraints: bool
) -> tuple[list[Atoms], list[str]]:
    """Copies that have velocities and constraints only where a run uses them.

    Args:
        structures: as they were read.
        keep_velocities: replicas are to start from the velocities in them.
        drop_constraints: all atoms are to move.

    Returns:
        The copies, and what the user should know of what was left out.

    Raises:
        UserError: when velocities are to be kept of a structure that has none, or
            some that are not finite.
    """
    prepared = [atoms.copy() for atoms in structures]
    moving, fixed = [], []
    for index, atoms in enumerate(prepared):
        name = structure_name(atoms, index)
        if drop_constraints and atoms.constraints:
            fixed.append(name)
            atoms.set_constraint()
        if keep_velocities:
            _check_velocities(atoms, name)
            continue
        momenta = atoms.arrays.pop("momenta", None)
        if _foreign_velocities(atoms) or (momenta is not None and momenta.any()):
            moving.append(name)
    lines = []
    if fixed:
        lines.append(f"constraints of {_first(fixed)} are dropped: all atoms move")
    if moving:
        lines.append(
            f"velocities of {_first(moving)} are not used: replicas start from random "
            "velocities at T; --keep-velocities (keep_velocities in a protocol) uses "
            "them"
        )
    return prepared, lines


def check_structures(
    structures: Sequence[Atoms],
    *,
    species: Sequence[str] | None,
    cutoff_A: float | None,
    min_distance_ratio: float | None,
) -> list[str]:
    """Refuse structures that cannot be run; return warnings for doubtful ones.

    A periodic cell smaller than twice the cutoff is only warned of: NequIP's
    neighbour lists count every image, so forces are exact for the periodic system;
    the system itself is what is too small.

    Args:
        structures: what is to be run.
        species: chemical symbols that the model knows, None for any.
        cutoff_A: the model's cutoff, None when not known.
        min_distance_ratio: of the overlap criterion.

    Raises:
        UserError: for a structure without atoms, with an element that the model does
            not know, numbers that are not finite, constraints, a periodic direction
            without a cell, or atoms that overlap.
    """
    if not structures:
        raise UserError("expected at least one start structure, got none")
    small: dict[str, float] = {}
    for index, atoms in enumerate(structures):
        name = structure_name(atoms, index)
        _check_contents(atoms, name, species)
        _check_cell(atoms, name)
        if min_distance_ratio is not None:
            _check_overlap(atoms, name, min_distance_ratio)
        height = smallest_height_A(atoms)
        if cutoff_A is not None and not height >= 2 * cutoff_A:
            small[name] = height
    if not small:
        return []
    return [
        f"the cell of {_first(list(small))} is down to {min(small.values()):.1f} "
        f"A high, less than twice the model's cutoff of {cutoff_A:g} A: an atom meets "
        "several images of one neighbour; repeat the cell for a fair test"
    ]


def structure_name(atoms: Atoms, index: int) -> str:
    """Name of a structure: ``info["name"]``, else its number."""
    return str(atoms.info.get("name", f"structure {index}"))


def smallest_height_A(atoms: Atoms) -> float:
    """Smallest distance between opposite faces of the cell that are periodic."""
    if not atoms.pbc.any():
        return float("inf")
    heights = 1 / atoms.cell.complete().reciprocal().lengths()
    return float(heights[atoms.pbc].min())


def structure_hash(atoms: Atoms) -> str:
    """SHA-256 of elements, masses, positions, cell, periodicity, and momenta if any."""
    digest = hashlib.sha256()
    for values in (
        atoms.numbers.astype(np.int64),
        atoms.get_masses(),
        atoms.positions,
        atoms.cell.array,
        atoms.pbc,
        *([atoms.get_momenta()] if atoms.has("momenta") else []),
    ):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def start_momenta(
    atoms: Atoms,
    temperature_K: float,
    rng: np.random.Generator,
    *,
    conserve_total: bool,
) -> Array:
    """Maxwell-Boltzmann momenta, (N, 3) in ase units.

    Args:
        atoms: for the masses.
        temperature_K: of the distribution, which is not rescaled to.
        rng: the replica's own generator.
        conserve_total: take the total momentum away.
    """
    masses = atoms.get_masses()[:, None]
    noise = rng.standard_normal((len(atoms), 3))
    momenta = noise * np.sqrt(masses * units.kB * temperature_K)
    return _stationary(momenta, atoms) if conserve_total else momenta


def kept_momenta(atoms: Atoms, *, conserve_total: bool) -> Array:
    """Momenta of the structure itself, (N, 3) in ase units.

    Args:
        atoms: a structure with momenta.
        conserve_total: take the total momentum away, as from random momenta. It moves
            the whole system along and is no heat, and ase's thermostats and NVE keep
            it; what is left is the same motion in the frame of the centre of mass.
    """
    momenta = atoms.get_momenta()
    return _stationary(momenta, atoms) if conserve_total else momenta


def _stationary(momenta: Array, atoms: Atoms) -> Array:
    masses = atoms.get_masses()[:, None]
    return np.asarray(momenta - masses * (momenta.sum(axis=0) / masses.sum()))


def _first(names: Sequence[str]) -> str:
    """The first of some structures by name, the others by number."""
    return names[0] + (f" and of {len(names) - 1} more" if len(names) > 1 else "")


def _foreign_velocities(atoms: Atoms) -> str | None:
    """Column of velocities that ase reads and does not use: their unit is not known."""
    return next((name for name in VELOCITY_COLUMNS if atoms.has(name)), None)


def _check_velocities(atoms: Atoms, name: str) -> None:
    momenta, foreign = atoms.get_momenta(), _foreign_velocities(atoms)
    if foreign is not None and not atoms.has("momenta"):
        raise UserError(
            f"expected velocities in {name} that ase knows, got a column {foreign!r} "
            "without a unit; write the file again after atoms.set_velocities(...)"
        )
    if not np.isfinite(momenta).all():
        raise UserError(f"expected finite velocities in {name}, got NaN or infinity")
    if not momenta.any():
        raise UserError(
            f"expected velocities in {name} to keep, got none; leave out "
            "keep_velocities (--keep-velocities), or give a file that has them"
        )


def _check_contents(atoms: Atoms, name: str, species: Sequence[str] | None) -> None:
    if not len(atoms):
        raise UserError(f"expected atoms in {name}, got none")
    present = {chemical_symbols[number] for number in atoms.numbers}
    unknown = sorted(present - set(species)) if species is not None else []
    if unknown:
        raise UserError(
            f"expected elements that the model knows ({', '.join(species or ())}), "
            f"got {', '.join(unknown)} in {name}; use another structure or model, or "
            f"name the element's type ({OPTION})"
        )
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise UserError(
            f"expected finite positions and cell in {name}, got NaN or infinity"
        )
    if not (atoms.get_masses() > 0).all():
        raise UserError(f"expected masses > 0 in {name}, got one that is not")
    if atoms.constraints:
        raise UserError(
            f"expected atoms that are free to move in {name}, got "
            f"{type(atoms.constraints[0]).__name__}; --drop-constraints "
            "(drop_constraints in a protocol) lets them move"
        )


def _check_cell(atoms: Atoms, name: str) -> None:
    lengths = atoms.cell.lengths()
    flat = abs(np.linalg.det(atoms.cell.complete().array)) < 1e-6
    if (atoms.pbc & ~(lengths > 0)).any() or (atoms.pbc.any() and flat):
        raise UserError(
            f"expected a cell with a volume for periodic {name}, "
            f"got lengths {lengths.round(3).tolist()} with pbc {atoms.pbc.tolist()}; "
            "give the cell or switch pbc off"
        )


def _check_overlap(atoms: Atoms, name: str, ratio: float) -> None:
    close = Overlap(atoms, ratio)(atoms.positions)
    if close is not None:
        i, j = close.atoms
        symbols = atoms.get_chemical_symbols()
        raise UserError(
            f"expected atoms apart in {name}, got {symbols[i]}{i} and {symbols[j]}{j} "
            f"at {close.distance_A:.3f} A (overlap below {close.limit_A:.3f} A); "
            "relax the structure or lower criteria.min_distance_ratio"
        )
