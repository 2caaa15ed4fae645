"""What decides the coefficient at each step: a schedule, or a controller with state.

:class:`Course` applies either to a training, whose loader may change at a restart.
"""

from __future__ import annotations

from math import inf, isfinite
from typing import Any, Protocol

from nequip_decorr.errors import UserError
from nequip_decorr.training.progress import Progress, Scale, latest_end
from nequip_decorr.training.schedules import (
    ControlLaw,
    Guard,
    Schedule,
    check_number,
    control,
    guard,
)


class Steering(Protocol):
    """Decides a coefficient; the state is made of Python numbers, for checkpoints."""

    #: name of its schedule
    kind: str
    #: whether it wants to be told the correlation after every step
    needs_measurement: bool
    #: whether it needs an end of the training to stretch to
    open_ended: bool

    def coefficient(self, position: float, horizon: float) -> float:
        """Coefficient at a position in steps or epochs, the horizon in the same."""

    def measured(self, mean_square_debiased: float) -> None:
        """Take note of the correlation of the step that was just made."""

    def validated(self, error: float) -> str | None:
        """Take note of a validation force error; returns a line to log, or None."""

    def state(self) -> dict[str, Any]:
        """What a restart needs."""

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""


class Scheduled:
    """A coefficient that depends on the position alone; nothing to restore."""

    needs_measurement = False

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.kind = schedule.kind
        self.open_ended = schedule.kind != "constant" and schedule.stop is None

    def coefficient(self, position: float, horizon: float) -> float:
        """See :meth:`nequip_decorr.training.schedules.Schedule.at`."""
        return self.schedule.until(horizon).at(position)

    def measured(self, mean_square_debiased: float) -> None:
        """Not used."""

    def validated(self, error: float) -> str | None:
        """Not used."""
        return None

    def state(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to do."""


class Targeted:
    """A coefficient that holds the correlation at a level, with an accuracy guard.

    Args:
        law: the feedback law.
        initial: coefficient at the start.
        delay: before this position the coefficient is 0.
        band: how far the validation force error may be above its best, relatively,
            before the coefficient is halved at each validation and kept from rising.

    Raises:
        UserError: for numbers out of range, the initial coefficient outside the law's
            bounds among them, but for 0: there is no term then.
    """

    kind = "target"
    needs_measurement = True
    open_ended = False

    def __init__(
        self, law: ControlLaw, initial: float, delay: float, band: float
    ) -> None:
        check_number("coeff", initial)
        check_number("delay", delay)
        check_number("guard_band", band)
        if initial and not law.minimum <= initial <= law.maximum:
            raise UserError(
                f"expected `coeff` between {law.minimum} and `max_coeff` "
                f"{law.maximum} with schedule target, got {initial}; set it, or "
                f"`max_coeff`"
            )
        self.law = law
        self.delay = delay
        self.band = band
        self.coeff = initial
        self.error_average = 0.0
        self.guard = Guard()

    def coefficient(self, position: float, horizon: float) -> float:
        """The present coefficient; the horizon does not matter."""
        return 0.0 if position < self.delay else self.coeff

    def measured(self, mean_square_debiased: float) -> None:
        """One update of the feedback law."""
        self.coeff, self.error_average = control(
            self.law,
            self.coeff,
            self.error_average,
            mean_square_debiased,
            hold=self.guard.active,
        )

    def validated(self, error: float) -> str | None:
        """Update the guard; outside the band, halve the coefficient."""
        before = self.guard
        self.guard = guard(before, error, self.band)
        if self.guard.active:
            self.coeff = max(self.coeff / 2, self.law.minimum)
        if self.guard.active == before.active:
            return None
        if self.guard.active:
            best = "none yet" if before.best is None else f"{before.best:.4g}"
            return (
                f"validation force error {error:.4g} is not within {self.band:.0%} of "
                f"its best ({best}): coefficient halved to {self.coeff:.4g}"
            )
        return f"validation force error {error:.4g} is back within {self.band:.0%}"

    def state(self) -> dict[str, Any]:
        """Coefficient, moving average and guard."""
        return {
            "coeff": self.coeff,
            "error_average": self.error_average,
            "best": self.guard.best,
            "active": self.guard.active,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up where the state was saved, within the present law's bounds."""
        if "coeff" not in state:
            return
        self.coeff = min(max(state["coeff"], self.law.minimum), self.law.maximum)
        self.error_average = state["error_average"]
        self.guard = Guard(best=state["best"], active=state["active"])


class Course:
    """The coefficient over a training, by its progress.

    Args:
        steering: decides the coefficient.
        unit: ``step`` or ``epoch``, what its positions are counted in.
        horizon: where its schedule ends, None for the end of the training.

    Attributes:
        position, end: where the training is and where it will end, in the unit;
            infinity for an end that cannot be known. See :meth:`locate`.

    Raises:
        UserError: for an unknown unit, or a horizon before the schedule starts.
    """

    def __init__(self, steering: Steering, unit: str, horizon: float | None) -> None:
        if unit not in {"step", "epoch"}:
            raise UserError(f"expected `unit` to be step or epoch, got '{unit}'")
        self.steering = steering
        self.unit = unit
        self._given = horizon
        self._scale: Scale | None = None
        self.position = 0.0
        self.end = 0.0
        if horizon is not None:
            check_number("horizon", horizon)
            self.coefficient()

    @property
    def horizon(self) -> float:
        """Where the schedule ends."""
        return self.end if self._given is None else float(self._given)

    def coefficient(self) -> float:
        """Coefficient where the training is.

        Raises:
            UserError: when the schedule needs an end that is not known, or ends before
                it starts.
        """
        if self.steering.open_ended and not isfinite(self.horizon):
            raise UserError(
                f"expected a horizon for schedule {self.steering.kind}, got a training "
                f"without an end in {self.unit}s; set trainer.max_{self.unit}s, or "
                f"`horizon`"
            )
        return self.steering.coefficient(self.position, self.horizon)

    def check(self, max_epochs: int, max_steps: int, restarts: bool) -> None:
        """Check what the limits of a Trainer say before its data are known.

        Raises:
            UserError: see :meth:`coefficient`.
        """
        end = latest_end(self.unit, max_epochs, max_steps)
        # steps before a restart may have been longer or shorter
        fixed = self.unit == "epoch" or not restarts
        if end is not None and (fixed or end == inf):
            self.position, self.end = 0.0, end
            self.coefficient()

    def locate(self, now: Progress, max_epochs: int, max_steps: int) -> None:
        """Set ``position`` and ``end``; the first call fixes the scale of steps."""
        if self._scale is None:
            self._scale = Scale(self.unit, now.steps_per_epoch)
        self.position = self._scale.position(now)
        self.end = self._scale.end(now, max_epochs, max_steps)

    def state(self) -> dict[str, Any]:
        """What a restart needs: that of the steering, and the scale of steps."""
        scale = self._scale
        steps = {} if scale is None else {"steps_per_epoch": scale.steps_per_epoch}
        return {"steering": self.steering.state(), **steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.steering.restore(state["steering"])
        if "steps_per_epoch" in state:
            self._scale = Scale(self.unit, state["steps_per_epoch"])
