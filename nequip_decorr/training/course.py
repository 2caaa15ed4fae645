"""The coefficient over a training whose data loader may change at a restart."""

from __future__ import annotations

from math import inf
from typing import Any

from nequip_decorr.errors import UserError
from nequip_decorr.training.feedback import Controller, Guard, Target
from nequip_decorr.training.progress import Progress, Scale, latest_end
from nequip_decorr.training.relative import RunningLoss
from nequip_decorr.training.schedules import Planned, Schedule


class Course:
    """Applies a schedule to the progress of a training.

    Args:
        schedule: decides the coefficient.

    Attributes:
        controller: state of the feedback, for schedule ``target`` only.
        running_loss: what a relative coefficient multiplies, otherwise None.
        position, end: where the training is and where it will end, in the schedule's
            unit; infinity for an end that cannot be known. See :meth:`locate`.
        epochs: where it will end, in epochs, if the unit is ``fraction``.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.controller = Controller(schedule) if isinstance(schedule, Target) else None
        relative = isinstance(schedule, Planned) and schedule.relative
        self.running_loss = RunningLoss() if relative else None
        self._fraction = schedule.unit == "fraction"
        self._unit = "epoch" if self._fraction else schedule.unit
        self._scale: Scale | None = None
        self.position = self.end = self.epochs = 0.0

    def coefficient(self) -> float:
        """Coefficient at the current position.

        Raises:
            UserError: see :meth:`nequip_decorr.training.schedules.Schedule.at`.
        """
        if self.controller is not None:
            return self.controller.coefficient(self.position)
        planned = self.schedule.at(self.position, self.end)
        loss = self.running_loss
        return planned if loss is None else planned * loss.value

    def check(self, max_epochs: int, max_steps: int) -> None:
        """Check the schedule against the limits of a Trainer, without its data.

        Raises:
            UserError: see :meth:`coefficient`.
        """
        end = latest_end(self._unit, max_epochs, max_steps)
        # an end in steps can be checked only once the data are known: before a restart,
        # an epoch may have had more or fewer of them, and whether this is a restart is
        # not known yet
        if end is not None and (self._unit == "epoch" or end == inf):
            self._place(0.0, end)
            self.coefficient()

    def locate(self, now: Progress, max_epochs: int, max_steps: int) -> None:
        """Set ``position`` and ``end``; the first call fixes the scale of steps."""
        if self._scale is None:
            self._scale = Scale(self._unit, now.steps_per_epoch)
        self._place(
            self._scale.position(now), self._scale.end(now, max_epochs, max_steps)
        )

    def _place(self, position: float, end: float) -> None:
        if not self._fraction:
            self.position, self.end = position, end
            return
        if end == inf:
            raise UserError(
                "cannot take fractions of a training without an end in epochs; set "
                "trainer.max_epochs, or `schedule.unit` to step or epoch"
            )
        # a training of no epochs is over
        self.position, self.end, self.epochs = position / end if end else 1.0, 1.0, end

    def state(self) -> dict[str, Any]:
        """What a restart needs: feedback, running loss, and the scale of steps."""
        scale, controller, loss = self._scale, self.controller, self.running_loss
        if self.schedule.coeff == 0:  # neither has seen the training
            controller = loss = None
        steps = {} if scale is None else {"steps_per_epoch": scale.steps_per_epoch}
        return {
            "feedback": {} if controller is None else controller.state(),
            "running_loss": {} if loss is None else loss.state(),
            **steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`; ``settings`` are those before the restart.

        Feedback begins with another coefficient if the config has another one now, and
        its guard begins anew with another error.
        """
        if self.controller is not None:
            self.controller.restore(state["feedback"])
            before = state.get("settings", {}).get("schedule", {})
            if before.get("coeff") not in (None, self.schedule.coeff):
                self.controller.coeff = self.schedule.coeff
            monitor = self.controller.target.guard_monitor
            if before.get("guard_monitor") not in (None, monitor):
                self.controller.guard = Guard()
        # none of an earlier version, or of a training that was not relative
        if self.running_loss is not None and state.get("running_loss"):
            self.running_loss.restore(state["running_loss"])
        if "steps_per_epoch" in state:
            self._scale = Scale(self._unit, state["steps_per_epoch"])
