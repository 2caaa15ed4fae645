"""When a trajectory has failed: the tests, in their order, on one replica.

Comparisons are written so that NaN fails. The limits and
where they come from are in :class:`nequip_decorr.md.protocol.Criteria`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ase import Atoms, units

from nequip_decorr.md.criteria.dissociation import Dissociation
from nequip_decorr.md.criteria.neighbours import Overlap
from nequip_decorr.md.criteria.violation import Labels, Violation, in_ps
from nequip_decorr.md.criteria.warmth import Warmth
from nequip_decorr.md.frames import Array, Frame
from nequip_decorr.md.protocol import Criteria

#: Kinetic energy of one atom in units of kT that thermal motion does not reach: among
#: 2000 atoms in a million steps about 25 kT is the largest.
THERMAL_KT = 40.0

#: A finite limit that only what has lost all meaning exceeds (its square is finite).
LARGEST = 1e150


class Watch:
    """Tests one replica step by step.

    See :mod:`nequip_decorr.md.dynamics.contract` for when.

    Args:
        atoms: the start structure: reference of bonds and pieces.
        criteria: the limits.
        timestep_fs: turns steps into times.
        degrees_of_freedom: of the kinetic energy.
        warmth: the temperature that a sound replica may have.
        check_interval_steps: how often bonds, pieces and isolation are tested.
    """

    def __init__(
        self,
        atoms: Atoms,
        criteria: Criteria,
        *,
        timestep_fs: float,
        degrees_of_freedom: int,
        warmth: Warmth,
        check_interval_steps: int = 1,
    ) -> None:
        self._criteria = criteria
        self._timestep_fs = timestep_fs
        self._dof = degrees_of_freedom
        self._warmth = warmth
        self._check_interval = check_interval_steps
        self._half_inverse_masses = 0.5 / atoms.get_masses()
        self._label = Labels(atoms)
        self._last_positions: Array | None = None
        #: temperature of the last step, K
        self.temperature_K = np.nan
        #: kinetic energy of the last step, eV
        self.kinetic_energy_eV = np.nan
        # a limit that is switched off is the largest number, which infinity exceeds
        self._max_way = self._longest_ways(atoms.get_masses())
        self._max_force = criteria.max_force_eV_per_A or LARGEST
        ratio = criteria.min_distance_ratio
        self._overlap = None if ratio is None else Overlap(atoms, ratio)
        self._dissociated = Dissociation(
            atoms, criteria, timestep_fs, warmth.hottest_target_K
        )
        # the step at which a limit that needs confirming was first passed, -1: not
        self._hot_since = -1

    @property
    def calm(self) -> bool:
        """Whether no limit is passed that only waits for confirmation."""
        return self._hot_since < 0 and not self._dissociated.waiting

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs, in types that JSON knows."""
        return {"hot_since": self._hot_since, "off_since": self._dissociated.state()}

    def restore(self, state: dict[str, Any], positions_A: Array) -> None:
        """Continue from a state at these positions."""
        self._hot_since = int(state["hot_since"])
        self._dissociated.restore(state["off_since"])
        self._last_positions = positions_A

    def before_forces(self, positions_A: Array) -> Violation | None:
        """The tests of new positions, before the model is called on them."""
        last = positions_A if self._last_positions is None else self._last_positions
        ways = squares(positions_A - last)
        if not (ways <= self._max_way**2).all():
            return self._not_finite("positions", positions_A) or self._too_far(ways)
        self._last_positions = positions_A
        return None

    def after_step(self, frame: Frame) -> Violation | None:
        """The tests of a whole step, in their order; the first that fails."""
        forces = squares(frame.forces_eV_per_A)
        kinetic = squares(frame.momenta) * self._half_inverse_masses
        self.kinetic_energy_eV = float(kinetic.sum())
        self.temperature_K = 2 * self.kinetic_energy_eV / (self._dof * units.kB)
        if not (
            forces.max() <= self._max_force**2
            and self.kinetic_energy_eV < np.inf
            and math.isfinite(frame.energy_eV)
        ):
            return (
                self._energy_not_finite(frame.energy_eV)
                or self._not_finite("forces", frame.forces_eV_per_A)
                or self._not_finite("momenta", frame.momenta)
                or self._too_strong(forces)
            )
        violation = self._too_close(frame.positions_A) or self._runaway(
            kinetic, frame.step
        )
        if violation or frame.step % self._check_interval:
            return violation
        return self._dissociated(frame)

    def _longest_ways(self, masses: Array) -> Array:
        """How far each atom may move in one step, (N,), A.

        At the least as far as the largest kinetic energy takes it: hydrogen at 3000 K
        moves 0.6 A in 2 fs.
        """
        limit_A = self._criteria.max_displacement_A
        if limit_A is None:
            return np.full(len(masses), LARGEST)
        kinetic_eV = self._criteria.max_atom_kinetic_eV
        if kinetic_eV is None:
            return np.full(len(masses), limit_A)
        hottest_eV = THERMAL_KT * units.kB * self._warmth.highest_K
        speeds = np.sqrt(2 * max(kinetic_eV, hottest_eV) / masses)
        ways: Array = np.maximum(limit_A, self._timestep_fs * units.fs * speeds)
        return ways

    def _energy_not_finite(self, energy_eV: float) -> Violation | None:
        if np.isfinite(energy_eV):
            return None
        return Violation("nonfinite", f"the energy is {energy_eV}")

    def _not_finite(self, name: str, values: Array) -> Violation | None:
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if not len(bad):
            return None
        return Violation(
            "nonfinite",
            f"{name} of {self._label.all(bad)} not finite",
            tuple(int(i) for i in bad),
        )

    def _too_far(self, ways: Array) -> Violation:
        worst = int(np.argmax(ways / self._max_way**2))
        way, limit = float(np.sqrt(ways[worst])), float(self._max_way[worst])
        return Violation(
            "blowup",
            f"{self._label.one(worst)} moved {way:.3g} A in one step, "
            f"limit {limit:.3g} A",
            (worst,),
            way,
            limit,
        )

    def _too_strong(self, forces: Array) -> Violation:
        worst = int(np.argmax(forces))
        force, limit = float(np.sqrt(forces[worst])), self._max_force
        return Violation(
            "blowup",
            f"force on {self._label.one(worst)} is {force:.4g} eV/A, "
            f"limit {limit:g} eV/A",
            (worst,),
            force,
            limit,
        )

    def _too_close(self, positions_A: Array) -> Violation | None:
        close = self._overlap(positions_A) if self._overlap else None
        if close is None:
            return None
        return Violation(
            "overlap",
            f"{self._label.all(close.atoms)} are {close.distance_A:.3f} A apart, "
            f"limit {close.limit_A:.3f} A",
            close.atoms,
            close.distance_A,
            close.limit_A,
        )

    def _runaway(self, kinetic_eV: Array, step: int) -> Violation | None:
        return (
            self._too_hot()
            or self._hot_atom(kinetic_eV, step)
            or self._hot_for_long(step)
        )

    def _too_hot(self) -> Violation | None:
        limit = self._criteria.max_temperature_K
        if limit is None or self.temperature_K <= limit:
            return None
        return Violation(
            "runaway",
            f"temperature is {self.temperature_K:.0f} K, limit {limit:g} K",
            (),
            self.temperature_K,
            limit,
        )

    def _hot_atom(self, kinetic_eV: Array, step: int) -> Violation | None:
        at_least = self._criteria.max_atom_kinetic_eV
        if at_least is None:
            return None
        reference_K = self._warmth.at(step * self._timestep_fs)
        limit = max(at_least, THERMAL_KT * units.kB * reference_K)
        if kinetic_eV.max() <= limit:
            return None
        worst = int(np.argmax(kinetic_eV))
        energy = float(kinetic_eV[worst])
        return Violation(
            "runaway",
            f"kinetic energy of {self._label.one(worst)} is {energy:.3g} eV, "
            f"limit {limit:.3g} eV",
            (worst,),
            energy,
            limit,
        )

    def _hot_for_long(self, step: int) -> Violation | None:
        sigma = self._criteria.runaway_sigma
        if sigma is None:
            return None
        spread = sigma * math.sqrt(2 / self._dof)
        limit = self._warmth.at(step * self._timestep_fs, spread)
        if self.temperature_K <= limit:
            self._hot_since = -1
            return None
        if self._hot_since < 0:
            self._hot_since = step
        time_fs = self._criteria.runaway_time_fs
        if not (step - self._hot_since) * self._timestep_fs >= time_fs:
            return None
        return Violation(
            "runaway",
            f"temperature is {self.temperature_K:.0f} K, above its limit of "
            f"{limit:.0f} K since {in_ps(self._hot_since, self._timestep_fs)} ps",
            (),
            self.temperature_K,
            limit,
        )


def squares(vectors: Array) -> Array:
    """Squared length of each of (N, 3) vectors."""
    return np.asarray(np.einsum("ij,ij->i", vectors, vectors))
