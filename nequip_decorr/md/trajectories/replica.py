"""One replica from its first frame to its end: events, trace, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ase import units

from nequip_decorr.errors import UserError
from nequip_decorr.md.criteria.heat import Heat
from nequip_decorr.md.criteria.violation import Names, Violation
from nequip_decorr.md.frames import Array
from nequip_decorr.md.protocol import Criteria, Protocol, degrees_of_freedom
from nequip_decorr.md.results import Trace
from nequip_decorr.md.trajectories.judging import (
    Found,
    Judge,
    heat_of_all,
    kinetic_energy_eV,
    reference_warmth,
    temperature_of,
)
from nequip_decorr.md.trajectories.lammps_log import RunLog
from nequip_decorr.md.trajectories.opening import Opened, Reading, stream
from nequip_decorr.md.trajectories.snapshot import Snapshot, Warn

#: A trace of more points than this is thinned to half of them.
MOST_POINTS = 4000


@dataclass(frozen=True)
class Judged:
    """The outcome of a trajectory; steps are counted from its first frame.

    Attributes:
        events: the first event of each kind.
        last_step: step of the last judged frame, or the horizon if there are frames
            beyond it.
        finished_step: step at which the run reached its planned end; None if it did
            not, or the files do not state it.
        trace: temperature and energies.
        not_tested: tests for which the files lack data, with the reason.
    """

    events: dict[str, Found]
    last_step: int
    finished_step: int | None
    trace: Trace
    not_tested: dict[str, str]


def judge_replica(
    opened: Opened,
    reading: Reading,
    protocol: Protocol,
    temperature_K: float,
    *,
    n_steps: int | None,
    warn: Warn,
) -> Judged:
    """Judge a replica until its end, or until the event that ends it.

    Args:
        opened: the replica.
        reading: settings for reading its files.
        protocol: criteria, ensemble, time step, and the event that ends it.
        temperature_K: its target temperature.
        n_steps: last step to read; None for all.
        warn: called with warnings.

    Raises:
        UserError: if a file is damaged or is not a single simulation.
    """
    warmth = reference_warmth(protocol, temperature_K, len(opened.start), opened.first)
    rows = _rows(opened.log, opened.first_step)
    heat = Heat(
        protocol.criteria,
        Names(opened.start),
        timestep_fs=protocol.timestep_fs,
        degrees_of_freedom=degrees_of_freedom(len(opened.start), protocol.ensemble),
        warmth=warmth,
    )
    logged = _logged_explosion(opened, rows, heat, protocol)
    error = _error(opened, warn)
    limit = min(
        math.inf if n_steps is None else n_steps,
        math.inf if logged is None else logged.step,
    )
    judge = Judge(
        opened.start,
        protocol,
        warmth,
        interval_steps=opened.interval_steps or 1,
    )
    trace = _Points(protocol, len(opened.start))
    last_step, first_ends = 0, protocol.until == "first"
    frames = stream(opened.source, opened.log, reading, warn)
    for frame in frames:
        step = (frame.step or 0) - opened.first_step
        if step > limit:
            if n_steps is not None and step > n_steps:
                last_step = n_steps  # it went on beyond the horizon
            break
        judge(frame, step)
        if frame.lost:
            _check_stay_lost(frame, frames, opened)
        else:
            trace.add(frame, step)
        last_step = step
        if "explosion" in judge.events or (judge.events and first_ends):
            break
    else:
        if error is not None:
            ended_by = Found(error, _error_step(opened, last_step))
            logged = min(logged or ended_by, ended_by, key=_step)
    events = dict(judge.events)
    ended = events and first_ends
    if logged is not None and logged.step <= limit and not ended:
        with_frame = Found(logged.violation, logged.step, judge.last_good)
        found = events.get("explosion", with_frame)
        events["explosion"] = min(found, with_frame, key=_step)
    return Judged(
        events=events,
        last_step=last_step,
        finished_step=_finished_step(opened),
        trace=_trace(rows, last_step, protocol) if len(rows) else trace.trace(),
        not_tested=not_tested(opened, protocol.criteria),
    )


def _check_stay_lost(
    fewer: Snapshot, later: Iterator[Snapshot], opened: Opened
) -> None:
    """Refuse a dump of a changing part of the atoms: lost ones do not come back."""
    lost = set(fewer.lost)
    for frame in later:
        if not lost <= set(frame.lost):
            raise UserError(
                f"expected all atoms in each frame of {opened.source.path}, or ever "
                f"fewer where LAMMPS lost some, got atoms at step {frame.step} that "
                f"were missing before; dump all atoms, without region or thresh"
            )
        lost = set(frame.lost)


def not_tested(opened: Opened, criteria: Criteria) -> dict[str, str]:
    """Enabled tests for which the files lack data, with the reason."""
    first, log = opened.first, opened.log
    total = first.kinetic_energy_eV is not None
    logged = log is not None and bool(np.isfinite(log.rows[:, 1]).any())
    found: dict[str, str] = {}
    warm = criteria.runaway_sigma or criteria.max_temperature_K
    if warm and first.momenta is None and not (total or logged):
        found["temperature"] = "no velocities in the trajectory and no LAMMPS log"
    if criteria.max_atom_kinetic_eV and first.momenta is None:
        found["kinetic energy of single atoms"] = "no velocities in the trajectory"
    if criteria.max_force_eV_per_A and first.forces_eV_per_A is None:
        found["forces"] = "no forces in the trajectory"
    interval = opened.interval_steps or 1
    if criteria.max_displacement_A and interval > 1:
        found["displacement in one step"] = f"frames are {interval} steps apart"
    if opened.source.format == "dump" and log is None:
        found["how the run ended"] = "no log.lammps beside the dump"
    return found


def _finished_step(opened: Opened) -> int | None:
    log = opened.log
    if log is None or not log.finished or log.last_step is None:
        return None
    return log.last_step - opened.first_step


def _rows(log: RunLog | None, first_step: int) -> Array:
    """Thermo output from the first frame on, steps counted from it, (n, 4)."""
    if log is None or not np.isfinite(log.rows[:, 1]).any():
        return np.empty((0, 4))
    rows: Array = log.rows[log.rows[:, 0] >= first_step].copy()
    rows[:, 0] -= first_step
    return rows


def _logged_explosion(
    opened: Opened, rows: Array, heat: Heat, protocol: Protocol
) -> Found | None:
    """The first explosion that the log tells of, if the run went on after it."""
    log = opened.log
    if log is None:
        return None
    found: list[Found] = []
    n_atoms = len(opened.start)
    dof = degrees_of_freedom(n_atoms, protocol.ensemble)
    for step, kelvin in rows[:, :2].tolist():
        violation = heat_of_all(heat, kelvin * dof * units.kB / 2, n_atoms, int(step))
        if violation is not None and violation.cause != "nonfinite":
            found.append(Found(violation, int(step)))
            break
    first = opened.first_step
    if log.nonfinite_step is not None and log.nonfinite_step >= first:
        line = f"{log.path.name} has a number that is not finite"
        found.append(Found(Violation("nonfinite", line), log.nonfinite_step - first))
    if log.lost is not None and log.lost[0] >= first:
        message = f"LAMMPS: {log.lost[1].removeprefix('WARNING: ')}"
        found.append(Found(Violation("blowup", message), log.lost[0] - first))
    return min(found, key=_step, default=None)


def _step(found: Found) -> int:
    return found.step


def _error(opened: Opened, warn: Warn) -> Violation | None:
    """The error that ended the run, if it is an explosion."""
    log = opened.log
    if log is None or log.error is None:
        return None
    if log.error_cause is None:
        warn(
            f"{log.path} ends with {log.error!r}, which does not indicate an "
            "explosion: the replica is censored at its last frame"
        )
        return None
    return Violation(log.error_cause, f"LAMMPS: {log.error.removeprefix('ERROR: ')}")


def _error_step(opened: Opened, last_step: int) -> int:
    """Step of the error that ended the run: the first output that is missing.

    That is a frame or a line of the log, whichever was due first. Without ``thermo`` in
    its input, LAMMPS prints no lines between the first and the last step.
    """
    frame = last_step + (opened.interval_steps or 1)
    log = opened.log
    if log is None or log.last_step is None or log.error_step is None:
        return frame
    line = log.error_step - opened.first_step
    if frame <= log.last_step - opened.first_step:  # no frames until the end
        return line
    return max(min(frame, line), last_step)


class _Points:
    """Temperature and energies of frames, thinned as they become many."""

    def __init__(self, protocol: Protocol, n_atoms: int) -> None:
        self._protocol = protocol
        self._dof = degrees_of_freedom(n_atoms, protocol.ensemble)
        self._points: list[tuple[float, float, float, float]] = []
        self._every = 1
        self._seen = 0

    def add(self, frame: Snapshot, step: int) -> None:
        """Add a frame, if it has a temperature."""
        kelvin = temperature_of(frame, self._dof)
        if kelvin is None:
            return
        if self._seen % self._every == 0:
            energy = math.nan if frame.energy_eV is None else frame.energy_eV
            total = energy + (kinetic_energy_eV(frame) or 0.0)
            self._points.append((self._protocol.time_ps(step), kelvin, energy, total))
        self._seen += 1
        if len(self._points) > MOST_POINTS:
            del self._points[1::2]
            self._every *= 2

    def trace(self) -> Trace:
        """The recorded points."""
        return Trace(*map(tuple, zip(*self._points, strict=True)))


def _trace(rows: Array, last_step: int, protocol: Protocol) -> Trace:
    """The trace of a log, up to the last frame."""
    kept = rows[rows[:, 0] <= last_step]
    kept = kept[:: 1 + len(kept) // MOST_POINTS].copy()
    kept[:, 0] *= protocol.timestep_fs / 1000
    return Trace(*(tuple(column) for column in kept.T.tolist()))
