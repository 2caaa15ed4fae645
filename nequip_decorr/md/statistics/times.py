"""Event times of replicas, as arrays for all estimates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nequip_decorr.errors import UserError
from nequip_decorr.md.frames import Array
from nequip_decorr.md.results import Replica


class Times(NamedTuple):
    """Times of failure or censoring of n replicas, and which times are failures."""

    time: Array
    failed: NDArray[np.bool_]


@dataclass(frozen=True)
class PairedTimes:
    """Event times of the replicas of two models, in pairs.

    Attributes:
        first: times of n replicas of the first model, at most ``horizon``.
        second: times of their partners, in the same order.
        unit: independent unit 0...k-1 of each pair (its structure), shape (n,).
        stratum: pairs that share a hazard (the same temperature), shape (n,).
        horizon: end of the follow-up, in the unit of the times.
        step: the time step, below which times are not resolved.
    """

    first: Times
    second: Times
    unit: NDArray[np.intp]
    stratum: NDArray[np.intp]
    horizon: float
    step: float

    @property
    def sides(self) -> tuple[Times, Times]:
        """The times of both models."""
        return self.first, self.second


def first_events(pairs: PairedTimes, ended: Sequence[NDArray[np.bool_]]) -> PairedTimes:
    """Times to the first event of any kind.

    Args:
        pairs: times to one kind of event.
        ended: of both models, which replicas another kind ended, shape (n,) each.
    """
    first, second = (
        Times(side.time, side.failed | by_other)
        for side, by_other in zip(pairs.sides, ended, strict=True)
    )
    return replace(pairs, first=first, second=second)


def event_table(replicas: Sequence[Replica], horizon_ps: float, kind: str) -> Times:
    """Time of the event of one kind for each replica, or of its censoring, ps.

    An event after the horizon is not counted: the replica is censored at the horizon.

    Raises:
        UserError: no replica, or a horizon or a time that is no finite number >= 0.
    """
    if not 0 < horizon_ps < np.inf:
        raise UserError(f"expected a horizon > 0 ps, got {horizon_ps}")
    if not replicas:
        raise UserError("expected at least one replica, got none; run some first")
    followed = [r.followed(kind) for r in replicas]
    time = np.array([time_ps for time_ps, _ in followed], dtype=float)
    good = (time >= 0) & (time < np.inf)
    if not good.all():
        bad = replicas[int(np.argmin(good))]
        raise UserError(
            f"expected times >= 0 ps, got {bad.followed(kind)[0]} in replica "
            f"{bad.index}; the result file is damaged"
        )
    failed = np.array([happened for _, happened in followed], dtype=bool)
    # steps do not divide every horizon: the last one may end a hair before or after it
    near = np.abs(time - horizon_ps) <= 1e-9 * horizon_ps
    time = np.where(near, horizon_ps, time)
    return Times(np.minimum(time, horizon_ps), failed & (time <= horizon_ps))


def follow_up(times: Times, horizon_ps: float) -> float:
    """Time up to which the curve is known: the horizon, or the last censoring.

    If the longest-lived replica failed, the curve is zero from there on and thus known
    up to the horizon.
    """
    last = float(times.time.max())
    all_failed = bool(times.failed[times.time == last].all())
    return horizon_ps if all_failed or last <= 0 else last


def not_followed(
    replicas: Sequence[Replica], horizon_ps: float, kind: str
) -> NDArray[np.bool_]:
    """Replicas that were ended before an event of this kind could happen, shape (n,).

    They were ended before the horizon by the other kind of event, or by an event that
    no longer counts under the looser limits of a rejudgement.
    """
    ended_by_event = [r.censored_by is None and r.first is not None for r in replicas]
    wider = [r.censored_by == "not_followed" for r in replicas]
    absent = [r.event(kind) is None for r in replicas]
    ended: NDArray[np.bool_] = np.array(absent) & (np.array(ended_by_event) | wider)
    return ended & (event_table(replicas, horizon_ps, kind).time < horizon_ps)
