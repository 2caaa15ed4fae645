"""Run replicas in one process, and handle whatever stops them early."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, MutableSequence, Sequence
from dataclasses import dataclass
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
from nequip_decorr.md.results import Failure
from nequip_decorr.md.running.folder import RunFolder
from nequip_decorr.md.running.replica import Plan, Repeat, ReplicaRun, half_step_outcome

#: How far atoms are displaced before forces identify a model, A: where symmetry makes
#: all forces vanish, models look the same.
SHAKE_A = 0.02


@dataclass(frozen=True)
class Stop:
    """Why a run stopped before its end: a reason of ``CENSORED_BY``, and a line."""

    reason: str
    message: str


@dataclass(frozen=True)
class Work:
    """What all processes of a run share.

    Attributes:
        model: what the engine's ``load`` gave, or an ase calculator.
        engine: name of the engine.
        protocol: how replicas run.
        folder: where everything is kept.
        save_every_s: wall time between two saved states of a replica.
        steps: the current step of each replica; for a finished one its complement
            (``~step``, which is negative).
        poll: called at each step; True asks all to stop.
    """

    model: Any
    engine: str
    protocol: Protocol
    folder: RunFolder
    save_every_s: float
    steps: MutableSequence[int]
    poll: Callable[[], bool]


def run_replicas(plans: Sequence[Plan], work: Work) -> Stop | None:
    """Run replicas to their ends; each is written to the folder as it ends.

    Returns:
        None when all have ended, else the reason; states are then in the folder, as
        far as they could be saved.
    """
    try:
        return _run(plans, work)
    except OutOfMemoryError as error:
        return Stop(
            "out_of_memory",
            f"the model ran out of memory ({error}); free some, or use fewer "
            "processes, and run the same command again",
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
        when the model fails or gives no finite numbers, which the run will report.
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
    """The stop for a full disk; any other error is raised again."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise error
    return Stop(
        "disk_full",
        f"no space is left for {folder.path}; free some and run the same command again",
    )


def _run(plans: Sequence[Plan], work: Work) -> Stop | None:
    runs = {
        plan.index: ReplicaRun(plan, work.protocol, work.folder, work.save_every_s)
        for plan in plans
    }
    observer = _Runs(runs, work)
    engine = engines.build(work.engine, work.model, work.protocol)
    engine.run([run.job() for run in runs.values()], observer)
    if observer.stopped:
        return Stop("interrupt", "interrupted; run the same command again to resume")
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
        failure, start = run.failure, run.last_good
        if self._work.protocol.half_step_repeat and failure and start:
            half_step = repeat(run, start, failure.step, self._work)
            run.finish(half_step_outcome(failure, half_step))
        else:
            run.finish(failure)
        self._work.steps[run.plan.index] = ~step
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


def repeat(run: ReplicaRun, start: Frame, step: int, work: Work) -> Failure | None:
    """Repeat a failure of ``step`` at half the time step; how that failed, or None."""
    again = Repeat(run.plan, work.protocol, start, step)
    engine = engines.build(work.engine, work.model, again.protocol)
    engine.run([again.job()], again)
    return again.failure
