"""One replica from start to end: tested, recorded, saved, and described."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms, units

from nequip_decorr.md import results
from nequip_decorr.md.criteria.monitor import Watch
from nequip_decorr.md.criteria.violation import Violation
from nequip_decorr.md.criteria.warmth import warmth
from nequip_decorr.md.dynamics.contract import Job, MDState
from nequip_decorr.md.frames import Array, Frame
from nequip_decorr.md.protocol import Protocol, conserves_momentum, degrees_of_freedom
from nequip_decorr.md.running.folder import RunFolder, Saved, frame_text
from nequip_decorr.md.structures import kept_momenta, start_momenta, structure_hash
from nequip_decorr.wording import one_line

#: A repeat at half the step continues this long beyond the time of the failure, fs.
REPEAT_BEYOND_FS = 100.0


@dataclass(frozen=True)
class Plan:
    """A replica before it starts; names as in :class:`results.Replica`."""

    index: int
    structure: int
    structure_name: str
    atoms: Atoms
    temperature_K: float
    seed: int

    def entropy(self, stream: int) -> tuple[int, ...]:
        """Seeds the replica's own random numbers: 0 momenta, 1 motion, 2 repeat."""
        return (self.seed, self.structure, round(self.temperature_K * 1000), stream)


def watch(plan: Plan, protocol: Protocol) -> Watch:
    """The tests of a replica under a protocol."""
    dof = degrees_of_freedom(len(plan.atoms), protocol.ensemble)
    excess_K = 0.0
    if protocol.keep_velocities:
        momenta = start_state(plan, protocol).momenta
        kinetic_eV = 0.5 * (momenta**2 / plan.atoms.get_masses()[:, None]).sum()
        start_K = 2 * kinetic_eV / (dof * units.kB)
        excess_K = max(start_K - plan.temperature_K, 0.0)
    return Watch(
        plan.atoms,
        protocol.criteria,
        timestep_fs=protocol.timestep_fs,
        degrees_of_freedom=dof,
        warmth=warmth(protocol, plan.temperature_K, excess_K),
        check_interval_steps=protocol.check_interval_steps,
    )


def start_state(plan: Plan, protocol: Protocol) -> MDState:
    """Start structure, with its own momenta or random ones of the replica's seed."""
    conserved = conserves_momentum(len(plan.atoms), protocol.ensemble)
    if protocol.keep_velocities:
        momenta = kept_momenta(plan.atoms, conserve_total=conserved)
    else:
        rng = np.random.default_rng(plan.entropy(0))
        momenta = start_momenta(
            plan.atoms, plan.temperature_K, rng, conserve_total=conserved
        )
    return MDState(0, plan.atoms.get_positions(), momenta)


class ReplicaRun:
    """Observes one replica: tests, records and saves it.

    Args:
        plan: which one.
        protocol: how.
        folder: where its state, frames and end are kept.
        save_every_s: wall time between two saved states.
    """

    def __init__(
        self, plan: Plan, protocol: Protocol, folder: RunFolder, save_every_s: float
    ) -> None:
        self.plan = plan
        self.failure: results.Failure | None = None
        self.last_good: Frame | None = None
        self._protocol = protocol
        self._folder = folder
        self._save_every_s = save_every_s
        self._saved_at = time.monotonic()
        self._watch = watch(plan, protocol)
        self._trace: list[tuple[float, float, float, float]] = []
        self._frames: list[str] = []
        self._frames_size = 0
        self._state = self._resume()

    def job(self) -> Job:
        """What the engine is to do."""
        plan = self.plan
        return Job(
            plan.index, plan.atoms, plan.temperature_K, plan.entropy(1), self._state
        )

    def before_forces(self, step: int, positions_A: Array) -> bool:
        """See :class:`nequip_decorr.md.dynamics.contract.Observer`."""
        violation = self._watch.before_forces(positions_A)
        return violation is None or self._fail(step, violation)

    def after_step(self, frame: Frame, snapshot: Callable[[], MDState]) -> bool:
        """See :class:`nequip_decorr.md.dynamics.contract.Observer`."""
        violation = self._watch.after_step(frame)
        if violation is not None:
            return self._fail(frame.step, violation)
        if self._watch.calm:
            self.last_good = frame
        self._record(frame)
        if frame.step >= self._protocol.n_steps:
            return False
        if time.monotonic() - self._saved_at > self._save_every_s:
            self.save(snapshot())
        return True

    def fault(self, step: int, error: Exception) -> None:
        """See :class:`nequip_decorr.md.dynamics.contract.Observer`."""
        line = f"the model raises {type(error).__name__}: {one_line(error)}"
        self._fail(step, Violation("exception", line))

    def save(self, state: MDState) -> None:
        """Save its state."""
        self._flush_frames()
        good = self.last_good
        positions = (
            np.stack([good.positions_A, good.momenta])
            if good is not None
            else np.empty((0, 0, 0))
        )
        record = {
            "watch": self._watch.state(),
            "last_good_step": None if good is None else good.step,
            "frames_size": self._frames_size,
        }
        trace = np.array(self._trace, dtype=np.float64).reshape(-1, 4)
        self._folder.save(
            self.plan.index, Saved(state, trace, np.asarray(positions), record)
        )
        self._saved_at = time.monotonic()

    def finish(self, failure: results.Failure | None) -> None:
        """Write the end: survived (None), or this failure, with its last good frame."""
        self._flush_frames()
        if failure is not None and self.last_good is not None:
            kept = self._good_atoms(self.last_good)
            path = self._folder.keep_frame(self.plan.index, kept)
            failure = replace(failure, last_good_frame=path)
        self._folder.finish(self._replica(failure))

    def _replica(self, failure: results.Failure | None) -> results.Replica:
        name = self._folder.trajectory(self.plan.index)
        kept = str(name.relative_to(self._folder.path)) if name.exists() else None
        return describe(
            self.plan,
            time_ps=self._protocol.horizon_ps if failure is None else failure.time_ps,
            trace=np.array(self._trace),
            failure=failure,
            censored_by="horizon" if failure is None else None,
            trajectory=kept,
        )

    def _resume(self) -> MDState:
        saved = self._folder.saved(self.plan.index)
        if saved is None:
            self._folder.trajectory(self.plan.index).unlink(missing_ok=True)
            return start_state(self.plan, self._protocol)
        state, record = saved.state, saved.record
        self._trace = [tuple(row) for row in saved.trace.tolist()]
        self._frames_size = record["frames_size"]
        self._folder.cut_trajectory(self.plan.index, self._frames_size)
        self._watch.restore(record["watch"], state.positions_A)
        if record["last_good_step"] is not None:
            positions, momenta = saved.last_good
            self.last_good = Frame(
                self.plan.index,
                record["last_good_step"],
                positions,
                momenta,
                np.empty((0, 3)),
                math.nan,
            )
        return state

    def _record(self, frame: Frame) -> None:
        protocol = self._protocol
        time_ps = protocol.time_ps(frame.step)
        if frame.step % protocol.record_interval_steps == 0:
            total = frame.energy_eV + self._watch.kinetic_energy_eV
            self._trace.append(
                (time_ps, self._watch.temperature_K, frame.energy_eV, total)
            )
        every = protocol.frame_interval_steps
        if every and frame.step % every == 0 and self._watch.calm:
            atoms = _bare(self.plan.atoms, frame.positions_A)
            atoms.info.update(step=frame.step, time_ps=time_ps)
            self._frames.append(frame_text(atoms))

    def _flush_frames(self) -> None:
        if self._frames:
            text = "".join(self._frames)
            self._frames_size = self._folder.extend_trajectory(self.plan.index, text)
            self._frames.clear()

    def _good_atoms(self, frame: Frame) -> Atoms:
        atoms = _bare(self.plan.atoms, frame.positions_A)
        atoms.set_momenta(frame.momenta)
        atoms.info.update(
            step=frame.step,
            time_ps=self._protocol.time_ps(frame.step),
            replica=self.plan.index,
        )
        return atoms

    def _fail(self, step: int, violation: Violation) -> bool:
        self.failure = as_failure(violation, step, self._protocol)
        return False


class Repeat:
    """Observes the repeat of a failure at half the time step.

    It starts from the last good frame, with noise of its own, and has survived when
    it is :data:`REPEAT_BEYOND_FS` past the time of the failure.

    Args:
        plan: the replica that failed.
        protocol: the one under which it did.
        start: its last good frame.
        failed_step: the step at which it failed.
    """

    def __init__(
        self, plan: Plan, protocol: Protocol, start: Frame, failed_step: int
    ) -> None:
        self._protocol = replace(protocol, timestep_fs=protocol.timestep_fs / 2)
        self._watch = watch(plan, self._protocol)
        self._plan = plan
        self._start = start
        beyond = REPEAT_BEYOND_FS / self._protocol.timestep_fs
        self._last_step = 2 * failed_step + math.ceil(beyond)
        self.failure: results.Failure | None = None

    @property
    def protocol(self) -> Protocol:
        """The protocol at half the step."""
        return self._protocol

    def job(self) -> Job:
        """What the engine is to do."""
        plan, start = self._plan, self._start
        state = MDState(2 * start.step, start.positions_A, start.momenta)
        return Job(plan.index, plan.atoms, plan.temperature_K, plan.entropy(2), state)

    def before_forces(self, replica: int, step: int, positions_A: Array) -> bool:
        """See :class:`nequip_decorr.md.dynamics.contract.Observer`."""
        return self._judge(step, self._watch.before_forces(positions_A))

    def after_step(self, frame: Frame, snapshot: Callable[[], MDState]) -> bool:
        """See :class:`nequip_decorr.md.dynamics.contract.Observer`."""
        going = self._judge(frame.step, self._watch.after_step(frame))
        return going and frame.step < self._last_step

    def fault(self, replica: int, step: int, error: Exception) -> None:
        """See :class:`nequip_decorr.md.dynamics.contract.Observer`."""
        self._judge(step, Violation("exception", str(error)))

    def _judge(self, step: int, violation: Violation | None) -> bool:
        if violation is not None:
            self.failure = as_failure(violation, step, self._protocol)
        return violation is None


def half_step_outcome(
    failure: results.Failure, repeat: results.Failure | None
) -> results.Failure:
    """The failure with how its repeat at half the step went (None: it survived)."""
    return replace(
        failure,
        half_step_time_ps=None if repeat is None else repeat.time_ps,
        half_step_cause="none" if repeat is None else repeat.cause,
    )


def as_failure(violation: Violation, step: int, protocol: Protocol) -> results.Failure:
    """A violation with its time; numbers that are not finite become None."""

    def finite(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    return results.Failure(
        cause=violation.cause,
        step=step,
        time_ps=protocol.time_ps(step),
        message=violation.message,
        atoms=violation.atoms,
        value=finite(violation.value),
        limit=finite(violation.limit),
    )


def describe(
    plan: Plan,
    *,
    time_ps: float,
    trace: Array,
    failure: results.Failure | None = None,
    censored_by: str | None = None,
    trajectory: str | None = None,
) -> results.Replica:
    """A replica as written to the result file."""
    columns = trace.reshape(-1, 4).T.tolist()
    return results.Replica(
        index=plan.index,
        structure=plan.structure,
        structure_name=plan.structure_name,
        formula=plan.atoms.get_chemical_formula(),
        n_atoms=len(plan.atoms),
        temperature_K=plan.temperature_K,
        seed=plan.seed,
        time_ps=time_ps,
        failure=failure,
        censored_by=censored_by,
        trace=results.Trace(*(tuple(column) for column in columns)),
        trajectory=trajectory,
        structure_sha256=structure_hash(plan.atoms),
    )


def _bare(atoms: Atoms, positions_A: Array) -> Atoms:
    return Atoms(
        numbers=atoms.numbers, positions=positions_A, cell=atoms.cell, pbc=atoms.pbc
    )
