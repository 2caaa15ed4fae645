"""Watches of a trajectory, and single frames to show them."""

import numpy as np
from ase import units

from nequip_decorr.md import Criteria, Protocol
from nequip_decorr.md.criteria.monitor import Watch
from nequip_decorr.md.criteria.warmth import warmth
from nequip_decorr.md.frames import Frame

OFF = Criteria(
    max_displacement_A=None,
    max_force_eV_per_A=None,
    min_distance_ratio=None,
    runaway_sigma=None,
    max_temperature_K=None,
    max_atom_kinetic_eV=None,
    isolation_ratio=None,
)
T0 = 300.0
AT_REST = Criteria(stored_energy_eV_per_atom=0)


def watch(atoms, criteria, *, timestep_fs=1.0, every=1, temperature_K=T0):
    return Watch(
        atoms,
        criteria,
        timestep_fs=timestep_fs,
        degrees_of_freedom=3 * len(atoms),
        warmth=warmth(Protocol(criteria=criteria), temperature_K),
        check_interval_steps=every,
    )


def frame(atoms, step=0, *, positions=None, momenta=None, forces=None, energy=-1.0):
    zero = np.zeros((len(atoms), 3))
    return Frame(
        replica=0,
        step=step,
        positions_A=atoms.positions if positions is None else positions,
        momenta=zero if momenta is None else momenta,
        forces_eV_per_A=zero if forces is None else forces,
        energy_eV=energy,
    )


def momenta_at(atoms, temperature_K):
    """Momenta of exactly this temperature, shared evenly by all atoms."""
    per_atom = np.sqrt(3 * units.kB * temperature_K * atoms.get_masses())
    return per_atom[:, None] * np.array([[1.0, 0.0, 0.0]])
