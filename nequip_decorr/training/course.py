"""The coefficient over a training whose data loader may change at a restart."""

from __future__ import annotations

from math import inf
from typing import Any

from nequip_decorr.training.feedback import Controller, Target
from nequip_decorr.training.progress import Progress, Scale, latest_end
from nequip_decorr.training.schedules import Schedule


class Course:
    """Applies a schedule to the progress of a training.

    Args:
        schedule: decides the coefficient.

    Attributes:
        controller: state of the feedback, for schedule ``target`` only.
        position, end: where the training is and where it will end, in the schedule's
            unit; infinity for an end that cannot be known. See :meth:`locate`.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.controller = Controller(schedule) if isinstance(schedule, Target) else None
        self._scale: Scale | None = None
        self.position = 0.0
        self.end = 0.0

    def coefficient(self) -> float:
        """Coefficient at the present position.

        Raises:
            UserError: see :meth:`nequip_decorr.training.schedules.Schedule.at`.
        """
        if self.controller is not None:
            return self.controller.coefficient(self.position)
        return self.schedule.at(self.position, self.end)

    def check(self, max_epochs: int, max_steps: int, restarts: bool) -> None:
        """Check the schedule against the limits of a Trainer, without its data.

        Raises:
            UserError: see :meth:`coefficient`.
        """
        unit = self.schedule.unit
        end = latest_end(unit, max_epochs, max_steps)
        # steps before a restart may have been longer or shorter
        fixed = unit == "epoch" or not restarts
        if end is not None and (fixed or end == inf):
            self.position, self.end = 0.0, end
            self.coefficient()

    def locate(self, now: Progress, max_epochs: int, max_steps: int) -> None:
        """Set ``position`` and ``end``; the first call fixes the scale of steps."""
        if self._scale is None:
            self._scale = Scale(self.schedule.unit, now.steps_per_epoch)
        self.position = self._scale.position(now)
        self.end = self._scale.end(now, max_epochs, max_steps)

    def state(self) -> dict[str, Any]:
        """What a restart needs: state of the feedback, and the scale of steps."""
        scale, controller = self._scale, self.controller
        steps = {} if scale is None else {"steps_per_epoch": scale.steps_per_epoch}
        return {"feedback": {} if controller is None else controller.state(), **steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        if self.controller is not None:
            self.controller.restore(state["feedback"])
        if "steps_per_epoch" in state:
            self._scale = Scale(self.schedule.unit, state["steps_per_epoch"])
