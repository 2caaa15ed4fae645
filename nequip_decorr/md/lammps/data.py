"""Start states as LAMMPS data files, in LAMMPS axes, units and atom types."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.lammps import Prism
from ase.io.lammpsdata import write_lammps_data

from nequip_decorr.errors import UserError
from nequip_decorr.md.frames import Array

#: Room between atoms and box where the box is not periodic, A. LAMMPS fits it anew.
PADDING_A = 1.0

#: Tilts below this share of the cell are rounding errors.
NO_TILT = 1e-12


def data_file(
    atoms: Atoms, positions_A: Array, momenta: Array, elements: Sequence[str]
) -> str:
    """A LAMMPS data file (``units metal``, ``atom_style atomic``).

    Args:
        atoms: numbers, masses, cell and periodicity.
        positions_A: (N, 3).
        momenta: (N, 3), ase units.
        elements: chemical symbols of the LAMMPS atom types 1, 2, ...

    Returns:
        The text, with atoms in their original order, masses, and velocities in A/ps.
        The cell is rotated so that its first vector is along x and its second in the xy
        plane.

    Raises:
        UserError: if atoms of one element have different masses.
    """
    _check_masses(atoms, elements)
    moving = atoms.copy()
    moving.set_constraint()
    # ase takes a `type` for LAMMPS' own
    moving.arrays.pop("type", None)
    moving.set_positions(positions_A)
    moving.set_momenta(momenta)
    boxed = in_box(moving)
    text = io.StringIO()
    write_lammps_data(
        text,
        boxed,
        specorder=list(elements),
        prismobj=prism(boxed),
        force_skew=is_skewed(boxed),
        masses=True,
        velocities=True,
        units="metal",
    )
    return text.getvalue()


def in_box(atoms: Atoms) -> Atoms:
    """The atoms in a cell that LAMMPS accepts: right-handed, with non-zero volume.

    Non-periodic cell vectors are replaced by vectors perpendicular to the others that
    enclose all atoms; atoms are shifted along them so that the cell starts at 0.
    """
    boxed = atoms.copy()
    cell = atoms.cell.array * atoms.pbc[:, None]
    boxed.cell = cell
    cell = boxed.cell.complete().array.copy()
    if np.linalg.det(cell) < 0:
        # the same lattice, or (not periodic) the same direction
        cell[2] *= -1
    positions = atoms.get_positions()
    for axis in np.flatnonzero(~atoms.pbc):
        along = cell[axis] / np.linalg.norm(cell[axis])
        heights = positions @ along
        low, high = heights.min() - PADDING_A, heights.max() + PADDING_A
        positions -= low * along
        cell[axis] = (high - low) * along
    boxed.set_cell(cell)
    boxed.set_positions(positions)
    return boxed


def prism(boxed: Atoms) -> Prism:
    """The rotation from ase's axes to LAMMPS' axes, without tilts from rounding."""
    found = Prism(boxed.cell.array)
    tilt = found.lammps_tilt
    tilt[np.abs(tilt) < NO_TILT * np.abs(tilt).max()] = 0.0
    return found


def is_skewed(boxed: Atoms) -> bool:
    """Whether the cell is triclinic for LAMMPS."""
    return bool(np.tril(prism(boxed).lammps_tilt, -1).any())


def boundary(atoms: Atoms) -> str:
    """LAMMPS ``boundary``: periodic, or shrink-wrapped so that no atom is lost."""
    return " ".join("p" if periodic else "s" for periodic in atoms.pbc)


def _check_masses(atoms: Atoms, elements: Sequence[str]) -> None:
    masses = atoms.get_masses()
    for element in elements:
        found = np.unique(masses[atoms.symbols == element])
        if len(found) > 1:
            raise UserError(
                f"expected one mass for all {element} atoms, which are one atom type "
                f"in LAMMPS, got {found.min():g} to {found.max():g} amu; use one mass"
            )
