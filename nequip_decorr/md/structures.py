"""Start structures: reading, checks and velocities."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.data import chemical_symbols

from nequip_decorr.errors import UserError
from nequip_decorr.md.criteria.neighbours import Closest
from nequip_decorr.md.frames import Array
from nequip_decorr.md.protocol import Protocol
from nequip_decorr.paths import check_file, split_index
from nequip_decorr.species import OPTION
from nequip_decorr.wording import named

#: How programs call velocities in extended XYZ; ase itself writes momenta.
VELOCITY_COLUMNS = ("vel", "velo", "velocity", "velocities")


def read_structures(path: str | Path) -> list[Atoms]:
    """Read all structures of any file that ase reads.

    ``file@0:10:2`` selects frames, as in ase. The name of each, made of the file name
    and its number in the selection, is stored in ``info["name"]``.

    Raises:
        UserError: if the file does not exist, ase cannot read it, or it is empty.
    """
    name, index = split_index(path)
    check_file(name, "a file of start structures")
    try:
        found = ase.io.read(name, index or ":", do_not_split_by_at_sign=True)
    except Exception as error:
        raise UserError(
            f"expected start structures that ase reads, got {path} "
            f"({named(error)}); try `ase info {name}`"
        ) from error
    structures = found if isinstance(found, list) else [found]
    if not structures:
        raise UserError(f"expected at least one structure, got none in {path}")
    for number, atoms in enumerate(structures):
        atoms.info["name"] = f"{Path(path).name}#{number}"
    return structures


def start_structures(
    structures: str | Path | Atoms | Sequence[Atoms],
    protocol: Protocol,
    *,
    species: Sequence[str] | None,
    cutoff_A: float | None,
) -> tuple[list[Atoms], list[str]]:
    """Start structures of a protocol, read and checked.

    Args:
        structures: a file that ase reads, or structures.
        protocol: what is to be run.
        species: chemical symbols that the model knows, None for any.
        cutoff_A: the model's cutoff, None when not known.

    Returns:
        The structures, and warnings for the user.

    Raises:
        UserError: as :func:`read_structures`, :func:`prepare_structures` and
            :func:`check_structures`.
    """
    if isinstance(structures, str | Path):
        found = read_structures(structures)
    else:
        found = [structures] if isinstance(structures, Atoms) else list(structures)
    starts, lines = prepare_structures(
        found,
        keep_velocities=protocol.keep_velocities,
        drop_constraints=protocol.drop_constraints,
    )
    return starts, lines + check_structures(
        starts,
        species=species,
        cutoff_A=cutoff_A,
        min_distance_ratio=protocol.criteria.min_distance_ratio,
    )


def prepare_structures(
    structures: Sequence[Atoms], *, keep_velocities: bool, drop_constraints: bool
) -> tuple[list[Atoms], list[str]]:
    """Copies with velocities and constraints only if a run uses them.

    Args:
        structures: the structures as read.
        keep_velocities: whether replicas start from their velocities.
        drop_constraints: whether fixed atoms are freed.

    Returns:
        The copies, and warnings about what was removed.

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

    A periodic cell smaller than twice the cutoff only gives a warning: NequIP's
    neighbour lists include every image, so forces are exact for the periodic system,
    but the system itself is small.

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
        f"the cell of {_first(list(small))} has a height of {min(small.values()):.1f} "
        f"A, less than twice the model's cutoff of {cutoff_A:g} A, so an atom "
        "interacts with several images of the same neighbour; use a supercell for a "
        "fair test"
    ]


def structure_name(atoms: Atoms, index: int) -> str:
    """Name of a structure: ``info["name"]``, else its number."""
    return str(atoms.info.get("name", f"structure {index}"))


def smallest_height_A(atoms: Atoms) -> float:
    """Smallest distance between opposite periodic faces of the cell."""
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
        atoms: the structure, for its masses.
        temperature_K: temperature of the distribution; momenta are not rescaled to it.
        rng: the replica's own generator.
        conserve_total: remove the total momentum.
    """
    masses = atoms.get_masses()[:, None]
    noise = rng.standard_normal((len(atoms), 3))
    momenta = noise * np.sqrt(masses * units.kB * temperature_K)
    return _stationary(momenta, atoms) if conserve_total else momenta


def kept_momenta(atoms: Atoms, *, conserve_total: bool) -> Array:
    """Momenta of the structure itself, (N, 3) in ase units.

    Args:
        atoms: a structure with momenta.
        conserve_total: remove the total momentum, as for random momenta. It is not
            heat, and ase's thermostats and NVE conserve it; the rest is the same motion
            in the centre-of-mass frame.
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
        raise UserError(
            f"expected masses > 0 in {name}, got {atoms.get_masses().min():g}; set them"
        )
    if atoms.constraints:
        raise UserError(
            f"expected no constraints in {name}, got "
            f"{type(atoms.constraints[0]).__name__}; --drop-constraints "
            "(drop_constraints in a protocol) frees these atoms"
        )


def _check_cell(atoms: Atoms, name: str) -> None:
    lengths = atoms.cell.lengths()
    flat = abs(np.linalg.det(atoms.cell.complete().array)) < 1e-6
    if (atoms.pbc & ~(lengths > 0)).any() or (atoms.pbc.any() and flat):
        raise UserError(
            f"expected a cell with non-zero volume for periodic {name}, "
            f"got lengths {lengths.round(3).tolist()} with pbc {atoms.pbc.tolist()}; "
            "give the cell or switch pbc off"
        )


def _check_overlap(atoms: Atoms, name: str, ratio: float) -> None:
    close = Closest(atoms, ratio)(atoms.positions)
    if close is not None:
        i, j = close.atoms
        symbols = atoms.get_chemical_symbols()
        raise UserError(
            f"expected no overlapping atoms in {name}, got {symbols[i]}{i} and "
            f"{symbols[j]}{j} at {close.distance_A:.3f} A (overlap below "
            f"{ratio * close.sum_A:.3f} A); "
            "relax the structure or lower criteria.min_distance_ratio"
        )
