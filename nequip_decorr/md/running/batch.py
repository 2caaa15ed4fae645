"""Runs replicas in one process and handles early stops."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, MutableSequence, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms

from nequip_decorr.md.dynamics import engines
from nequip_decorr.md.dynamics.contract import (
    Job,
    MDState,
    ModelBrokenError,
    OutOfMemoryError,
)
from nequip_decorr.md.frames import Array, Frame
from nequip_decorr.md.protocol import Protocol
from nequip_decorr.md.results import Event
from nequip_decorr.md.running.folder import RunFolder
from nequip_decorr.md.running.progress import happened
from nequip_decorr.md.running.repeat import repeated
from nequip_decorr.md.running.replica import Again, Plan, ReplicaRun

#: How far atoms are displaced before forces identify a model, A: where symmetry makes
#: all forces vanish, models look the same.
SHAKE_A = 0.02


@dataclass(frozen=True)
class Stop:
    """Why a run stopped early: a reason from ``CENSORED_BY``, and a message."""

    reason: str
    message: str


@dataclass(frozen=True)
class Work:
    """Data shared by all processes of a run.

    Attributes:
        model: the object returned by the engine's ``load``, or an ase calculator.
        engine: name of the engine.
        protocol: how replicas run.
        folder: folder of the run.
        save_every_s: wall time between saved states of a replica.
        steps: current step of each replica; for a finished one its complement
            (``~step``, which is negative).
        events: events of each replica, encoded by
            :func:`~nequip_decorr.md.running.progress.happened`.
        poll: called at each step; returning True stops all replicas.
    """

    model: Any
    engine: str
    protocol: Protocol
    folder: RunFolder
    save_every_s: float
    steps: MutableSequence[int]
    events: MutableSequence[int]
    poll: Callable[[], bool]


def run_replicas(plans: Sequence[Plan], work: Work) -> Stop | None:
    """Run replicas to their end; each is written to the folder when it ends.

    Returns:
        None if all have ended, otherwise the reason; states are then saved in the
        folder as far as possible.
    """
    try:
        return _run(plans, work)
    except OutOfMemoryError as error:
        return Stop(
            "out_of_memory",
            f"the model ran out of memory ({error}); free some, or use fewer "
            "processes, and rerun the same command",
        )
    except ModelBrokenError as error:
        return Stop("model_broken", str(error))
    except OSError as error:
        return disk_full(error, work.folder)


def fingerprint(
    engine: str, model: Any, protocol: Protocol, atoms: Atoms
) -> dict[str, float] | None:
    """Energy and forces of a slightly displaced structure, to identify a model.

    Costs one model call.

    Returns:
        ``energy_eV`` and ``force_norm_eV_per_A`` (root of the sum of squares), or None
        if the model fails or returns non-finite numbers, which the run will report.
    """
    shaken = atoms.copy()
    shaken.set_constraint()
    shaken.rattle(SHAKE_A, seed=0)
    positions = shaken.get_positions()
    state = MDState(0, positions, np.zeros_like(positions))
    first = _First()
    try:
        engines.build(engine, model, protocol).run(
            [Job(0, shaken, protocol.temperatures_K[0], (0,), state)], first
        )
    except (ModelBrokenError, OutOfMemoryError):
        return None
    energy_eV = float(first.frame.energy_eV)
    norm = float(np.linalg.norm(first.frame.forces_eV_per_A))
    if not (math.isfinite(energy_eV) and math.isfinite(norm)):
        return None
    return {"energy_eV": energy_eV, "force_norm_eV_per_A": norm}


def disk_full(error: OSError, folder: RunFolder) -> Stop:
    """The stop for a full disk; any other error is re-raised."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise error
    return Stop(
        "disk_full",
        f"no disk space is left for {folder.path}; free some and rerun the same "
        "command",
    )


def _run(plans: Sequence[Plan], work: Work) -> Stop | None:
    runs = {
        plan.index: ReplicaRun(
            plan, work.protocol, work.folder, work.save_every_s, _again(plan, work)
        )
        for plan in plans
    }
    observer = _Runs(runs, work)
    engine = engines.build(work.engine, work.model, work.protocol)
    engine.run([run.job() for run in runs.values()], observer)
    if observer.stopped:
        return Stop("interrupt", "interrupted; rerun the same command to resume")
    return None


class _Runs:
    """The engine's observer: passes each call on to the replica's own run."""

    def __init__(self, runs: dict[int, ReplicaRun], work: Work) -> None:
        self._runs = runs
        self._work = work
        self.stopped = False

    def before_forces(self, replica: int, step: int, positions_A: Array) -> bool:
        run = self._runs[replica]
        return run.before_forces(step, positions_A) or self._end(run, step)

    def after_step(self, frame: Frame, snapshot: Callable[[], MDState]) -> bool:
        run = self._runs[frame.replica]
        if not run.after_step(frame, snapshot):
            return self._end(run, frame.step)
        self._work.steps[frame.replica] = frame.step
        if run.events:
            self._work.events[frame.replica] = happened(run.events)
        if self.stopped or self._work.poll():
            self.stopped = True
            run.save(snapshot())
            return False
        return True

    def fault(self, replica: int, step: int, error: Exception) -> None:
        run = self._runs[replica]
        run.fault(step, error)
        self._end(run, step)

    def _end(self, run: ReplicaRun, step: int) -> bool:
        run.finish()
        self._work.steps[run.plan.index] = ~step
        self._work.events[run.plan.index] = happened(run.events)
        return False


class _First:
    """An observer that keeps the first frame and stops."""

    frame: Frame

    def before_forces(self, replica: int, step: int, positions_A: Array) -> bool:
        return True

    def after_step(self, frame: Frame, snapshot: Callable[[], MDState]) -> bool:
        self.frame = frame
        return False

    def fault(self, replica: int, step: int, error: Exception) -> None:
        """Not called: on first positions an engine raises ModelBrokenError."""


def _again(plan: Plan, work: Work) -> Again | None:
    """The function that repeats events at half the step; None for no repeats."""
    if not work.protocol.half_step_repeat:
        return None

    def again(event: Event, start: Frame, explosions_only: bool) -> Event:
        return repeated(
            plan,
            work.protocol,
            event,
            start,
            explosions_only=explosions_only,
            build=partial(engines.build, work.engine, work.model),
        )

    return again
