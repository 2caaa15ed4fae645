"""Paths from ase's own integrators, which ours are compared with."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import NoseHooverChainNVT, NoseHooverChainThermostat
from ase.md.verlet import VelocityVerlet

from nequip_decorr.md import Protocol
from nequip_decorr.md.dynamics.contract import Job


class Point(NamedTuple):
    """One step of a path."""

    positions_A: np.ndarray
    momenta: np.ndarray
    forces_eV_per_A: np.ndarray
    energy_eV: float


class ConservingChain(NoseHooverChainNVT):
    """Ase's chain takes 3N degrees of freedom; with momentum conserved it is 3N - 3."""

    def __init__(self, atoms: Atoms, temperature_K: float, **options: Any) -> None:
        super().__init__(atoms, temperature_K=temperature_K, **options)
        self._thermostat = NoseHooverChainThermostat(
            num_atoms_global=len(atoms) - 1,
            masses=self.masses,
            temperature_K=temperature_K,
            tdamp=options["tdamp"],
        )


def dynamics(atoms: Atoms, how: Protocol, job: Job) -> MolecularDynamics:
    """The integrator of ase for an ensemble, with the random numbers of the job."""
    timestep = how.timestep_fs * units.fs
    if how.ensemble == "nve":
        return VelocityVerlet(atoms, timestep)
    if how.ensemble == "nose-hoover":
        tdamp = how.thermostat_time_fs * units.fs
        return ConservingChain(atoms, job.temperature_K, timestep=timestep, tdamp=tdamp)
    return LangevinBAOAB(
        atoms,
        timestep,
        temperature_K=job.temperature_K,
        T_tau=units.fs / how.friction_per_fs,
        hydrostatic=True,
        rng=np.random.default_rng(job.entropy),
    )


def ase_path(
    calculator: Calculator, how: Protocol, job: Job, n_steps: int
) -> list[Point]:
    """The path of a fresh job, with its start, as ase moves it."""
    atoms = job.atoms.copy()
    atoms.set_positions(job.state.positions_A)
    atoms.set_momenta(job.state.momenta)
    atoms.calc = calculator
    atoms.get_forces()
    moving = dynamics(atoms, how, job)

    def point() -> Point:
        return Point(
            atoms.get_positions(),
            atoms.get_momenta(),
            atoms.get_forces(),
            atoms.get_potential_energy(),
        )

    path = [point()]
    for step in range(n_steps):
        if how.ensemble == "ramp":
            target_K = how.target_temperature_K(job.temperature_K, step)
            moving.set_temperature(target_K)
        moving.step()
        path.append(point())
    return path
