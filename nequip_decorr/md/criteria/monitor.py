"""Applies all failure tests to one replica, in their order.

Comparisons are written so that NaN fails. The limits and their origin are documented in
:class:`nequip_decorr.md.protocol.Criteria`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.data import covalent_radii

from nequip_decorr.md.criteria.bonding import Bonding
from nequip_decorr.md.criteria.extremes import TRACED_RATIO, Extremes
from nequip_decorr.md.criteria.heat import Heat
from nequip_decorr.md.criteria.neighbours import Closest
from nequip_decorr.md.criteria.violation import (
    Names,
    Violation,
    too_close,
    too_far,
    too_strong,
)
from nequip_decorr.md.criteria.warmth import Warmth
from nequip_decorr.md.frames import Array, Frame
from nequip_decorr.md.protocol import Criteria

#: A finite limit that only what has lost all meaning exceeds (its square is finite).
LARGEST = 1e150


class Watch:
    """Tests one replica step by step.

    See :mod:`nequip_decorr.md.dynamics.contract` for when each test is called.

    Args:
        atoms: the start structure, the reference for bonds and fragments.
        criteria: the limits.
        timestep_fs: MD time step, to convert steps to times.
        degrees_of_freedom: number of degrees of freedom of the kinetic energy.
        warmth: the temperature that a sound replica may have.
        check_interval_steps: steps between tests of bonds, fragments and isolation.
        start_excess_K: start temperature minus target; only recorded.
        records: whether to keep what rejudging needs: how close atoms come, also
            where nothing overlaps, and tests whose outcome no longer counts.
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
        start_excess_K: float = 0.0,
        records: bool = True,
    ) -> None:
        #: steps between tests of bonds, fragments and isolation
        self.check_interval_steps = check_interval_steps
        self._geometry = True
        self._records = records
        self._half_inverse_masses = 0.5 / atoms.get_masses()
        self._names = Names(atoms)
        self._last_positions: Array | None = None
        #: what the tests have seen so far
        self.seen = Extremes(atoms, start_excess_K)
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
        self._least_ratio = criteria.min_distance_ratio or 0.0
        self._record_ratio = max(self._least_ratio, TRACED_RATIO if records else 0.0)
        self._closest = Closest(atoms, self._record_ratio)
        # a limit that is switched off is the largest number, which infinity exceeds
        self._max_force = criteria.max_force_eV_per_A or LARGEST
        self._max_way = longest_ways(
            atoms.get_masses(),
            timestep_fs,
            criteria.max_displacement_A,
            self._heat.largest_kinetic_energy_eV(),
        )
        self._max_square = self._max_way**2

    @property
    def calm(self) -> bool:
        """Whether no exceeded limit is still waiting for confirmation."""
        hot = self._heat.hot_since >= 0
        return not (hot or (self._geometry and (self._bonding.off_since >= 0).any()))

    def state(self) -> dict[str, Any]:
        """State for :meth:`restore`, in JSON types."""
        return {
            "hot_since": self._heat.hot_since,
            "off_since": self._bonding.off_since.tolist(),
        }

    def restore(
        self, state: dict[str, Any], positions_A: Array, seen: Extremes
    ) -> None:
        """Resume from a state at these positions, with what was seen until then."""
        self.seen = seen
        if seen.distance:
            _, i, j, distance_A = seen.distance[-1]
            self._lower(distance_A / float(covalent_radii[seen.numbers[[i, j]]].sum()))
        self._heat.hot_since = int(state["hot_since"])
        self._bonding.off_since = np.array(state["off_since"], dtype=np.int64)
        self._last_positions = positions_A

    def follow_cell(self, cell_A: Array) -> None:
        """Test in another cell, (3, 3), from now on."""
        self._closest.follow_cell(cell_A)
        self._bonding.follow_cell(cell_A)

    def explosions_only(self) -> None:
        """Test only for explosions from now on: the geometry is already unphysical."""
        self._geometry = False
        self._least_ratio = 0.0

    def past_unphysical(self, frame: Frame) -> Violation | None:
        """Continue after :meth:`after_step` found an unphysical geometry.

        Returns:
            An explosion found by the remaining tests of this step, if any. Later steps
            are tested only for explosions.
        """
        self.explosions_only()
        kinetic = self._kinetic_energies(frame)
        return self._heat(self.temperature_K, _largest(kinetic), frame.step)

    def before_forces(self, positions_A: Array) -> Violation | None:
        """Test new positions before the model is called on them."""
        last = positions_A if self._last_positions is None else self._last_positions
        ways = squares(positions_A - last)
        self.seen.note_ways(ways)
        if not (ways <= self._max_square).all():
            return self._not_finite("positions", positions_A) or self._moved_far(ways)
        self._last_positions = positions_A
        return None

    def after_step(self, frame: Frame) -> Violation | None:
        """Test a complete step; returns the first test that fails, in their order."""
        forces = squares(frame.forces_eV_per_A)
        worst, strongest = _largest(forces)
        kinetic = self._kinetic_energies(frame)
        hottest = _largest(kinetic)
        self.kinetic_energy_eV = float(kinetic.sum())
        self.temperature_K = self._heat.temperature_K(self.kinetic_energy_eV)
        # with records all is measured, also after a test that fails: under other limits
        # it may not
        self.seen.note_force(frame.step, worst, strongest)
        self.seen.temperature_K.append(self.temperature_K)
        if hottest[1] > self._heat.thermal_eV(frame.step):
            self.seen.kinetic.append((frame.step, *hottest))
        overlap = dissociation = None
        if self._records or self._geometry:
            overlap = self._overlap(frame)
        if self._records or (self._geometry and overlap is None):
            dissociation = self._dissociated(frame)
        if not (
            strongest <= self._max_force**2
            and self.kinetic_energy_eV < np.inf
            and math.isfinite(frame.energy_eV)
        ):
            return (
                self._energy_not_finite(frame.energy_eV)
                or self._not_finite("forces", frame.forces_eV_per_A)
                or self._not_finite("momenta", frame.momenta)
                or too_strong(self._names, worst, strongest, self._max_force)
            )
        return (
            overlap
            or self._heat(self.temperature_K, hottest, frame.step)
            or dissociation
        )

    def _kinetic_energies(self, frame: Frame) -> Array:
        return np.asarray(squares(frame.momenta) * self._half_inverse_masses)

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

    def _moved_far(self, ways: Array) -> Violation:
        worst = int(np.argmax(ways / self._max_square))
        return too_far(
            self._names, worst, float(ways[worst]), float(self._max_way[worst])
        )

    def _overlap(self, frame: Frame) -> Violation | None:
        close = self._closest(frame.positions_A)
        if close is None:
            return None
        relative = close.distance_A / close.sum_A
        if relative < self._record_ratio:
            self.seen.distance.append((frame.step, *close.atoms, close.distance_A))
            self._lower(relative)
        if not close.distance_A < self._least_ratio * close.sum_A:
            return None
        limit_A = self._least_ratio * close.sum_A
        return too_close(self._names, close.atoms, close.distance_A, limit_A)

    def _lower(self, ratio: float) -> None:
        """Search for pairs closer than the record or the limit."""
        self._record_ratio = ratio
        self._closest.ratio = max(ratio, self._least_ratio)

    def _dissociated(self, frame: Frame) -> Violation | None:
        """Test bonding at its intervals, until it first fails."""
        if frame.step % self.check_interval_steps or self.seen.dissociation is not None:
            return None
        found = self._bonding(frame.positions_A, frame.step)
        if found is not None:
            self.seen.dissociation = (frame.step, found)
        return found if self._geometry else None


def _largest(values: Array) -> tuple[int, float]:
    """Index of the largest value, and the value."""
    index = int(values.argmax())
    return index, float(values[index])


def longest_ways(
    masses: Array, timestep_fs: float, limit_A: float | None, kinetic_eV: float | None
) -> Array:
    """Displacement allowed for each atom in one step, shape (N,), A.

    This is at least the distance that the largest allowed kinetic energy gives:
    10 eV carries hydrogen 0.88 A in 2 fs.
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
