"""What decides the coefficient at each step: a schedule, or a controller with state."""

from __future__ import annotations

from typing import Any, Protocol

from .schedules import ControlLaw, Guard, Schedule, check_number, control, guard


class Steering(Protocol):
    """Decides a coefficient; the state is made of Python numbers, for checkpoints."""

    #: whether it wants to be told the correlation after every step
    needs_measurement: bool

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

    def coefficient(self, position: float, horizon: float) -> float:
        """See :meth:`nequip_decorr.schedules.Schedule.at`."""
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
        ValueError: for numbers out of range, the initial coefficient outside the law's
            bounds among them, but for 0: there is no term then.
    """

    needs_measurement = True

    def __init__(
        self, law: ControlLaw, initial: float, delay: float, band: float
    ) -> None:
        check_number("coeff", initial)
        check_number("delay", delay)
        check_number("guard_band", band)
        if initial and not law.minimum <= initial <= law.maximum:
            raise ValueError(
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
