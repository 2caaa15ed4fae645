"""Progress on the terminal: replicas left, events, ns/day, remaining time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from nequip_decorr.md.results import KINDS

#: Wall time between two updates of the bar, and of the plain lines, s.
BAR_EVERY_S, LINE_EVERY_S = 1.0, 30.0


def happened(kinds: Iterable[str]) -> int:
    """Events of a replica encoded as bits, one for each kind."""
    return sum(1 << KINDS.index(kind) for kind in kinds)


class Display:
    """A live bar on a terminal, plain lines elsewhere.

    Args:
        steps: step of each replica, as in :class:`nequip_decorr.md.running.batch.Work`.
        events: events of each replica, encoded by :func:`happened`.
        n_steps: steps to the horizon.
        timestep_fs: MD time step, for ns/day.
        console: console to write to; None for no output.
    """

    def __init__(
        self,
        steps: Sequence[int],
        events: Sequence[int],
        *,
        n_steps: int,
        timestep_fs: float,
        console: Console | None,
    ) -> None:
        self._steps = steps
        self._events = events
        self._n_steps = n_steps
        self._timestep_fs = timestep_fs
        self._console = console
        self._bar: Progress | None = None
        self._started = time.monotonic()
        self._next = self._started + 1.0
        self._before = self._taken()

    def __enter__(self) -> Display:
        if self._console is not None and self._console.is_terminal:
            self._bar = Progress(
                BarColumn(),
                TextColumn("{task.description}"),
                console=self._console,
                auto_refresh=False,
            )
            self._task = self._bar.add_task("starting", total=1.0)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._show()
            self._bar.stop()

    def announce(self, horizon_ps: float) -> None:
        """Print the work to be done."""
        if self._console is None:
            return
        ended = sum(step < 0 for step in self._steps)
        resumed = sum(step > 0 for step in self._steps)
        self._console.print(
            f"{len(self._steps)} replicas of {horizon_ps:g} ps: {ended} finished, "
            f"{resumed} resumed, {len(self._steps) - ended - resumed} new",
            highlight=False,
        )

    def refresh(self) -> None:
        """Update the display if it is due."""
        now = time.monotonic()
        if self._console is None or now < self._next:
            return
        self._next = now + (BAR_EVERY_S if self._bar else LINE_EVERY_S)
        self._show()

    @property
    def ns_per_day(self) -> float:
        """Simulated time of all replicas together, per day of this session."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        moved = self._taken() - self._before
        return moved * self._timestep_fs * 1e-6 / elapsed * 86400

    def _taken(self) -> int:
        return sum(max(step, ~step) for step in self._steps)

    def _show(self) -> None:
        rate = self.ns_per_day
        to_go = [step for step in self._steps if step >= 0]
        unphysical, exploded = (
            sum(events & happened([kind]) != 0 for events in self._events)
            for kind in KINDS
        )
        left = sum(self._n_steps - step for step in to_go)
        done = 1 - left / (self._n_steps * len(self._steps))
        seconds = left * self._timestep_fs * 1e-6 / rate * 86400 if rate else None
        text = (
            f"{len(to_go)} of {len(self._steps)} replicas to finish, "
            f"{unphysical} unphysical, {exploded} exploded, "
            f"{rate:.3g} ns/day, {_clock(seconds)} left"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=text)
            self._bar.refresh()
        elif self._console is not None:
            self._console.print(f"{done:4.0%}  {text}", highlight=False)


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
