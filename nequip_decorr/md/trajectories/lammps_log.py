"""LAMMPS logs: settings, thermo output, and how the run ended.

https://docs.lammps.org/Errors_messages.html, https://docs.lammps.org/thermo_style.html:
styles ``one``, ``custom``, ``multi`` and ``yaml`` are read.
"""

from __future__ import annotations

import gzip
import re
import zlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from nequip_decorr.errors import UserError
from nequip_decorr.md.frames import Array
from nequip_decorr.md.trajectories import lammps_units

#: Errors that tell of an explosion, by their text, and the cause that each stands for.
#: Others (a full disk, a missing file, a broken card) say nothing of the model.
EXPLOSIONS = {
    "non-numeric": "nonfinite",
    "lost atoms": "blowup",
    "atoms missing": "blowup",
    "out of range atoms": "blowup",
    "simulation unstable": "blowup",
    "too far from equilibrium": "blowup",
    "bond extent": "blowup",
    "domain too large for neighbor bins": "blowup",
    "too many neighbor bins": "blowup",
    "neighbor list overflow": "blowup",
}
_MISSING = re.compile(r"(bond|angle|dihedral|improper) atoms? .*missing", re.I)

_YAML_ROW = re.compile(r"^\s*- \[(.*)\]$")

#: Columns of the thermo output that must be finite.
FINITE = ("Temp", "PotEng", "KinEng", "TotEng", "E_pair", "E_mol", "Press", "Volume")


@dataclass(frozen=True)
class RunLog:
    """The content of a log.

    Attributes:
        path: the file.
        units: the unit style; None if the log does not state it.
        timestep_fs: the time step; None if the log does not state it, or states
            several.
        types: LAMMPS type to chemical symbol, from ``pair_coeff * *``.
        rows: thermo output at increasing steps, (n, 4): step, temperature (K),
            potential and total energy (eV); NaN where a column is missing.
        nonfinite_step: the first step with a non-finite number, or None.
        lost: step and text of the first warning of lost atoms (``thermo_modify lost
            warn``), or None.
        error: the message that ended the run, or None.
        error_cause: the event cause of that error; None if it is not an explosion.
        error_step: the step at which it happened: the first output that is missing;
            None if the log does not state when one is due.
        finished: whether the input was carried out to its end.
    """

    path: Path
    units: str | None
    timestep_fs: float | None
    types: Mapping[str, str] | None
    rows: Array
    nonfinite_step: int | None
    lost: tuple[int, str] | None
    error: str | None
    error_cause: str | None
    error_step: int | None
    finished: bool

    @property
    def last_step(self) -> int | None:
        """The last step with output."""
        return int(self.rows[-1, 0]) if len(self.rows) else None


def read_log(path: Path, units: str | None = None) -> RunLog:
    """Read a log.

    Args:
        path: the file, which may be compressed (``.gz``).
        units: the unit style if the log does not state it.

    Raises:
        UserError: if the log cannot be read or has other units.
    """
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8", errors="replace") as handle:
            found = _parse(handle)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"expected a log of LAMMPS that can be read, got {path} ({error}); move "
            "it away to judge without it"
        ) from error
    style = lammps_units.check_style(
        found.units or units or lammps_units.DEFAULT, str(path)
    )
    rows = np.array(found.rows, dtype=np.float64).reshape(-1, 4)
    rows[:, 2:] *= lammps_units.energy(style)
    return RunLog(
        path=path,
        units=found.units,
        timestep_fs=found.timestep_fs(style),
        types=found.types,
        rows=rows,
        nonfinite_step=found.nonfinite_step,
        lost=found.lost,
        error=found.error,
        error_cause=_cause(found.error),
        error_step=found.error_step(),
        finished=found.finished,
    )


def _cause(error: str | None) -> str | None:
    if error is None:
        return None
    if _MISSING.search(error):
        return "blowup"
    return next((c for text, c in EXPLOSIONS.items() if text in error.lower()), None)


@dataclass
class _Parsed:
    """The content read so far, in LAMMPS units."""

    rows: array[float] = field(default_factory=lambda: array("d"))
    timesteps: set[float] = field(default_factory=set)
    units: str | None = None
    types: Mapping[str, str] | None = None
    nonfinite_step: int | None = None
    lost: tuple[int, str] | None = None
    losing: str | None = None
    error: str | None = None
    finished: bool = False
    every: int | None = None

    def timestep_fs(self, style: str) -> float | None:
        if not self.timesteps and self.units is not None:
            return lammps_units.DEFAULT_TIMESTEP_FS[style]
        if len(self.timesteps) != 1:
            return None
        return lammps_units.timestep_fs(next(iter(self.timesteps)), style)

    def error_step(self) -> int | None:
        """The step of the next output due, which is when errors show."""
        if self.error is None or not self.rows:
            return None
        last = int(self.rows[-4])
        every = self.every
        if every is None and len(self.rows) > 4:
            every = last - int(self.rows[-8])
        return (last // every + 1) * every if every else None

    def add(self, values: Mapping[str, float]) -> None:
        """Add one output; an earlier error was overcome by a restart."""
        self.error, self.finished = None, False
        step = int(values["Step"])
        while self.rows and self.rows[-4] >= step:
            del self.rows[-4:]  # printed again by the next run, or counted anew
        if self.nonfinite_step is not None and self.nonfinite_step >= step:
            self.nonfinite_step = None
        if self.lost is not None and self.lost[0] >= step:
            self.lost = None
        if self.losing is not None:  # printed before the line of its step
            self.lost, self.losing = self.lost or (step, self.losing), None
        bad = [n for n in FINITE if not np.isfinite(values.get(n, 0.0))]
        if bad and self.nonfinite_step is None:
            self.nonfinite_step = step
        nan = float("nan")
        potential = values.get("PotEng")
        if potential is None:  # style one
            potential = values.get("E_pair", nan) + values.get("E_mol", 0.0)
        total = values.get("TotEng", potential + values.get("KinEng", nan))
        self.rows.extend((step, values.get("Temp", nan), potential, total))

    def end(self, line: str) -> None:
        """Record how a run, or the whole input, ended."""
        if line.startswith("ERROR"):
            self.error = " ".join(line.split())
        elif line.startswith("Total wall time"):
            self.finished = self.error is None

    def command(self, line: str) -> None:
        """Read settings from an input command echoed in the log."""
        words = line.split("#", maxsplit=1)[0].split()
        name, arguments = (words[0], words[1:]) if words else ("", [])
        if name == "units" and arguments:
            self.units = arguments[0]
        elif name == "timestep" and arguments:
            self.timesteps |= _numbers(arguments[:1])
        elif name == "thermo" and arguments and arguments[0].isdigit():
            self.every = int(arguments[0]) or None
        elif name == "pair_coeff" and arguments[:2] == ["*", "*"]:
            self.types = _types(arguments[2:]) or self.types


def _numbers(words: Sequence[str]) -> set[float]:
    try:
        return {float(word) for word in words}
    except ValueError:  # ${dt}: the log has the number in its next line
        return set()


def _types(words: Sequence[str]) -> dict[str, str] | None:
    """``model.nequip.pt2 Hf O``: the elements of types 1, 2, ..."""
    names: list[str] = []
    for word in reversed(words):
        if word not in atomic_numbers and word != "NULL":
            break
        names.insert(0, word)
    numbered = enumerate(names, start=1)
    return {str(number): name for number, name in numbered if name != "NULL"} or None


def _parse(lines: Iterable[str]) -> _Parsed:
    found = _Parsed()
    columns: list[str] = []
    rows = 0
    multi: dict[str, float] = {}
    for line in lines:
        head = re.match(r"-+ Step\s+(\d+) -", line)
        if multi and (head or "=" not in line):
            found.add(multi)
            multi = {}
        if head:
            multi = {"Step": float(head[1])}
        elif multi:
            multi |= _values(re.findall(r"(\S+)\s+=\s+(\S+)", line))
        elif line.startswith(("ERROR", "Loop time", "Total wall time")):
            columns = []
            found.end(line)
        elif line.startswith("WARNING: Lost atoms"):
            found.losing = " ".join(line.split())
        elif names := _columns(line.partition("#")[0]):
            columns, rows = names, 0
        elif columns:
            cells = _YAML_ROW.sub(r"\1", line.rstrip()).replace(",", " ").split()
            values = _values(zip(columns, cells, strict=False))
            # neither a line that was cut off nor a warning between the lines
            if len(cells) == len(columns) == len(values):
                found.add(values)
                rows += 1
            elif not rows:  # `print` may write a line like the head of a table
                found.command(line)
        else:
            found.command(line)
    return found


def _columns(line: str) -> list[str]:
    """Column names at the start of a table."""
    if line.startswith("keywords:"):  # style yaml
        return re.findall(r"'([^']+)'", line)
    words = line.split()
    # `print "Step 10 is done"` is no header
    return (
        words if "Step" in words and not _values(zip(words, words, strict=True)) else []
    )


def _values(pairs: Iterable[tuple[str, str]]) -> dict[str, float]:
    """Values by column name; entries that are not numbers are omitted."""
    found = {}
    for name, text in pairs:
        try:
            found[name] = float(text)
        except ValueError:
            continue
    return found
