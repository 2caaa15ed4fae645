"""A picture of the neighbourhood in which a replica failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from numpy.typing import NDArray

from nequip_decorr.errors import UserError
from nequip_decorr.md.criteria.neighbours import BOND_RATIO, find_pairs
from nequip_decorr.md.frames import Array
from nequip_decorr.plotting import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RADIUS_A = 4.0
#: Atoms are drawn this much smaller than their covalent radii.
RADIUS_RATIO = 0.4
#: Distances are written to this many neighbours of a failing atom.
N_LABELLED = 3
#: About as many atoms are drawn where they have piled up; sound matter has 20 to 50.
MOST_AROUND = 100
#: More failing atoms than this are the whole cell rather than a place in it.
MAX_FAILING = 6


@dataclass(frozen=True)
class Neighbourhood:
    """Atoms around those that failed, in one piece.

    Attributes:
        indices: of each atom in the cell, shape (n,); images of an atom share one.
        numbers: atomic numbers, shape (n,).
        positions_A: with the periodic images unfolded, shape (n, 3).
        failing: whether each is one of the failing atoms, shape (n,).
    """

    indices: NDArray[np.intp]
    numbers: NDArray[np.intp]
    positions_A: Array
    failing: NDArray[np.bool_]


def neighbourhood(
    atoms: Atoms,
    failing: Sequence[int],
    radius_A: float = RADIUS_A,
) -> Neighbourhood:
    """Atoms within ``radius_A`` of the failing ones, unfolded about the first of them.

    The radius is smaller where more than :data:`MOST_AROUND` atoms would be in it.

    The other failing atoms are taken at their image nearest to the first.

    Raises:
        UserError: no failing atom, or one that is not in ``atoms``.
    """
    failing = list(dict.fromkeys(failing))[:MAX_FAILING]
    if not failing or not all(0 <= i < len(atoms) for i in failing):
        raise UserError(
            f"expected failing atoms between 0 and {len(atoms) - 1}, got {failing}"
        )
    origin = atoms.positions[failing[0]]
    centres = origin + atoms.get_distances(failing[0], failing, mic=True, vector=True)
    if atoms.pbc.all():
        room_A3 = MOST_AROUND * atoms.get_volume() / len(atoms)
        radius_A = min(radius_A, (3 * room_A3 / (4 * np.pi)) ** (1 / 3))
    pairs = find_pairs(atoms, atoms.positions, radius_A)
    places = atoms.positions[pairs.second] + pairs.offset_A
    vectors = places - atoms.positions[pairs.first]
    indices, positions = list(failing), list(centres)
    for centre, index in zip(centres, failing, strict=True):
        own = pairs.first == index
        for other, step in zip(pairs.second[own], vectors[own], strict=True):
            place = centre + step
            known = np.linalg.norm(np.array(positions) - place, axis=1)
            if not known.min() < 1e-3:
                indices.append(int(other))
                positions.append(place)
    return Neighbourhood(
        indices=np.array(indices),
        numbers=atoms.numbers[indices],
        positions_A=np.array(positions) - origin,
        failing=np.arange(len(indices)) < len(failing),
    )


def neighbourhood_figure(atoms: Atoms, failing: Sequence[int]) -> Figure:
    """Draw the neighbourhood of the failing atoms, flat, as seen from the side.

    The page is turned so that the labelled distances lie in it. Atoms have ase's (jmol)
    colours; failing ones a thick outline and their index, with dashed lines and
    distances in A to each other, or to the nearest neighbours of a single one.

    Raises:
        UserError: see :func:`neighbourhood`.
    """
    from matplotlib.patches import Circle

    around = neighbourhood(atoms, failing)
    flat = _turned(around)
    figure = new_figure(4.2, 4.2)
    axis = figure.add_subplot()
    depth = np.argsort(flat[:, 2])
    radii = RADIUS_RATIO * covalent_radii[around.numbers]
    for a, b in _bonds(around):
        axis.plot(*flat[[a, b], :2].T, color="0.75", linewidth=1, zorder=0)
    for order, k in enumerate(depth, start=1):
        fails = bool(around.failing[k])
        axis.add_patch(
            Circle(
                tuple(flat[k, :2]),
                radii[k],
                facecolor=jmol_colors[around.numbers[k]],
                edgecolor="black" if fails else "0.4",
                linewidth=3 if fails else 0.8,
                # what lies behind is paler
                alpha=1.0 if fails else 0.45 + 0.5 * order / len(depth),
                zorder=order + (len(depth) if fails else 0),
            )
        )
    for k in np.flatnonzero(around.failing):
        name = chemical_symbols[around.numbers[k]] + str(around.indices[k])
        _label(axis, flat[k, :2], name, zorder=3 * len(depth), weight="bold")
    for a, b in _labelled_pairs(around):
        length = np.linalg.norm(around.positions_A[a] - around.positions_A[b])
        axis.plot(
            *flat[[a, b], :2].T,
            color="black",
            linestyle="--",
            linewidth=1.5,
            zorder=2.5 * len(depth),
        )
        middle, along = flat[[a, b], :2].mean(axis=0), flat[b, :2] - flat[a, :2]
        # beside the line, not on the atoms at its ends
        beside = np.array([-along[1], along[0]]) / max(np.linalg.norm(along), 0.1)
        place = middle + 0.45 * beside * (1 if beside[1] >= 0 else -1)
        _label(axis, place, f"{length:.2f} Å", zorder=3 * len(depth))
    axis.legend(
        handles=[
            Circle((0, 0), facecolor=jmol_colors[z], edgecolor="0.25")
            for z in np.unique(around.numbers)
        ],
        labels=[chemical_symbols[z] for z in np.unique(around.numbers)],
        loc="upper right",
        fontsize="small",
    )
    reach = np.abs(flat[:, :2]).max() + 1.0
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axis.set_axis_off()
    return figure


def _turned(around: Neighbourhood) -> Array:
    """Positions with the labelled pairs, then the widest spread, in the page."""
    positions = around.positions_A
    lines = [positions[b] - positions[a] for a, b in _labelled_pairs(around)]
    axes: list[Array] = []
    for points in (np.array(lines).reshape(-1, 3), positions):
        # directions that are not yet in the page, widest first
        for row in np.linalg.svd(points, full_matrices=False)[2]:
            rest = row - sum((row @ a) * a for a in axes)
            if np.linalg.norm(points @ row) > 0.1 and np.linalg.norm(rest) > 0.3:
                axes.append(rest / np.linalg.norm(rest))
    for unit in np.eye(3):
        rest = unit - sum((unit @ a) * a for a in axes)
        if len(axes) < 3 and np.linalg.norm(rest) > 0.3:
            axes.append(rest / np.linalg.norm(rest))
    turned: Array = positions @ np.array(axes[:3]).T
    return turned


def _bonds(around: Neighbourhood) -> list[tuple[int, int]]:
    radii = covalent_radii[around.numbers]
    return [
        (a, b)
        for a in range(len(radii))
        for b in range(a)
        if np.linalg.norm(around.positions_A[a] - around.positions_A[b])
        < BOND_RATIO * (radii[a] + radii[b])
    ]


def _labelled_pairs(around: Neighbourhood) -> list[tuple[int, int]]:
    failing = np.flatnonzero(around.failing)
    if len(failing) > 1:
        return [(int(failing[0]), int(k)) for k in failing[1:]]
    distance = np.linalg.norm(around.positions_A, axis=1)
    return [(0, int(k)) for k in np.argsort(distance)[1 : N_LABELLED + 1]]


def _label(axis: Any, place: Array, text: str, **options: Any) -> None:
    axis.text(
        *place,
        text,
        ha="center",
        va="center",
        fontsize="small",
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1},
        **options,
    )
