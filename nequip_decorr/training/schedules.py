"""Coefficient of the loss term as a pure function of training progress.

Shapes map progress in [0, 1] to a height in [0, 1]; a schedule stretches a shape over
steps or epochs and between two coefficients. No state, no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, inf, isfinite, pi
from typing import ClassVar, TypeAlias

from nequip_decorr.checks import (
    check_choice,
    check_number,
    check_switch,
    check_whole,
)
from nequip_decorr.errors import UserError
from nequip_decorr.training.fields import option

DIRECTIONS = ("up", "down", "bump")
UNITS = ("step", "epoch", "fraction")


def linear_up(progress: float) -> float:
    """From 0 to 1 in a straight line."""
    return progress


def linear_down(progress: float) -> float:
    """From 1 to 0 in a straight line."""
    return 1.0 - progress


def linear_bump(progress: float) -> float:
    """From 0 to 1 halfway and back to 0, in straight lines."""
    return 1.0 - abs(2.0 * progress - 1.0)


def cosine_up(progress: float) -> float:
    """From 0 to 1 along half a cosine, flat at both ends."""
    return 0.5 * (1.0 - cos(pi * progress))


def cosine_down(progress: float) -> float:
    """From 1 to 0 along half a cosine, flat at both ends."""
    return 1.0 - cosine_up(progress)


def cosine_bump(progress: float) -> float:
    """From 0 to 1 halfway and back to 0, along one cosine."""
    return 0.5 * (1.0 - cos(2.0 * pi * progress))


Shapes: TypeAlias = dict[str, Callable[[float], float]]

LINEAR: Shapes = {"up": linear_up, "down": linear_down, "bump": linear_bump}
COSINE: Shapes = {"up": cosine_up, "down": cosine_down, "bump": cosine_bump}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What every kind of schedule has. Positions are counted in ``unit``."""

    kind: ClassVar[str]

    coeff: float = option(0.3, "largest coefficient of the term. 0: monitor only")
    delay: float = option(0, "the term is off before this position")
    unit: str = option(
        "step",
        "unit of all positions: `step`, `epoch` or `fraction` (of the whole training, "
        "from 0 to 1). Epochs may be fractional. Steps are optimizer steps, "
        "converted with the number of steps per epoch at which the training (or, at a "
        "restart, the term) started; if the data loader has no length, they are "
        "`global_step`, and epochs are whole",
    )

    def __post_init__(self) -> None:
        check_number("schedule.coeff", self.coeff)
        check_choice("schedule.unit", self.unit, UNITS)
        self.check_position("delay", self.delay)

    def check_position(self, name: str, value: float) -> None:
        """Raise UserError unless ``value`` is a position in the unit."""
        most = 1 if self.unit == "fraction" else None
        check_number(f"schedule.{name}", value, most=most)

    @property
    def open_ended(self) -> bool:
        """Whether the schedule stretches to the end of the training."""
        return False

    def at(self, position: float, end: float = inf) -> float:
        """Coefficient at a position, in a training that ends at ``end``.

        Raises:
            UserError: when the schedule needs an end and there is none, or would stop
                before it starts.
        """
        return self.coeff if position >= self.delay else 0.0


@dataclass(frozen=True, kw_only=True)
class Planned(Schedule):
    """A schedule that is known in advance."""

    warmup: float = option(
        0,
        "length of a linear warm-up: once the term is on, its coefficient rises from 0 "
        "to the scheduled value",
    )
    relative: bool = option(
        False,
        "coefficients are multiples of the rest of the loss, averaged over about 50 "
        "optimizer steps, so that they do not depend on the units of the labels. The "
        "term is off in the first step",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_position("warmup", self.warmup)
        check_switch("schedule.relative", self.relative)

    def at(self, position: float, end: float = inf) -> float:
        """See :meth:`Schedule.at`."""
        warm = self.warm_at(position, end)
        since = position - self.delay
        if since < 0:
            return 0.0
        return warm if since >= self.warmup else warm * since / self.warmup

    def warm_at(self, position: float, end: float) -> float:
        """Coefficient once the term is on and warm."""
        return self.coeff


@dataclass(frozen=True, kw_only=True)
class Constant(Planned):
    """The same coefficient throughout."""

    kind: ClassVar[str] = "constant"


@dataclass(frozen=True, kw_only=True)
class Ramp(Planned):
    """A shape between two positions and two coefficients."""

    shapes: ClassVar[Shapes]

    coeff: float = option(3.0, "largest coefficient of the term. 0: monitor only")
    direction: str = option(
        "down", "`down` from `coeff` to `floor`, `up`, or `bump` (up and down again)"
    )
    floor: float = option(0.0, "smallest coefficient once the term is on")
    start: float | None = option(
        None,
        "position where the shape begins; the coefficient has its first value until "
        "then. null: `delay`",
    )
    stop: float | None = option(
        None,
        "position where the shape ends; the coefficient keeps its last value from "
        "then on. null: the end of the training by `trainer.max_epochs` or "
        "`trainer.max_steps`, whichever comes first",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("schedule.direction", self.direction, DIRECTIONS)
        check_number("schedule.floor", self.floor)
        if self.floor > self.coeff:
            raise UserError(
                f"expected `schedule.floor` <= `schedule.coeff`, got {self.floor} > "
                f"{self.coeff}; lower `schedule.floor`"
            )
        if self.start is not None:
            self.check_position("start", self.start)
            if self.start < self.delay:
                raise UserError(
                    f"expected `schedule.start` >= `schedule.delay`, got {self.start} "
                    f"< {self.delay}; the term is off before the delay"
                )
        if self.stop is not None:
            self.check_position("stop", self.stop)
            self.span(inf)

    @property
    def open_ended(self) -> bool:
        """Whether the schedule stretches to the end of the training."""
        return self.stop is None

    def span(self, end: float) -> tuple[float, float]:
        """Where the shape begins and ends.

        Raises:
            UserError: see :meth:`at`.
        """
        start = self.delay if self.start is None else self.start
        stop = end if self.stop is None else self.stop
        if not isfinite(stop):
            raise UserError(
                f"cannot stretch schedule {self.kind} over a training without an end "
                f"in {self.unit}s; set trainer.max_{self.unit}s or `schedule.stop`"
            )
        if stop <= start:
            raise UserError(
                f"expected the schedule to stop after it starts, got stop {stop:g} <= "
                f"start {start:g} in {self.unit}s; set a later `schedule.stop` (null: "
                f"the end of the training), or an earlier `schedule.start` or "
                f"`schedule.delay`"
            )
        return start, stop

    def warm_at(self, position: float, end: float) -> float:
        """See :meth:`Planned.warm_at`."""
        start, stop = self.span(end)
        length = stop - start
        progress = self.progress(min(max(position - start, 0.0), length), length)
        return self.floor + (self.coeff - self.floor) * self.shapes[self.direction](
            progress
        )

    def progress(self, done: float, length: float) -> float:
        """Progress along the shape, in [0, 1]."""
        return done / length


@dataclass(frozen=True, kw_only=True)
class Linear(Ramp):
    """A straight line."""

    kind: ClassVar[str] = "linear"
    shapes: ClassVar[Shapes] = LINEAR


@dataclass(frozen=True, kw_only=True)
class Cosine(Ramp):
    """Half a cosine, flat at both ends (``bump``: a whole one)."""

    kind: ClassVar[str] = "cosine"
    shapes: ClassVar[Shapes] = COSINE


@dataclass(frozen=True, kw_only=True)
class Cyclical(Ramp):
    """A cosine restarted several times (arXiv:1903.10145)."""

    kind: ClassVar[str] = "cyclical"
    shapes: ClassVar[Shapes] = COSINE

    cycles: int = option(4, "number of periods")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("schedule.cycles", self.cycles, least=1)

    def progress(self, done: float, length: float) -> float:
        """Progress along the current cycle, in [0, 1]."""
        # the last cycle ends at its end, not at the beginning of the next
        if done >= length:
            return 1.0
        # in this order, a cycle that begins at a whole step begins exactly there
        return done * self.cycles / length % 1.0
