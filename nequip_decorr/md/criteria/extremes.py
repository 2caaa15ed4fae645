"""Extreme values seen by the tests of a replica, kept so that it can be rejudged.

A limit is first exceeded at a step that sets a new record, so the record-setting steps
are enough to find that step for any limit. There are few of them, however long the
replica. Where the limit changes with time, as for temperatures, every value that might
exceed it is kept.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from nequip_decorr.md.criteria.violation import Violation
from nequip_decorr.md.frames import Array

#: Pairs farther apart than this times the sum of their covalent radii are not kept.
TRACED_RATIO = 1.0


class Extremes:
    """Record values of one replica. Each row starts with the step.

    Attributes:
        numbers: atomic numbers, (N,), and ``masses``, (N,).
        start_excess_K: start temperature minus target temperature.
        temperature_K: at every step, from step 0 on.
        way: (step, atom, A^2): squared displacement of an atom in one step, if it is a
            record among the atoms of its mass.
        force: (step, atom, eV^2/A^2): largest squared force, if it is a record.
        distance: (step, atom, atom, A): the closest pair relative to the sum of its
            covalent radii, if it is a record below :data:`TRACED_RATIO`.
        kinetic: (step, atom, eV): largest kinetic energy of an atom, for each step at
            which it exceeds what thermal motion explains.
        dissociation: step and violation of the first failed bonding test.
    """

    def __init__(self, atoms: Atoms, start_excess_K: float = 0.0) -> None:
        self.numbers = np.array(atoms.numbers, dtype=np.int64)
        self.masses = atoms.get_masses()
        self.start_excess_K = start_excess_K
        self.temperature_K = array("d")
        self.way: list[tuple[int, int, float]] = []
        self.force: list[tuple[int, int, float]] = []
        self.distance: list[tuple[int, int, int, float]] = []
        self.kinetic: list[tuple[int, int, float]] = []
        self.dissociation: tuple[int, Violation] | None = None
        _, self._group = np.unique(self.masses, return_inverse=True)
        self._longest = np.zeros(len(atoms))
        self._strongest = 0.0

    @property
    def last_step(self) -> int:
        """The last fully tested step; -1 before the first."""
        return len(self.temperature_K) - 1

    def note_ways(self, squares_A2: Array) -> None:
        """Record the squared displacements to the next positions, shape (N,)."""
        beyond = squares_A2 > self._longest
        if not beyond.any():
            return
        for group in np.unique(self._group[beyond]):
            members = np.flatnonzero(self._group == group)
            worst = int(members[np.nanargmax(squares_A2[members])])
            square = float(squares_A2[worst])
            self.way.append((self.last_step + 1, worst, square))
            self._longest[members] = square

    def note_force(self, step: int, atom: int, square: float) -> None:
        """Record the largest squared force of a step and the atom it acts on."""
        if square > self._strongest:
            self._strongest = square
            self.force.append((step, atom, square))

    def records(self) -> dict[str, Array]:
        """As arrays what stays short however long the replica."""
        gone = None
        if self.dissociation is not None:
            step, violation = self.dissociation
            gone = {"step": step, **violation._asdict()}
        return {
            "numbers": self.numbers,
            "masses": self.masses,
            "start_excess_K": np.array(self.start_excess_K),
            "way": np.array(self.way).reshape(-1, 3),
            "force": np.array(self.force).reshape(-1, 3),
            "distance": np.array(self.distance).reshape(-1, 4),
            "dissociation": np.array(json.dumps(gone)),
        }

    def series(self) -> dict[str, Sequence[Any]]:
        """What grows with the length of the replica, as it is kept here."""
        return {"temperature_K": self.temperature_K, "kinetic": self.kinetic}

    def arrays(self) -> dict[str, Array]:
        """All of it as arrays, for a file."""
        return self.records() | {
            "temperature_K": np.array(self.temperature_K),
            "kinetic": np.array(self.kinetic).reshape(-1, 3),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Extremes:
        """Inverse of :meth:`arrays`."""
        atoms = Atoms(arrays["numbers"], masses=arrays["masses"])
        seen = cls(atoms, float(arrays["start_excess_K"]))
        seen.temperature_K = array("d", np.asarray(arrays["temperature_K"]).tobytes())
        for name in ("way", "force", "kinetic"):
            rows = np.asarray(arrays[name]).tolist()
            setattr(seen, name, [(int(s), int(atom), x) for s, atom, x in rows])
        rows = np.asarray(arrays["distance"]).tolist()
        seen.distance = [(int(s), int(i), int(j), d) for s, i, j, d in rows]
        gone = json.loads(str(arrays["dissociation"]))
        if gone is not None:
            step = gone.pop("step")
            gone["atoms"] = tuple(gone["atoms"])
            seen.dissociation = (step, Violation(**gone))
        for _, atom, square in seen.way:
            seen._longest[seen._group == seen._group[atom]] = square
        seen._strongest = seen.force[-1][2] if seen.force else 0.0
        return seen
