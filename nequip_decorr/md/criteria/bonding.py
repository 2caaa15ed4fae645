"""Tests for dissociation: bonds, fragments and isolated atoms."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from nequip_decorr.md.criteria.neighbours import (
    Fragments,
    Isolation,
    start_bonds,
    with_cell,
)
from nequip_decorr.md.criteria.violation import Names, Violation
from nequip_decorr.md.criteria.voids import has_void
from nequip_decorr.md.frames import Array
from nequip_decorr.md.protocol import Criteria

#: Below this temperature no bond of a solid or molecule breaks by itself within the
#: picoseconds of a run; above it atoms do evaporate from surfaces, K.
EVAPORATION_K = 1000.0


class Bonding:
    """Tests bonds, fragments and isolated atoms against the start structure.

    Args:
        atoms: the start structure.
        criteria: the limits.
        names: names of the atoms, for messages.
        timestep_fs: MD time step, to convert steps to times.
        temperature_K: highest target temperature; above :data:`EVAPORATION_K`, atoms
            beside a void may evaporate and isolated atoms are not tested.
    """

    def __init__(
        self,
        atoms: Atoms,
        criteria: Criteria,
        names: Names,
        *,
        timestep_fs: float,
        temperature_K: float,
    ) -> None:
        self._criteria = criteria
        self._names = names
        self._timestep_fs = timestep_fs
        self._atoms = atoms
        ratio = criteria.fragment_ratio
        self._fragments = None if ratio is None else Fragments(atoms, ratio)
        ratio = criteria.isolation_ratio
        judged = temperature_K <= EVAPORATION_K or (ratio and not has_void(atoms))
        self._isolation = Isolation(atoms, ratio) if ratio and judged else None
        self._bonds = start_bonds(atoms) if criteria.max_bond_deviation_A else None
        n_bonds = 0 if self._bonds is None else len(self._bonds.first)
        #: the step at which each bond first passed its limit, -1: it has not
        self.off_since = np.full(n_bonds, -1, dtype=np.int64)

    def __call__(self, positions_A: Array, step: int) -> Violation | None:
        """Test the positions after a step, shape (N, 3)."""
        return (
            self._broken_bond(positions_A, step)
            or self._in_pieces(positions_A)
            or self._isolated(positions_A)
        )

    def follow_cell(self, cell_A: Array) -> None:
        """Use another cell, shape (3, 3), from now on."""
        for test in (self._fragments, self._isolation):
            if test is not None:
                test.follow_cell(cell_A)
        if self._bonds is not None:
            self._bonds = self._bonds.in_cell(self._atoms, cell_A)
        self._atoms = with_cell(self._atoms, cell_A)

    def _broken_bond(self, positions_A: Array, step: int) -> Violation | None:
        limit = self._criteria.max_bond_deviation_A
        if limit is None or self._bonds is None or not len(self.off_since):
            return None
        lengths = self._bonds.lengths(positions_A)
        fine = np.abs(lengths - self._bonds.distance_A) <= limit
        self.off_since[fine] = -1
        self.off_since[~fine & (self.off_since < 0)] = step
        age_fs = (step - self.off_since) * self._timestep_fs
        broken = ~fine & (age_fs >= self._criteria.bond_confirm_fs)
        if not broken.any():
            return None
        bond = int(np.argmax(np.where(broken, age_fs, -1)))
        pair = (int(self._bonds.first[bond]), int(self._bonds.second[bond]))
        off = float(abs(lengths[bond] - self._bonds.distance_A[bond]))
        crossed_ps = int(self.off_since[bond]) * self._timestep_fs / 1000
        return Violation(
            "dissociation",
            f"bond {self._names(pair)} deviates by {off:.2f} A from its initial "
            f"{self._bonds.distance_A[bond]:.2f} A, limit {limit:g} A, "
            f"first crossed at {crossed_ps:.4g} ps",
            pair,
            off,
            limit,
        )

    def _in_pieces(self, positions_A: Array) -> Violation | None:
        if self._fragments is None:
            return None
        pieces, smallest = self._fragments(positions_A)
        if pieces <= self._fragments.at_start:
            return None
        return Violation(
            "dissociation",
            f"{pieces} pieces, {self._fragments.at_start} at the start; the smallest "
            f"is {self._names(smallest)}",
            smallest,
            float(pieces),
            float(self._fragments.at_start),
        )

    def _isolated(self, positions_A: Array) -> Violation | None:
        alone = () if self._isolation is None else self._isolation(positions_A)
        if not alone:
            return None
        return Violation(
            "dissociation",
            f"{self._names(alone)} without a neighbour within "
            f"{self._criteria.isolation_ratio:g} bond lengths",
            alone,
            None,
            self._criteria.isolation_ratio,
        )
