"""Checks of the first frame, the reference for all later ones."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from scipy.spatial import cKDTree

from nequip_decorr.errors import UserError
from nequip_decorr.md.criteria.neighbours import find_pairs
from nequip_decorr.md.structures import check_structures, structure_name

#: Nearest neighbours are between these many sums of covalent radii apart: bonds 0.8 to
#: 1.2, atoms of a solid noble gas 2 to 7, of a gas any number. Beyond them lengths are
#: not in A but in nm or pm.
NEAREST_RATIOS = (0.35, 80.0)

#: Neighbours that are this many sums apart may have nearer images.
APART = 5.0

#: A temperature this many times the target, or this share of it, means that velocities
#: have another unit: A/ps and A/fs give a factor of a million.
ABSURD_TEMPERATURE = 1e4


def check_first_frame(atoms: Atoms) -> None:
    """Refuse a first frame that cannot serve as the reference.

    Args:
        atoms: the frame, with its name in ``info["name"]``.

    Raises:
        UserError: if there are no atoms, values are not finite, a periodic direction
            has no cell vector, or lengths are not in Angstrom.
    """
    check_structures([atoms], species=None, cutoff_A=None, min_distance_ratio=None)
    ratio = nearest_ratio(atoms)
    low, high = NEAREST_RATIOS
    if ratio is None or low <= ratio <= high:
        return
    raise UserError(
        f"expected neighbours about one sum of covalent radii apart in "
        f"{structure_name(atoms, 0)}, got {ratio:.3g} times that (median); lengths may "
        "not be in A, or elements may be mixed up (--units, --atom-types)"
    )


def check_temperature(
    temperature_K: float, target_K: float, name: str, units: str | None
) -> None:
    """Refuse velocities that appear to be in another unit.

    Args:
        temperature_K: temperature of the first frame.
        target_K: target temperature of the thermostat.
        name: name of the file.
        units: LAMMPS unit style; None for other programs.

    Raises:
        UserError: for an absurd temperature (zero is allowed, as for a start at rest).
    """
    ratio = temperature_K / target_K
    if temperature_K == 0 or 1 / ABSURD_TEMPERATURE <= ratio <= ABSURD_TEMPERATURE:
        return
    hint = (
        "check the units of its velocities"
        if units is None
        else f"its velocities are not in units {units}: give --units "
        f"{'metal' if units == 'real' else 'real'}"
    )
    raise UserError(
        f"expected about {target_K:g} K in the first frame of {name}, got "
        f"{temperature_K:.3g} K; {hint}"
    )


def nearest_ratio(atoms: Atoms) -> float | None:
    """Median nearest-neighbour distance, relative to the sum of the covalent radii.

    None for a single atom.
    """
    if len(atoms) < 2:
        return None
    distance, index = cKDTree(atoms.positions).query(atoms.positions, k=2)
    radii = covalent_radii[atoms.numbers]
    found = float(np.median(distance[:, 1] / (radii + radii[index[:, 1]])))
    if found <= APART:
        return found
    # the two ends of a molecule may be on opposite sides of the cell; a search with
    # images is for matter that is thin, or it would find a great many
    reach = 2 * APART * float(radii.max())
    pairs = find_pairs(atoms, atoms.positions, reach)
    nearest = np.full(len(atoms), found)
    ratios = pairs.distance_A / (radii[pairs.first] + radii[pairs.second])
    np.minimum.at(nearest, pairs.first, ratios)
    return float(np.median(nearest))
