"""Tests of kinetic energy: is the replica, or one of its atoms, too hot?"""

from __future__ import annotations

import math

from ase import units

from nequip_decorr.md.criteria.violation import Names, Violation
from nequip_decorr.md.criteria.warmth import Warmth
from nequip_decorr.md.protocol import Criteria

#: Kinetic energy of one atom in units of kT that thermal motion does not reach: among
#: 2000 atoms in a million steps about 25 kT is the largest.
THERMAL_KT = 40.0


class Heat:
    """Tests the kinetic energies of each step against a reference temperature.

    Args:
        criteria: the limits.
        names: names of the atoms, for messages.
        timestep_fs: MD time step, to convert steps to times.
        degrees_of_freedom: number of degrees of freedom of the kinetic energy.
        warmth: the temperature that a sound replica may have.
    """

    def __init__(
        self,
        criteria: Criteria,
        names: Names,
        *,
        timestep_fs: float,
        degrees_of_freedom: int,
        warmth: Warmth,
    ) -> None:
        self._criteria = criteria
        self._names = names
        self._timestep_fs = timestep_fs
        self._dof = degrees_of_freedom
        self._warmth = warmth
        #: the step at which the temperature first passed its limit, -1: it has not
        self.hot_since = -1

    def temperature_K(self, kinetic_eV: float) -> float:
        """Temperature that corresponds to a kinetic energy."""
        return float(2 * kinetic_eV / (self._dof * units.kB))

    def __call__(
        self, temperature_K: float, hottest: tuple[int, float], step: int
    ) -> Violation | None:
        """Test one step.

        Args:
            temperature_K: temperature of all atoms together.
            hottest: the atom with the largest kinetic energy, and that energy in eV.
            step: step of the replica.
        """
        return (
            self.too_hot(temperature_K)
            or self.hot_atom(*hottest, step)
            or self.hot_for_long(temperature_K, step)
        )

    def thermal_eV(self, step: int) -> float:
        """Kinetic energy that an atom may have at a step under any criteria."""
        target_K = self._warmth.target_K(step * self._timestep_fs)
        return float(THERMAL_KT * units.kB * target_K)

    def largest_kinetic_energy_eV(self) -> float | None:
        """Largest kinetic energy allowed for an atom; None without a limit."""
        at_least = self._criteria.max_atom_kinetic_eV
        if at_least is None:
            return None
        return float(max(at_least, THERMAL_KT * units.kB * self._warmth.highest_K))

    def too_hot(self, temperature_K: float) -> Violation | None:
        """Test the temperature against the limit for a single step."""
        limit = self._criteria.max_temperature_K
        if limit is None or temperature_K <= limit:
            return None
        return Violation(
            "runaway",
            f"temperature is {temperature_K:.0f} K, limit {limit:g} K",
            (),
            temperature_K,
            limit,
        )

    def hot_atom(self, atom: int, energy_eV: float, step: int) -> Violation | None:
        """Test the kinetic energy of one atom."""
        at_least = self._criteria.max_atom_kinetic_eV
        if at_least is None:
            return None
        reference_K = self._warmth.at(step * self._timestep_fs)
        limit = max(at_least, THERMAL_KT * units.kB * reference_K)
        if energy_eV <= limit:
            return None
        return Violation(
            "runaway",
            f"kinetic energy of {self._names([atom])} is {energy_eV:.3g} eV, "
            f"limit {limit:.3g} eV",
            (atom,),
            energy_eV,
            limit,
        )

    def hot_for_long(self, temperature_K: float, step: int) -> Violation | None:
        """Test whether the temperature exceeds the reference for too long."""
        sigma = self._criteria.runaway_sigma
        if sigma is None:
            return None
        spread = sigma * math.sqrt(2 / self._dof)
        limit = self._warmth.at(step * self._timestep_fs, spread)
        if temperature_K <= limit:
            self.hot_since = -1
            return None
        if self.hot_since < 0:
            self.hot_since = step
        hot_fs = (step - self.hot_since) * self._timestep_fs
        if not hot_fs >= self._criteria.runaway_time_fs:
            return None
        since_ps = self.hot_since * self._timestep_fs / 1000
        return Violation(
            "runaway",
            f"temperature is {temperature_K:.0f} K, above its limit of "
            f"{limit:.0f} K since {since_ps:.4g} ps",
            (),
            temperature_K,
            limit,
        )
