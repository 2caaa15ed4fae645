"""Coefficient of the loss term as a pure function of training progress.

Shapes map progress in [0, 1] to a height in [0, 1]; :class:`Schedule` stretches a
shape over steps or epochs and between two coefficients; :func:`control` is the
feedback law of ``target``. No state, no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import cos, exp, isfinite, pi

from nequip_decorr.errors import UserError


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


def linear_up(progress: float) -> float:
    """From 0 to 1 in a straight line."""
    return progress


def linear_down(progress: float) -> float:
    """From 1 to 0 in a straight line."""
    return 1.0 - progress


def cosine_up(progress: float) -> float:
    """From 0 to 1 along half a cosine, flat at both ends."""
    return 0.5 * (1.0 - cos(pi * progress))


def cosine_down(progress: float) -> float:
    """From 1 to 0 along half a cosine, flat at both ends."""
    return 1.0 - cosine_up(progress)


def cosine_bump(progress: float) -> float:
    """From 0 to 1 half-way and back to 0, along one cosine."""
    return 0.5 * (1.0 - cos(2.0 * pi * progress))


def linear_bump(progress: float) -> float:
    """From 0 to 1 half-way and back to 0, in straight lines."""
    return 1.0 - abs(2.0 * progress - 1.0)


SHAPES: dict[tuple[str, str], Callable[[float], float]] = {
    ("linear", "up"): linear_up,
    ("linear", "down"): linear_down,
    ("linear", "bump"): linear_bump,
    ("cosine", "up"): cosine_up,
    ("cosine", "down"): cosine_down,
    ("cosine", "bump"): cosine_bump,
}

_STRETCHED = ("direction", "floor", "start", "stop", "horizon")
#: Options of each schedule, beside those that all have.
OPTIONS: dict[str, tuple[str, ...]] = {
    "constant": (),
    "linear": _STRETCHED,
    "cosine": _STRETCHED,
    "cyclical": (*_STRETCHED, "cycles"),
    "target": ("target", "rate", "max_coeff", "guard_monitor", "guard_band"),
}
SCHEDULES = tuple(OPTIONS)
DIRECTIONS = ("up", "down", "bump")


@dataclass(frozen=True)
class Schedule:
    """A coefficient that depends on nothing but how far the training is.

    Positions are in steps or epochs, whichever the caller counts in.

    Attributes:
        kind: ``constant``, ``linear``, ``cosine`` or ``cyclical`` (a cosine restarted
            ``cycles`` times, arXiv:1903.10145).
        coeff: the largest coefficient, >= 0.
        direction: ``up``, ``down`` or ``bump``; not used by ``constant``.
        floor: the smallest coefficient once the term is on, 0 <= floor <= coeff.
        delay: before this position the coefficient is 0 and the term is off.
        start: where the shape begins; until then its first value holds.
        stop: where the shape ends; from then on its last value holds.
        cycles: number of periods of ``cyclical``.
    """

    kind: str
    coeff: float
    direction: str = "down"
    floor: float = 0.0
    delay: float = 0.0
    start: float | None = None
    stop: float | None = None
    cycles: int = 4

    def __post_init__(self) -> None:
        _check(self)

    def at(self, position: float) -> float:
        """Coefficient at a position; ``stop`` must be set.

        Raises:
            UserError: when ``stop`` is None, or not after ``start``.
        """
        if position < self.delay:
            return 0.0
        if self.kind == "constant":
            return self.coeff
        if self.stop is None:
            raise UserError("expected `stop` to be set; call `until` first")
        start = self.delay if self.start is None else self.start
        length = self.stop - start
        done = min(max(position - start, 0.0), length)
        progress = done / length
        # the last cycle ends at its end, not at the beginning of the next
        if self.kind == "cyclical" and done < length:
            # in this order, a cycle that begins at a whole step begins exactly there
            progress = done * self.cycles / length % 1.0
        shape = SHAPES["linear" if self.kind == "linear" else "cosine", self.direction]
        return self.floor + (self.coeff - self.floor) * shape(progress)

    def until(self, horizon: float) -> Schedule:
        """The same with ``stop`` set to ``horizon`` where it was left open.

        Raises:
            UserError: when the schedule would end before it starts.
        """
        if self.kind == "constant" or self.stop is not None:
            return self  # a constant may go on for ever
        return replace(self, stop=horizon)


def _check(s: Schedule) -> None:
    kinds = tuple(kind for kind in SCHEDULES if kind != "target")
    if s.kind not in kinds:
        raise UserError(f"expected `schedule` to be one of {SCHEDULES}, got {s.kind}")
    if s.direction not in DIRECTIONS:
        raise UserError(
            f"expected `direction` to be one of {DIRECTIONS}, got '{s.direction}'"
        )
    check_number("coeff", s.coeff)
    check_number("floor", s.floor)
    check_number("delay", s.delay)
    if s.floor > s.coeff:
        raise UserError(
            f"expected `floor` <= `coeff`, got {s.floor} > {s.coeff}; lower `floor`"
        )
    whole = isinstance(s.cycles, int) and not isinstance(s.cycles, bool)
    if not (whole and s.cycles >= 1):
        raise UserError(
            f"expected `cycles` to be a whole number of at least 1, got {s.cycles!r}"
        )
    start = s.delay
    if s.start is not None:
        check_number("start", s.start)
        start = s.start
        if s.start < s.delay:
            raise UserError(
                f"expected `start` >= `delay`, got {s.start} < {s.delay}; the term is "
                f"off before `delay`"
            )
    if s.stop is not None:
        check_number("stop", s.stop)
        if s.kind != "constant" and s.stop <= start:
            raise UserError(
                f"expected the schedule to stop after it starts, got stop {s.stop} <= "
                f"start {start}; set a later `stop` or an earlier `start` or `delay`"
            )


def refuse_unused(
    schedule: str, given: Mapping[str, object], defaults: Mapping[str, object]
) -> None:
    """Raise UserError for an option that is set and that the schedule does not use."""
    for name in sorted({name for names in OPTIONS.values() for name in names}):
        if name not in OPTIONS[schedule] and given[name] != defaults[name]:
            users = [kind for kind in SCHEDULES if name in OPTIONS[kind]]
            raise UserError(
                f"expected no `{name}` with schedule {schedule}, which does not use "
                f"it, got {given[name]}; remove it, or choose one of {users}"
            )


def check_number(name: str, value: float) -> None:
    """Raise UserError unless ``value`` is a finite number >= 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"expected `{name}` to be a number >= 0, got {value!r}")
    if not (isfinite(value) and value >= 0):
        raise UserError(f"expected a finite `{name}` >= 0, got {value}")


@dataclass(frozen=True)
class ControlLaw:
    r"""Bounded multiplicative feedback that holds a correlation at a set level.

    An exponential moving average *e* of (measured - target) drives the coefficient,
    as in GECO (arXiv:1810.00597): each update multiplies it by
    :math:`\exp(\mathrm{rate}\cdot e / \mathrm{target})`, the exponent bounded to
    ``+- max_change``, the coefficient to [minimum, maximum].

    Attributes:
        target: the debiased mean rho^2 to hold, in (0, 1).
        rate: gain per update, for an error as large as the target.
        memory: weight of the past in the moving average, in [0, 1).
        max_change: largest |log change| of one update.
        minimum: smallest coefficient, > 0 (a multiplicative law cannot leave 0).
        maximum: largest coefficient.
    """

    target: float
    rate: float = 0.01
    memory: float = 0.9
    max_change: float = 0.05
    minimum: float = 1e-4
    maximum: float = 10.0

    def __post_init__(self) -> None:
        if not (isinstance(self.target, (int, float)) and 0 < self.target < 1):
            raise UserError(
                f"expected `target` (debiased mean rho^2) between 0 and 1, "
                f"got {self.target}"
            )
        for name in ("rate", "memory", "max_change", "minimum", "maximum"):
            check_number(name, getattr(self, name))
        if not (self.rate > 0 and self.max_change > 0):
            raise UserError(
                f"expected `rate` and `max_change` > 0, got {self.rate} and "
                f"{self.max_change}"
            )
        if not self.memory < 1:
            raise UserError(f"expected `memory` in [0, 1), got {self.memory}")
        if not 0 < self.minimum <= self.maximum:
            raise UserError(
                f"expected 0 < `minimum` <= `maximum`, got {self.minimum} and "
                f"{self.maximum}"
            )


def control(
    law: ControlLaw, coeff: float, error_average: float, measured: float, hold: bool
) -> tuple[float, float]:
    """One update of the feedback law.

    Args:
        law: the constants.
        coeff: present coefficient.
        error_average: present moving average of (measured - target).
        measured: debiased mean rho^2 of the last batch; no update where it is not
            finite.
        hold: the accuracy guard is on: the coefficient may fall but not rise.

    Returns:
        new coefficient and new moving average.
    """
    if not isfinite(measured):
        return coeff, error_average
    average = law.memory * error_average + (1 - law.memory) * (measured - law.target)
    change = law.rate * average / law.target
    change = min(max(change, -law.max_change), 0.0 if hold else law.max_change)
    return min(max(coeff * exp(change), law.minimum), law.maximum), average


@dataclass(frozen=True)
class Guard:
    """The accuracy guard of ``target``: what it remembers of the validation error.

    Attributes:
        best: lowest validation force error so far; None before the first.
        active: whether the last error was outside the band.
    """

    best: float | None = None
    active: bool = False


def guard(state: Guard, error: float, band: float) -> Guard:
    """Update the guard by a validation error; NaN counts as outside the band.

    Args:
        state: what it remembers.
        error: the new validation force error, any unit.
        band: how far above the best, relatively, is still good (0.05 is 5 %).
    """
    if state.best is None:
        good = isfinite(error)
        return Guard(best=error if good else None, active=not good)
    active = not (error <= state.best * (1 + band))
    return Guard(best=error if error < state.best else state.best, active=active)
