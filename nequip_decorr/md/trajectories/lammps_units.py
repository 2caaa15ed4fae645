"""LAMMPS unit styles used with models in eV and A or in kcal/mol."""

from __future__ import annotations

from ase.calculators.lammps import convert

from nequip_decorr.errors import UserError

STYLES = ("metal", "real")

#: The one that NequIP and Allegro models need.
DEFAULT = "metal"

#: LAMMPS' own time step where an input sets none, fs.
DEFAULT_TIMESTEP_FS = {"metal": 1.0, "real": 1.0}


def check_style(style: str, where: str) -> str:
    """Return the unit style if it is supported.

    Raises:
        UserError: for any other style.
    """
    if style not in STYLES:
        raise UserError(
            f"expected units {' or '.join(STYLES)}, got {style!r} in {where}; convert "
            "the trajectory to extxyz"
        )
    return style


def timestep_fs(value: float, style: str) -> float:
    """Time step in fs: LAMMPS uses ps in metal and fs in real units."""
    return value * {"metal": 1000.0, "real": 1.0}[style]


def velocity(style: str) -> float:
    """LAMMPS unit of velocity in ase units."""
    return float(convert(1.0, "velocity", style, "ASE"))


def force(style: str) -> float:
    """LAMMPS unit of force in eV/A."""
    return float(convert(1.0, "force", style, "ASE"))


def energy(style: str) -> float:
    """LAMMPS unit of energy in eV."""
    return float(convert(1.0, "energy", style, "ASE"))
