"""One replica from start to end: tests, recording, saving and description."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from ase import Atoms, units

from nequip_decorr.md import results
from nequip_decorr.md.criteria.extremes import Extremes
from nequip_decorr.md.criteria.monitor import Watch
from nequip_decorr.md.criteria.violation import Violation
from nequip_decorr.md.criteria.warmth import warmth
from nequip_decorr.md.dynamics.contract import Job, MDState
from nequip_decorr.md.frames import Array, Frame
from nequip_decorr.md.protocol import Protocol, conserves_momentum, degrees_of_freedom
from nequip_decorr.md.running.folder import RunFolder, frame_text
from nequip_decorr.md.structures import kept_momenta, start_momenta, structure_hash
from nequip_decorr.wording import named

#: Repeats an event from its last good frame; True: the geometry was past judging.
Again = Callable[[results.Event, Frame, bool], results.Event]


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
        """Seed of the replica's random numbers: 0 momenta, 1 motion, 2 repeat."""
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
        start_excess_K=excess_K,
    )


def start_state(plan: Plan, protocol: Protocol) -> MDState:
    """Start state, with the structure's own momenta or random ones from the seed."""
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
        plan: plan of the replica.
        protocol: protocol of the run.
        folder: folder for its state, frames and result.
        save_every_s: wall time between saved states.
        again: function that repeats an event at half the time step; None for no
            repeats.
    """

    def __init__(
        self,
        plan: Plan,
        protocol: Protocol,
        folder: RunFolder,
        save_every_s: float,
        again: Again | None = None,
    ) -> None:
        self.plan = plan
        #: what has happened, by kind
        self.events: dict[str, results.Event] = {}
        self._ended_by: results.Event | None = None
        self._last_good: Frame | None = None
        self._again = again
        self._protocol = protocol
        self._folder = folder
        self._save_every_s = save_every_s
        self._saved_at = time.monotonic()
        self._watch = watch(plan, protocol)
        self._trace: list[tuple[float, float, float, float]] = []
        self._frames: list[str] = []
        self._frames_size = 0
        self._series = folder.series(plan.index)
        self._state = self._resume()

    def job(self) -> Job:
        """The job for the engine."""
        plan = self.plan
        return Job(
            plan.index, plan.atoms, plan.temperature_K, plan.entropy(1), self._state
        )

    def before_forces(self, step: int, positions_A: Array) -> bool:
        """See :class:`nequip_decorr.md.dynamics.contract.Observer`."""
        violation = self._watch.before_forces(positions_A)
        return violation is None or self._end(step, violation)

    def after_step(self, frame: Frame, snapshot: Callable[[], MDState]) -> bool:
        """See :class:`nequip_decorr.md.dynamics.contract.Observer`."""
        violation = self._watch.after_step(frame)
        if violation is not None and self._goes_on(violation):
            self._note(frame.step, violation)
            violation = self._watch.past_unphysical(frame)
        if violation is not None:
            return self._end(frame.step, violation)
        if self._watch.calm:
            self._last_good = frame
        self._record(frame)
        if frame.step >= self._protocol.n_steps:
            return False
        if time.monotonic() - self._saved_at > self._save_every_s:
            self.save(snapshot())
        return True

    def fault(self, step: int, error: Exception) -> None:
        """See :class:`nequip_decorr.md.dynamics.contract.Observer`."""
        line = f"the model raises {named(error)}"
        self._end(step, Violation("exception", line))

    def save(self, state: MDState) -> None:
        """Save its state; what it has recorded since the last time is appended."""
        seen = self._watch.seen
        self._flush_frames()
        self._series.extend({"trace": self._trace, **seen.series()})
        good = self._last_good
        positions = (
            np.stack([good.positions_A, good.momenta])
            if good is not None
            else np.empty((0, 0, 0))
        )
        record = {
            "watch": self._watch.state(),
            "last_good_step": None if good is None else good.step,
            "frames_size": self._frames_size,
            "series": self._series.marks,
            "events": {kind: asdict(event) for kind, event in self.events.items()},
        }
        self._folder.save(
            self.plan.index,
            state,
            last_good=np.asarray(positions),
            records=seen.records(),
            record=record,
        )
        self._saved_at = time.monotonic()

    def finish(self) -> None:
        """Write the finished replica, ended by the horizon or by an event."""
        self._flush_frames()
        name = self._folder.trajectory(self.plan.index)
        kept = str(name.relative_to(self._folder.path)) if name.exists() else None
        last = self._ended_by
        replica = describe(
            self.plan,
            time_ps=self._protocol.horizon_ps if last is None else last.time_ps,
            trace=np.array(self._trace),
            events=self.events,
            censored_by="horizon" if last is None else None,
            trajectory=kept,
        )
        self._folder.finish(replica, self._watch.seen.arrays())

    def _resume(self) -> MDState:
        saved = self._folder.saved(self.plan.index)
        if saved is None:
            self._folder.discard(self.plan.index)
            self._folder.trajectory(self.plan.index).unlink(missing_ok=True)
            return start_state(self.plan, self._protocol)
        state, record = saved.state, saved.record
        self._trace = [tuple(row) for row in saved.trace.tolist()]
        self._series = self._folder.series(self.plan.index, record["series"])
        self._series.cut()
        self._frames_size = record["frames_size"]
        self._folder.cut_trajectory(self.plan.index, self._frames_size)
        seen = Extremes.from_arrays(saved.extremes)
        self._watch.restore(record["watch"], state.positions_A, seen)
        self.events = saved.events
        if self.events:
            self._watch.explosions_only()
        if record["last_good_step"] is not None:
            positions, momenta = saved.last_good
            self._last_good = Frame(
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
        if self.plan.atoms.has("masses"):  # or its momenta would be another temperature
            atoms.set_masses(self.plan.atoms.get_masses())
        atoms.set_momenta(frame.momenta)
        atoms.info.update(
            step=frame.step,
            time_ps=self._protocol.time_ps(frame.step),
            replica=self.plan.index,
        )
        return atoms

    def _goes_on(self, violation: Violation) -> bool:
        unphysical = results.kind_of(violation.cause) == "unphysical"
        return unphysical and self._protocol.until == "explosion"

    def _end(self, step: int, violation: Violation) -> bool:
        self._ended_by = self._note(step, violation)
        return False

    def _note(self, step: int, violation: Violation) -> results.Event:
        """Record an event, with its last good frame and its repeat."""
        event = as_event(violation, step, self._protocol)
        good = self._last_good
        if good is not None:
            if self._again is not None:
                event = self._again(event, good, "unphysical" in self.events)
            atoms = self._good_atoms(good)
            path = self._folder.keep_frame(self.plan.index, event.kind, atoms)
            event = replace(event, last_good_frame=path)
        self.events[event.kind] = event
        return event


def as_event(violation: Violation, step: int, protocol: Protocol) -> results.Event:
    """A violation as an event, with its time; non-finite numbers become None."""

    def finite(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    return results.Event(
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
    events: Mapping[str, results.Event],
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
        unphysical=events.get("unphysical"),
        explosion=events.get("explosion"),
        censored_by=censored_by,
        trace=results.Trace(*(tuple(column) for column in columns)),
        trajectory=trajectory,
        structure_sha256=structure_hash(plan.atoms),
    )


def _bare(atoms: Atoms, positions_A: Array) -> Atoms:
    return Atoms(
        numbers=atoms.numbers, positions=positions_A, cell=atoms.cell, pbc=atoms.pbc
    )
