"""What is bonded to what: broken bonds, pieces, and atoms left alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from nequip_decorr.md.criteria.neighbours import (
    Fragments,
    Isolation,
    has_void,
    start_bonds,
)
from nequip_decorr.md.criteria.violation import Labels, Violation, in_ps
from nequip_decorr.md.frames import Array, Frame
from nequip_decorr.md.protocol import Criteria

#: Below this temperature no bond of a solid or molecule breaks by itself within the
#: picoseconds of a run; above it atoms do evaporate from surfaces, K.
EVAPORATION_K = 1000.0


class Dissociation:
    """Tests a replica for broken bonds, pieces and isolated atoms.

    Args:
        atoms: the start structure: reference of bonds and pieces.
        criteria: the limits.
        timestep_fs: turns steps into times.
        hottest_target_K: highest target temperature of the run.
    """

    def __init__(
        self,
        atoms: Atoms,
        criteria: Criteria,
        timestep_fs: float,
        hottest_target_K: float,
    ) -> None:
        self._criteria = criteria
        self._timestep_fs = timestep_fs
        self._label = Labels(atoms)
        ratio = criteria.fragment_ratio
        self._fragments = None if ratio is None else Fragments(atoms, ratio)
        self._isolation = self._make_isolation(atoms, hottest_target_K)
        self._bonds = start_bonds(atoms) if criteria.max_bond_deviation_A else None
        n_bonds = 0 if self._bonds is None else len(self._bonds.first)
        # the step at which a bond first passed its limit, -1: it has not
        self._off_since = np.full(n_bonds, -1, dtype=np.int64)
        #: whether a bond is past its limit and waits for confirmation
        self.waiting = False

    def state(self) -> list[int]:
        """What :meth:`restore` needs."""
        return [int(step) for step in self._off_since]

    def restore(self, off_since: Sequence[int]) -> None:
        """Continue from a state."""
        self._off_since = np.array(off_since, dtype=np.int64)
        self.waiting = bool((self._off_since >= 0).any())

    def __call__(self, frame: Frame) -> Violation | None:
        """The tests in their order; the first that fails."""
        return (
            self._broken_bond(frame)
            or self._in_pieces(frame.positions_A)
            or self._isolated(frame.positions_A)
        )

    def _broken_bond(self, frame: Frame) -> Violation | None:
        limit = self._criteria.max_bond_deviation_A
        if limit is None or self._bonds is None or not len(self._off_since):
            return None
        lengths = self._bonds.lengths(frame.positions_A)
        fine = np.abs(lengths - self._bonds.distance_A) <= limit
        self._off_since[fine] = -1
        self._off_since[~fine & (self._off_since < 0)] = frame.step
        self.waiting = not bool(fine.all())
        age_fs = (frame.step - self._off_since) * self._timestep_fs
        broken = ~fine & (age_fs >= self._criteria.bond_confirm_fs)
        if not broken.any():
            return None
        bond = int(np.argmax(np.where(broken, age_fs, -1)))
        pair = (int(self._bonds.first[bond]), int(self._bonds.second[bond]))
        off = float(abs(lengths[bond] - self._bonds.distance_A[bond]))
        since = in_ps(int(self._off_since[bond]), self._timestep_fs)
        return Violation(
            "dissociation",
            f"bond {self._label.all(pair)} is {off:.2f} A off its "
            f"{self._bonds.distance_A[bond]:.2f} A, limit {limit:g} A, "
            f"first crossed at {since} ps",
            pair,
            off,
            limit,
        )

    def _in_pieces(self, positions_A: Array) -> Violation | None:
        if not self._fragments:
            return None
        pieces, smallest = self._fragments(positions_A)
        if pieces <= self._fragments.at_start:
            return None
        return Violation(
            "dissociation",
            f"{pieces} pieces, {self._fragments.at_start} at the start; the smallest "
            f"is {self._label.all(smallest)}",
            smallest,
            float(pieces),
            float(self._fragments.at_start),
        )

    def _isolated(self, positions_A: Array) -> Violation | None:
        alone = self._isolation(positions_A) if self._isolation else ()
        if not alone:
            return None
        return Violation(
            "dissociation",
            f"{self._label.all(alone)} without a neighbour within "
            f"{self._criteria.isolation_ratio:g} bond lengths",
            alone,
            None,
            self._criteria.isolation_ratio,
        )

    def _make_isolation(
        self, atoms: Atoms, hottest_target_K: float
    ) -> Isolation | None:
        """The test for atoms without a neighbour, where it is meaningful.

        Beside a void, a hot atom evaporates, and nothing is wrong with that.
        """
        ratio = self._criteria.isolation_ratio
        evaporates = hottest_target_K > EVAPORATION_K
        if ratio is None or (evaporates and has_void(atoms)):
            return None
        return Isolation(atoms, ratio)
