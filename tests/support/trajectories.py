"""Scripted trajectories, and files of them in each format."""

from __future__ import annotations

import gzip
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from scipy import constants

from nequip_decorr.md import Criteria, Protocol

#: J/mol of a kcal/mol, and what LAMMPS' units are in SI.
KCAL = 4184.0 / constants.Avogadro
SECOND = {"metal": 1e-12, "real": 1e-15}
JOULE = {"metal": constants.eV, "real": KCAL}
ANGSTROM = 1e-10
#: ase's unit of time: that in which eV, A and amu make no factors.
ASE_SECOND = np.sqrt(constants.atomic_mass / constants.eV) * ANGSTROM

#: where the cell of dumps begins, A
ORIGIN = np.array([-1.5, 2.0, 0.7])


def oxide(skew: float = 0.0) -> Atoms:
    """64 atoms of rocksalt HfO; the cell is lower triangular, as LAMMPS has it."""
    atoms = bulk("HfO", "rocksalt", a=4.8, cubic=True) * (2, 2, 2)
    atoms = atoms[np.argsort(atoms.numbers, kind="stable")[::-1]]
    if skew:
        cell = atoms.cell.array + skew * np.array([[0, 0, 0], [1, 0, 0], [-1, 0.5, 0]])
        atoms.set_cell(cell, scale_atoms=True)
    return atoms


def script(
    start: Atoms, n: int = 12, *, drift_A: float = 0.4, seed: int = 0
) -> list[Atoms]:
    """Frames in which atoms rattle a little and all drift along, out of the cell."""
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(n):
        atoms = start.copy()
        atoms.positions += rng.normal(scale=0.02, size=(len(start), 3))
        atoms.positions += drift_A * number * np.array([1.0, -0.7, 0.4])
        frames.append(atoms)
    return frames


def approach(frames: list[Atoms], at: int, distance_A: float) -> tuple[int, int]:
    """Hf0 and its nearest O are this far apart from a frame on; their indices."""
    (other,) = np.flatnonzero(frames[0].symbols == "O")[
        [np.argmin(frames[0].get_distances(0, frames[0].symbols == "O", mic=True))]
    ]
    for atoms in frames[at:]:
        vector = atoms.get_distance(0, other, mic=True, vector=True)
        unit = vector / np.linalg.norm(vector)
        atoms.positions[other] = atoms.positions[0] + distance_A * unit
    return 0, int(other)


def no_leaps() -> Criteria:
    """Limits for frames that are further apart than they say."""
    return Criteria(max_displacement_A=None)


def slow() -> Protocol:
    """For frames that are further apart than they say."""
    return Protocol(criteria=no_leaps())


def give(
    frames: list[Atoms], *, temperature_K: float = 300.0, forces: bool = True
) -> None:
    """Momenta of exactly this temperature (3N degrees of freedom), and forces of 1."""
    for number, atoms in enumerate(frames):
        n = len(atoms)
        # kg m/s, then ase's own unit
        mass = atoms.get_masses() * constants.atomic_mass
        size = np.sqrt(3 * mass * constants.k * temperature_K)
        size /= constants.atomic_mass * ANGSTROM / ASE_SECOND
        atoms.set_momenta(size[:, None] * np.eye(3)[np.arange(n) % 3])
        if forces:
            field = np.eye(3)[(np.arange(n) + 1) % 3]
            atoms.calc = SinglePointCalculator(atoms, energy=-5.0 * n, forces=field)
            atoms.info["number"] = number


def dump_text(
    atoms: Atoms,
    step: int,
    *,
    coordinates: str = "x",
    units: str = "metal",
    labels: str = "type element",
    shuffle: int | None = None,
    wrap: bool = True,
    header: str = "",
) -> str:
    """A frame as LAMMPS dumps it, written from the pages of its manual."""
    cell = atoms.cell.array
    scaled = atoms.positions @ np.linalg.inv(cell)
    names = {"x": "xyz", "xu": "xyz", "xs": "xyz", "xsu": "xyz"}[coordinates]
    if wrap and coordinates in ("x", "xs"):
        scaled %= 1.0
    place = scaled if "s" in coordinates else scaled @ cell + ORIGIN
    columns = ["id", *labels.split()]
    columns += [f"{axis}{coordinates[1:]}" for axis in names]
    numbers = [place]
    momenta = atoms.arrays.get("momenta")
    if momenta is not None:
        speed = momenta / atoms.get_masses()[:, None] * ANGSTROM / ASE_SECOND
        numbers.append(speed / (ANGSTROM / SECOND[units]))
        columns += ["vx", "vy", "vz"]
    if atoms.calc is not None:
        numbers.append(atoms.get_forces() * constants.eV / JOULE[units])
        columns += ["fx", "fy", "fz"]
    table = np.hstack(numbers)
    types = {"Hf": 1, "O": 2, "Ar": 1, "H": 1}
    order = np.arange(len(atoms))
    if shuffle is not None:
        np.random.default_rng(shuffle + step).shuffle(order)
    rows = []
    for i in order:
        symbol = atoms.symbols[i]
        words = {"type": str(types.get(symbol, 1)), "element": symbol}
        words["mass"] = str(atoms.get_masses()[i])
        own = [str(i + 1), *(words[label] for label in labels.split())]
        rows.append(" ".join([*own, *(f"{value:.10g}" for value in table[i])]))
    return "\n".join(
        [
            f"{header}ITEM: TIMESTEP",
            str(step),
            "ITEM: NUMBER OF ATOMS",
            str(len(atoms)),
            *box_lines(atoms),
            f"ITEM: ATOMS {' '.join(columns)}",
            *rows,
            "",
        ]
    )


def box_lines(atoms: Atoms) -> list[str]:
    """https://docs.lammps.org/Howto_triclinic.html"""
    cell, flags = atoms.cell.array, " ".join("pp" if p else "ff" for p in atoms.pbc)
    (lx, _, _), (xy, ly, _), (xz, yz, lz) = cell
    low, high = ORIGIN, ORIGIN + np.array([lx, ly, lz])
    if not (xy or xz or yz):
        return [
            f"ITEM: BOX BOUNDS {flags}",
            *(f"{a:.12g} {b:.12g}" for a, b in zip(low, high, strict=True)),
        ]
    x_lo, x_hi = min(0, xy, xz, xy + xz), max(0, xy, xz, xy + xz)
    return [
        f"ITEM: BOX BOUNDS xy xz yz {flags}",
        f"{low[0] + x_lo:.12g} {high[0] + x_hi:.12g} {xy:.12g}",
        f"{low[1] + min(0, yz):.12g} {high[1] + max(0, yz):.12g} {xz:.12g}",
        f"{low[2]:.12g} {high[2]:.12g} {yz:.12g}",
    ]


def write_dump(
    path: Path, frames: list[Atoms], *, interval: int = 10, first: int = 0, **how
) -> Path:
    """A dump file, compressed if its name says so."""
    text = "".join(
        dump_text(atoms, first + interval * number, **how)
        for number, atoms in enumerate(frames)
    )
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt") as handle:
        handle.write(text)
    return path


def write_xdatcar(path: Path, frames: list[Atoms]) -> Path:
    """By ase."""
    ase.io.write(path, [wrapped(atoms) for atoms in frames], format="vasp-xdatcar")
    return path


def write_ase(path: Path, frames: list[Atoms], format_: str) -> Path:
    """By ase; positions are not wrapped."""
    ase.io.write(path, frames, format=format_)
    return path


def write_vasprun(path: Path, frames: list[Atoms], *, potim: float = 1.0) -> Path:
    """A vasprun.xml with what an MD run of VASP 6 has in it, and little else."""
    first = frames[0]
    species = "".join(f"<rc><c>{s:2}</c><c>1</c></rc>" for s in first.symbols)
    steps = "".join(_calculation(atoms) for atoms in frames)
    path.write_text(
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n'
        f'<incar><i type="int" name="IBRION">0</i><i name="POTIM">{potim}</i></incar>\n'
        f"<atominfo><atoms>{len(first)}</atoms>"
        f'<array name="atoms"><set>{species}</set></array></atominfo>\n'
        f"{steps}</modeling>\n"
    )
    return path


def _calculation(atoms: Atoms) -> str:
    atoms = wrapped(atoms)
    forces = "" if atoms.calc is None else _varray("forces", atoms.get_forces())
    energy = -1.0 if atoms.calc is None else atoms.get_potential_energy()
    kinetic = (
        f'<i name="kinetic">{atoms.get_kinetic_energy():.8f}</i>'
        if atoms.has("momenta")
        else ""
    )
    return (
        '<calculation><scstep><energy><i name="e_fr_energy">1.0</i></energy></scstep>'
        f"<structure><crystal>{_varray('basis', atoms.cell.array)}</crystal>"
        f"{_varray('positions', atoms.get_scaled_positions())}</structure>{forces}"
        f'<energy><i name="e_fr_energy">{energy:.8f}</i>{kinetic}</energy>'
        "</calculation>\n"
    )


def _varray(name: str, rows: np.ndarray) -> str:
    lines = "".join(f"<v>{x:.10f} {y:.10f} {z:.10f}</v>" for x, y, z in rows)
    return f'<varray name="{name}">{lines}</varray>'


def wrapped(atoms: Atoms) -> Atoms:
    """With its calculator, inside the cell."""
    copy = atoms.copy()
    copy.wrap()
    copy.calc = atoms.calc
    if atoms.calc is not None:
        results = dict(atoms.calc.results)
        copy.calc = SinglePointCalculator(copy, **results)
    return copy
