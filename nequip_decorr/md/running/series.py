"""Series of a replica that has not ended, in files that only grow.

A save appends what is new, so that it costs the same however long the replica is, and
the saved state keeps how many rows of each file are part of it. Rows beyond these are
of a process that was killed before its next state; they are cut off on resume.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nequip_decorr.md.files import append
from nequip_decorr.md.frames import Array

#: What grows with the length of a replica, and its columns: the recorded trace, and of
#: :class:`nequip_decorr.md.criteria.extremes.Extremes` all that is no record.
COLUMNS = {"trace": 4, "temperature_K": 1, "kinetic": 3}

#: Little-endian double precision.
_TYPE = np.dtype("<f8")


class Series:
    """The series of one replica.

    Args:
        stem: how the paths of its files begin.
        marks: for each of :data:`COLUMNS`, how many rows are part of the saved state,
            and their CRC-32; None when there is no state.
    """

    def __init__(
        self, stem: Path, marks: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        self._stem = stem
        self._marks = dict.fromkeys(COLUMNS, (0, 0))
        self._marks |= {
            name: (rows, crc) for name, (rows, crc) in (marks or {}).items()
        }

    @property
    def marks(self) -> dict[str, tuple[int, int]]:
        """As given, for the next state."""
        return dict(self._marks)

    def extend(self, series: Mapping[str, Sequence[Any]]) -> None:
        """Append the rows that are new.

        Args:
            series: each in full, from its first row on.

        Raises:
            OSError: when the disk is full; what a state covers is as it was.
        """
        for name, values in series.items():
            rows, crc = self._marks[name]
            if len(values) > rows:
                data = np.array(values[rows:], dtype=_TYPE).tobytes()
                append(self._path(name), data)
                self._marks[name] = len(values), zlib.crc32(data, crc)

    def read(self) -> dict[str, Array] | None:
        """Each in full, as of the state; None when one is damaged."""
        found = {}
        for name, (rows, crc) in self._marks.items():
            data = self._read(name, self._size(name)) if rows else b""
            if len(data) != self._size(name) or zlib.crc32(data) != crc:
                return None
            values = np.frombuffer(data, dtype=_TYPE)
            wide = COLUMNS[name] > 1
            found[name] = values.reshape(rows, COLUMNS[name]) if wide else values
        return found

    def cut(self) -> None:
        """Cut off what is no part of the state."""
        for name in COLUMNS:
            if self._path(name).exists():
                os.truncate(self._path(name), self._size(name))

    def remove(self) -> None:
        """Remove the files."""
        for name in COLUMNS:
            self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._stem.with_name(f"{self._stem.name}_{name}.f8")

    def _size(self, name: str) -> int:
        return self._marks[name][0] * COLUMNS[name] * _TYPE.itemsize

    def _read(self, name: str, size: int) -> bytes:
        try:
            with self._path(name).open("rb") as handle:
                return handle.read(size)
        except FileNotFoundError:
            return b""
