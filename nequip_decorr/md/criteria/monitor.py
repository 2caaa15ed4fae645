"""When a trajectory has failed: the tests, in their order, on one replica.

Every comparison is written so that NaN fails it. The limits and where they come from
are in :class:`nequip_decorr.md.protocol.Criteria`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ase import Atoms, units

from nequip_decorr.md.criteria.bonding import Bonding
from nequip_decorr.md.criteria.heat import Heat
from nequip_decorr.md.criteria.neighbours import Overlap
from nequip_decorr.md.criteria.violation import Names, Violation
from nequip_decorr.md.criteria.warmth import Warmth
from nequip_decorr.md.frames import Array, Frame
from nequip_decorr.md.protocol import Criteria

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
        self._check_interval = check_interval_steps
        self._half_inverse_masses = 0.5 / atoms.get_masses()
        self._names = Names(atoms)
        self._last_positions: Array | None = None
        #: temperature of the last step, K
        self.temperature_K = np.nan
        #: kinetic energy of the last step, eV
        self.kinetic_energy_eV = np.nan
        self._heat = Heat(
            criteria,
            self._names,
            timestep_fs=timestep_fs,
            degrees_of_freedom=degrees_of_freedom,
            warmth=warmth,
        )
        self._bonding = Bonding(
            atoms,
            criteria,
            self._names,
            timestep_fs=timestep_fs,
            temperature_K=warmth.hottest_target_K,
        )
        ratio = criteria.min_distance_ratio
        self._overlap = None if ratio is None else Overlap(atoms, ratio)
        # a limit that is switched off is the largest number, which infinity exceeds
        self._max_force = criteria.max_force_eV_per_A or LARGEST
        self._max_way = longest_ways(
            atoms.get_masses(),
            timestep_fs,
            criteria.max_displacement_A,
            self._heat.largest_kinetic_energy_eV(),
        )

    @property
    def calm(self) -> bool:
        """Whether no limit is passed that only waits for confirmation."""
        return self._heat.hot_since < 0 and not (self._bonding.off_since >= 0).any()

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs, in types that JSON knows."""
        return {
            "hot_since": self._heat.hot_since,
            "off_since": self._bonding.off_since.tolist(),
        }

    def restore(self, state: dict[str, Any], positions_A: Array) -> None:
        """Resume from a state at these positions."""
        self._heat.hot_since = int(state["hot_since"])
        self._bonding.off_since = np.array(state["off_since"], dtype=np.int64)
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
        self.temperature_K = self._heat.temperature_K(self.kinetic_energy_eV)
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
        violation = self._too_close(frame.positions_A) or self._heat(
            kinetic, frame.step
        )
        if violation or frame.step % self._check_interval:
            return violation
        return self._bonding(frame.positions_A, frame.step)

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
            f"{name} of {self._names(bad)} not finite",
            tuple(int(i) for i in bad),
        )

    def _too_far(self, ways: Array) -> Violation:
        worst = int(np.argmax(ways / self._max_way**2))
        way, limit = float(np.sqrt(ways[worst])), float(self._max_way[worst])
        return Violation(
            "blowup",
            f"{self._names([worst])} moved {way:.3g} A in one step, "
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
            f"force on {self._names([worst])} is {force:.4g} eV/A, "
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
            f"{self._names(close.atoms)} are {close.distance_A:.3f} A apart, "
            f"limit {close.limit_A:.3f} A",
            close.atoms,
            close.distance_A,
            close.limit_A,
        )


def longest_ways(
    masses: Array, timestep_fs: float, limit_A: float | None, kinetic_eV: float | None
) -> Array:
    """How far each atom may move in one step, (N,), A.

    At least as far as the largest kinetic energy takes it: hydrogen at 3000 K moves
    0.6 A in 2 fs.
    """
    if limit_A is None:
        return np.full(len(masses), LARGEST)
    if kinetic_eV is None:
        return np.full(len(masses), limit_A)
    ways = timestep_fs * units.fs * np.sqrt(2 * kinetic_eV / masses)
    return np.asarray(np.maximum(limit_A, ways))


def squares(vectors: Array) -> Array:
    """Squared length of each of (N, 3) vectors."""
    return np.asarray(np.einsum("ij,ij->i", vectors, vectors))
