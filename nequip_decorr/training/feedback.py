r"""Schedule ``target``: feedback that keeps the correlation at a level.

An exponential moving average *e* of (measured - level) drives the coefficient, as in
GECO (arXiv:1810.00597): each update multiplies it by :math:`\exp(\mathrm{rate}\cdot e /
\mathrm{level})`, with the exponent limited to ``+- MAX_CHANGE`` and the coefficient to
[``MIN_COEFF``, ``max_coeff``].
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from math import exp, inf, isfinite
from typing import Any, ClassVar

from nequip_decorr.checks import check_number
from nequip_decorr.errors import UserError
from nequip_decorr.training.fields import option
from nequip_decorr.training.schedules import Schedule

#: Weight of the past in the moving average.
MEMORY = 0.9
#: Largest |log change| of the coefficient in one update.
MAX_CHANGE = 0.05
#: Smallest coefficient: a multiplicative law cannot leave 0.
MIN_COEFF = 1e-4


@dataclass(frozen=True, kw_only=True)
class Target(Schedule):
    """Feedback that keeps the correlation at a level, with an accuracy guard."""

    kind: ClassVar[str] = "target"

    coeff: float = option(0.3, "initial coefficient. 0: monitor only")
    level: float = option(
        MISSING, "debiased mean rho^2 to reach, between 0 and 1, for example 0.05"
    )
    rate: float = option(
        0.01,
        "gain: relative change of the coefficient per step when the correlation is "
        "twice the level",
    )
    max_coeff: float = option(10.0, "largest coefficient")
    guard_monitor: str = option(
        "val0_epoch/forces_rmse",
        "logged validation force error; `val0_` is the first validation set",
    )
    guard_band: float = option(
        0.05,
        "when this error is more than this fraction above its best, the coefficient is "
        "halved at each validation and may not rise",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("schedule.level", self.level, above=0, below=1)
        check_number("schedule.rate", self.rate, above=0)
        check_number("schedule.max_coeff", self.max_coeff, above=0)
        check_number("schedule.guard_band", self.guard_band)
        if self.coeff and not MIN_COEFF <= self.coeff <= self.max_coeff:
            raise UserError(
                f"expected `schedule.coeff` between {MIN_COEFF} and "
                f"`schedule.max_coeff` {self.max_coeff}, got {self.coeff}; change one "
                f"of them"
            )


def control(
    target: Target, coeff: float, error_average: float, measured: float, hold: bool
) -> tuple[float, float]:
    """One update of the feedback law.

    Args:
        target: level, gain and largest coefficient.
        coeff: current coefficient.
        error_average: current moving average of (measured - level).
        measured: debiased mean rho^2 of the last batch; no update unless it is finite.
        hold: the accuracy guard is on: the coefficient may fall but not rise.

    Returns:
        new coefficient and new moving average.
    """
    if not isfinite(measured):
        return coeff, error_average
    average = MEMORY * error_average + (1 - MEMORY) * (measured - target.level)
    change = target.rate * average / target.level
    change = min(max(change, -MAX_CHANGE), 0.0 if hold else MAX_CHANGE)
    return min(max(coeff * exp(change), MIN_COEFF), target.max_coeff), average


@dataclass(frozen=True)
class Guard:
    """State of the accuracy guard.

    Attributes:
        best: lowest validation force error so far; None before the first.
        active: whether the last error was outside the band.
    """

    best: float | None = None
    active: bool = False


def guard(state: Guard, error: float, band: float) -> Guard:
    """Update the guard by a validation error; NaN counts as outside the band.

    Args:
        state: current state.
        error: new validation force error, in any unit.
        band: accepted relative rise above the best (0.05 is 5 %).
    """
    if state.best is None:
        good = isfinite(error)
        return Guard(best=error if good else None, active=not good)
    active = not (error <= state.best * (1 + band))
    return Guard(best=error if error < state.best else state.best, active=active)


class Controller:
    """Applies the feedback law and the guard during a training.

    Args:
        target: the schedule.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.coeff = target.coeff
        self.error_average = 0.0
        self.guard = Guard()

    def coefficient(self, position: float) -> float:
        """The current coefficient; 0 before the delay."""
        return 0.0 if position < self.target.delay else self.coeff

    def measured(self, mean_square_debiased: float) -> None:
        """Update the coefficient by the correlation of the last step."""
        self.coeff, self.error_average = control(
            self.target,
            self.coeff,
            self.error_average,
            mean_square_debiased,
            hold=self.guard.active,
        )

    def validated(self, error: float, position: float = inf) -> str | None:
        """Update the guard by a validation force error; outside the band, halve.

        Before the delay there is nothing to halve, and only the best error is kept.

        Returns:
            a line to log when the guard turns on or off, else None.
        """
        before, band = self.guard, self.target.guard_band
        self.guard = guard(before, error, band)
        if position < self.target.delay:
            self.guard = Guard(best=self.guard.best)
            return None
        if self.guard.active:
            self.coeff = max(self.coeff / 2, MIN_COEFF)
        if self.guard.active == before.active:
            return None
        if self.guard.active:
            best = "none yet" if before.best is None else f"{before.best:.4g}"
            return (
                f"validation force error {error:.4g} is not within {band:.0%} of its "
                f"best ({best}): coefficient halved to {self.coeff:.4g}"
            )
        return (
            f"validation force error {error:.4g} is within {band:.0%} of its best again"
        )

    def state(self) -> dict[str, Any]:
        """Coefficient, moving average and guard as Python numbers, for checkpoints."""
        return {
            "coeff": self.coeff,
            "error_average": self.error_average,
            "best": self.guard.best,
            "active": self.guard.active,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state, within the current bounds.

        Without one (the schedule was another before a restart) start anew.
        """
        if not state:
            return
        self.coeff = min(max(state["coeff"], MIN_COEFF), self.target.max_coeff)
        self.error_average = state["error_average"]
        self.guard = Guard(best=state["best"], active=state["active"])
