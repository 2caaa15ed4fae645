"""Integrators split at the force evaluation, so that one call serves many replicas.

The same schemes, constants and random numbers as ase's (``ase.md.langevinbaoab``,
``ase.md.verlet``, ``ase.md.nose_hoover_chain``): paths agree to rounding. Langevin is
BAOAB (Leimkuhler and Matthews, J. Chem. Phys. 138, 174102 (2013)); the Nose-Hoover
chain is ase's own thermostat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from ase import units
from ase.md.nose_hoover_chain import NoseHooverChainThermostat

from nequip_decorr.md.dynamics.contract import Job, MDState, System
from nequip_decorr.md.frames import Array, Frame
from nequip_decorr.md.protocol import Protocol, degrees_of_freedom


class Walker:
    """A replica in motion. Its arrays are replaced at each step, never written to.

    Args:
        job: the replica's state and the seed of its random numbers.
        protocol: provides ensemble, time step, friction and thermostat time.
    """

    def __init__(self, job: Job, protocol: Protocol) -> None:
        self.job = job
        self.step = job.state.step
        self.positions_A = job.state.positions_A
        self.momenta = job.state.momenta
        self.forces_eV_per_A = job.state.forces_eV_per_A
        self.energy_eV = job.state.energy_eV
        #: positions on which the model has worked, None before its first call
        self.last_good_A: Array | None = None
        self._protocol = protocol
        self._timestep = protocol.timestep_fs * units.fs
        self._masses = job.atoms.get_masses()[:, None]
        self._rng = np.random.default_rng(job.entropy)
        if job.state.rng_state is not None:
            self._rng.bit_generator.state = job.state.rng_state
        self._chain = (
            _Chain(job, protocol, self._masses)
            if protocol.ensemble == "nose-hoover"
            else None
        )

    @property
    def system(self) -> System:
        """The structure on which to call the model next."""
        return System(self.job.atoms, self.positions_A)

    def depart(self) -> None:
        """First half of a step, up to the new positions; nothing for a fresh job."""
        if self.forces_eV_per_A is None:
            return
        self.last_good_A = self.positions_A
        if self._chain is not None:
            self.momenta = self._chain.half_step(self.momenta, self._timestep)
        self.momenta = self._kicked(self.forces_eV_per_A)
        if self._protocol.ensemble in ("langevin", "ramp"):
            self.positions_A = self._drifted(self._timestep / 2)
            self.momenta = self._thermalised()
            self.positions_A = self._drifted(self._timestep / 2)
        else:
            self.positions_A = self._drifted(self._timestep)
        self.step += 1

    def arrive(self, energy_eV: float, forces_eV_per_A: Array) -> None:
        """Second half of a step, with the forces at the new positions."""
        fresh = self.forces_eV_per_A is None
        self.energy_eV, self.forces_eV_per_A = energy_eV, forces_eV_per_A
        if fresh:
            return
        self.momenta = self._kicked(forces_eV_per_A)
        if self._chain is not None:
            self.momenta = self._chain.half_step(self.momenta, self._timestep)

    def frame(self) -> Frame:
        """The completed step."""
        assert self.forces_eV_per_A is not None
        assert self.energy_eV is not None
        return Frame(
            replica=self.job.replica,
            step=self.step,
            positions_A=self.positions_A,
            momenta=self.momenta,
            forces_eV_per_A=self.forces_eV_per_A,
            energy_eV=self.energy_eV,
        )

    def snapshot(self) -> MDState:
        """Everything needed to continue from here."""
        return MDState(
            step=self.step,
            positions_A=self.positions_A,
            momenta=self.momenta,
            forces_eV_per_A=self.forces_eV_per_A,
            energy_eV=self.energy_eV,
            rng_state=dict(self._rng.bit_generator.state),
            extra={} if self._chain is None else self._chain.extra(),
        )

    def _kicked(self, forces_eV_per_A: Array) -> Array:
        return np.asarray(self.momenta + 0.5 * self._timestep * forces_eV_per_A)

    def _drifted(self, time: float) -> Array:
        return np.asarray(self.positions_A + time * self.momenta / self._masses)

    def _thermalised(self) -> Array:
        """The exact solution of the Ornstein-Uhlenbeck process over one step."""
        target_K = self._protocol.target_temperature_K(
            self.job.temperature_K, self.step
        )
        decay = math.exp(-self._protocol.friction_per_fs * self._protocol.timestep_fs)
        noise = self._rng.normal(size=self.momenta.shape)
        width = np.sqrt(self._masses * (units.kB * target_K * (1 - decay**2)))
        return np.asarray(decay * self.momenta + width * noise)


class _Chain:
    """Ase's Nose-Hoover chain with 3N - 3 degrees of freedom, as momentum is conserved.

    A single atom keeps its three.
    """

    def __init__(self, job: Job, protocol: Protocol, masses: Array) -> None:
        n_free = degrees_of_freedom(len(job.atoms), protocol.ensemble)
        self._thermostat = NoseHooverChainThermostat(
            num_atoms_global=n_free // 3,
            masses=masses,
            temperature_K=job.temperature_K,
            tdamp=protocol.thermostat_time_fs * units.fs,
        )
        if job.state.extra:
            self._thermostat._eta[:] = job.state.extra["eta"]
            self._thermostat._p_eta[:] = job.state.extra["p_eta"]

    def half_step(self, momenta: Array, timestep: float) -> Array:
        """The momenta after half a step of the chain."""
        # the thermostat writes to what it is given
        return np.asarray(self._thermostat.integrate_nhc(momenta.copy(), timestep / 2))

    def extra(self) -> Mapping[str, Array]:
        """The chain's variables (copies)."""
        chain = self._thermostat
        return {"eta": chain._eta.copy(), "p_eta": chain._p_eta.copy()}
