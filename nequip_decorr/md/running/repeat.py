"""Repeats an event at half the time step, to see if the integrator was to blame."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from nequip_decorr.md import results
from nequip_decorr.md.criteria.violation import Violation
from nequip_decorr.md.dynamics.contract import Engine, Job, MDState
from nequip_decorr.md.frames import Array, Frame
from nequip_decorr.md.protocol import Protocol
from nequip_decorr.md.running.replica import Plan, as_event, watch

#: A repeat at half the step continues this long beyond the time of the event, fs.
REPEAT_BEYOND_FS = 100.0


def repeated(
    plan: Plan,
    protocol: Protocol,
    event: results.Event,
    start: Frame,
    *,
    explosions_only: bool,
    build: Callable[[Protocol], Engine],
) -> results.Event:
    """The event with the outcome of its repeat at half the step.

    Args:
        plan: the replica.
        protocol: protocol under which the event happened.
        event: the event.
        start: the last good frame before it.
        explosions_only: whether the geometry was already unphysical before ``start``.
        build: function that builds the engine for a protocol.
    """
    again = Repeat(plan, protocol, start, event.step, explosions_only=explosions_only)
    build(again.protocol).run([again.job()], again)
    found = again.event
    return replace(
        event,
        half_step_time_ps=None if found is None else found.time_ps,
        half_step_cause="none" if found is None else found.cause,
    )


class Repeat:
    """Observes the repeat of an event at half the time step.

    It starts from the last good frame, with noise of its own and, if there is one, a
    Nose-Hoover chain at rest. It has survived when it is :data:`REPEAT_BEYOND_FS` past
    the time of the event.

    Args:
        plan: the replica.
        protocol: protocol under which the event happened.
        start: last good frame.
        step: step of the event.
        explosions_only: whether only explosions are tested.
    """

    def __init__(
        self,
        plan: Plan,
        protocol: Protocol,
        start: Frame,
        step: int,
        *,
        explosions_only: bool,
    ) -> None:
        self._protocol = replace(protocol, timestep_fs=protocol.timestep_fs / 2)
        self._watch = watch(plan, self._protocol)
        if explosions_only:
            self._watch.explosions_only()
        self._plan = plan
        self._start = start
        beyond = REPEAT_BEYOND_FS / self._protocol.timestep_fs
        self._last_step = 2 * step + math.ceil(beyond)
        self.event: results.Event | None = None

    @property
    def protocol(self) -> Protocol:
        """The protocol at half the step."""
        return self._protocol

    def job(self) -> Job:
        """The job for the engine."""
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
            self.event = as_event(violation, step, self._protocol)
        return violation is None
