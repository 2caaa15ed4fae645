"""Ratio of times to failure: how many times longer one model lasts than another.

This is an accelerated failure time model: times to failure of the first model are
distributed like those of the second on the same structure, multiplied by a ratio. The
unit of inference is the start structure (or another label of independent units), with
all of its replicas and temperatures together.

Where at least 80 % of the replicas of each model fail, the ratio is the exponential of
the mean log ratio over structures, with a Student's t interval. Otherwise too many
ratios are unknown, and the interval is the set of ratios that a test of equal hazards
does not reject.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nequip_decorr.md.frames import Array
from nequip_decorr.md.statistics.score import restricted_mean
from nequip_decorr.md.statistics.times import PairedTimes, Times, follow_up
from nequip_decorr.md.statistics.units import (
    MIN_UNITS,
    ROUNDING,
    sign_flip_p,
    student_interval,
    student_t,
    t_limit,
    unit_means,
)
from nequip_decorr.wording import counted

#: Share of the replicas of each model that must fail for the mean of log times.
MIN_FAILED = 0.8

#: Ratios that are tried, as logarithms: from 1/20 to 20 in steps of one percent.
LOG_RATIOS = np.arange(-300, 301) / 100

#: Ratios that are tried between two of these for a limit: 0.01 % apart.
REFINED = 101


@dataclass(frozen=True)
class TimeRatio:
    """Ratio of times to failure, first / second, with its 95 % interval.

    Attributes:
        value: the estimate; None if the failures do not determine one.
        low: lower limit; None if there is none (arbitrarily small ratios are possible).
        high: upper limit; None if there is none.
        method: ``log times`` or ``hazards``, see the module's docstring.
        units: number of independent units; there are no limits with fewer than three,
            or if all have the same ratio other than one: times are then too coarse to
            tell how much it varies.
        sign_flip_p: exact p-value for equal models, from the signs of the differences
            of the units; a check on the interval. None with fewer than six units.
    """

    value: float | None
    low: float | None
    high: float | None
    method: str
    units: int
    sign_flip_p: float | None

    @property
    def known(self) -> bool:
        """Whether anything is known of the ratio: its value or a limit."""
        return not (self.value is None and self.low is None and self.high is None)

    @property
    def longer(self) -> int | None:
        """0 if the first model is shown to last longer, 1 if the second, else None."""
        if self.low is not None and self.low > 1:
            return 0
        return 1 if self.high is not None and self.high < 1 else None

    @property
    def basis(self) -> str:
        """How the ratio and its interval were calculated, in words."""
        structures = counted(self.units, "structure")
        if self.method == "log times":
            return f"mean log times of {structures}"
        return (
            f"a test of equal hazards over {structures} (fewer than "
            f"{100 * MIN_FAILED:.0f} % failed in one of the models)"
        )

    @property
    def inverse(self) -> TimeRatio:
        """Second / first."""
        value, low, high = (
            None if x is None else 1 / x for x in (self.value, self.high, self.low)
        )
        return replace(self, value=value, low=low, high=high)


def time_ratio(pairs: PairedTimes) -> TimeRatio:
    """Ratio of times to failure of paired replicas."""
    observed = unit_differences(pairs, np.zeros(1))[0]
    by_log_times = most_fail(pairs)
    if by_log_times:
        found = student_interval(observed)
        limits = _exp(found.value), _exp(found.low), _exp(found.high)
    else:
        limits = invert(lambda log_ratios: unit_differences(pairs, log_ratios))
    enough = len(observed) >= MIN_UNITS and not (by_log_times and _unresolved(observed))
    return TimeRatio(
        value=limits[0],
        low=limits[1] if enough else None,
        high=limits[2] if enough else None,
        method="log times" if by_log_times else "hazards",
        units=len(observed),
        sign_flip_p=sign_flip_p(observed),
    )


def _unresolved(values: Array) -> bool:
    """Whether all units have the same value, which is not zero."""
    return bool(np.ptp(values) < ROUNDING <= abs(values[0]))


def most_fail(pairs: PairedTimes) -> bool:
    """Whether at least 80 % of the replicas of each model fail."""
    return bool(min(side.failed.mean() for side in pairs.sides) >= MIN_FAILED)


def unit_differences(pairs: PairedTimes, log_ratios: Array) -> Array:
    """One value per unit; their mean is zero if the ratio is the true one.

    These are means of :func:`log_time_differences` over the pairs of a unit, or of
    :func:`hazard_differences` if many replicas survive.

    Args:
        pairs: times of n pairs of replicas.
        log_ratios: logarithms of ratios first / second, shape (m,).

    Returns:
        Values of shape (m, n_units).
    """
    if most_fail(pairs):
        found = unit_means(log_time_differences(pairs), pairs.unit)
        return found - log_ratios[:, None]
    return unit_means(hazard_differences(pairs, log_ratios), pairs.unit)


def log_time_differences(pairs: PairedTimes) -> Array:
    """Differences of log time, first minus second, up to the horizon, shape (n,).

    If no replica was lost, the difference of a pair is ``log min(T_1, tau) - log
    min(T_2, tau)``. A lost replica (censored earlier) enters through jackknife
    pseudo-values of the mean log time of its model and stratum under the Kaplan-Meier
    curve (Andersen, Klein and Rosthoj, Biometrika 90, 15, 2003).
    """
    differences = np.empty(len(pairs.stratum))
    for label in np.unique(pairs.stratum):
        rows = pairs.stratum == label
        sides = [Times(s.time[rows], s.failed[rows]) for s in pairs.sides]
        tau = min(follow_up(side, pairs.horizon) for side in sides)
        values = [pseudo_log_times(s, tau, pairs.step) for s in sides]
        differences[rows] = values[0] - values[1]
    return differences


def pseudo_log_times(times: Times, tau: float, step: float) -> Array:
    """Jackknife pseudo-values of the mean of log min(T, tau / step), shape (n,).

    ``n m - (n - 1) m_i`` with the mean m of all replicas, ``sum_j dF(t_j) log t_j +
    S(tau) log tau``, and m_i without replica i. They equal the values themselves
    if no replica was censored before tau.
    """
    log_time = np.log(np.maximum(times.time, step) / step)
    log_tau = np.log(max(tau, step) / step)
    n = len(log_time)
    if n == 1 or log_tau == 0 or (times.failed | (log_time >= log_tau)).all():
        return np.minimum(log_time, log_tau)
    # the area under S over log t: the restricted mean of the logarithms
    weights = np.vstack([np.ones(n), 1 - np.eye(n)])
    means = log_tau * restricted_mean(log_time, times.failed, float(log_tau), weights)
    values: Array = n * means[0] - (n - 1) * means[1:]
    return values


def hazard_differences(pairs: PairedTimes, log_ratios: Array) -> Array:
    """Differences of martingale residuals, first minus second, shape (m, n).

    The times of the second model are multiplied by each ratio, and both are truncated
    where the shorter follow-up ends. If the ratio is the true one, the two models then
    have the same hazard, and the differences have mean zero. Summed over the first
    model at a ratio of one, the residuals are the observed minus the expected failures
    of the log-rank test.
    """
    shifts = log_ratios[:, None]
    ends = np.log(pairs.horizon) + np.minimum(0.0, shifts)
    log_times = [np.log(np.maximum(side.time, pairs.step)) for side in pairs.sides]
    log_times = [log_times[0] + np.zeros_like(shifts), log_times[1] + shifts]
    time = np.stack([np.minimum(each, ends) for each in log_times])
    failed = np.stack(
        [
            side.failed & (each <= ends)
            for side, each in zip(pairs.sides, log_times, strict=True)
        ]
    )
    differences = np.empty(time.shape[1:])
    for label in np.unique(pairs.stratum):
        rows = pairs.stratum == label
        residuals = martingale_residuals(
            np.concatenate(time[:, :, rows], axis=-1),
            np.concatenate(failed[:, :, rows], axis=-1),
        )
        n = int(rows.sum())
        differences[:, rows] = residuals[:, :n] - residuals[:, n:]
    return differences


def martingale_residuals(time: Array, failed: NDArray[np.bool_]) -> Array:
    """Failures minus the cumulative hazard up to each time (Nelson-Aalen).

    Args:
        time: times of failure or censoring of n replicas, shape (..., n).
        failed: whether each time is a failure, shape (..., n).

    Returns:
        Residuals of shape (..., n), with sum zero.
    """
    order = np.argsort(time, axis=-1, kind="stable")
    index = np.arange(time.shape[-1])
    sorted_time = np.take_along_axis(time, order, -1)
    deaths = np.take_along_axis(failed, order, -1)
    # equal times are one group: at risk from its first on, hazard up to its last
    new = np.diff(sorted_time, axis=-1, prepend=-np.inf) > 0
    last = np.concatenate([new[..., 1:], np.ones_like(new[..., :1])], axis=-1)
    starts = np.maximum.accumulate(np.where(new, index, 0), axis=-1)
    stops = np.where(last, index, index[-1])[..., ::-1]
    stops = np.minimum.accumulate(stops, axis=-1)[..., ::-1]
    hazard = np.cumsum(deaths / (len(index) - starts), axis=-1)
    residuals = np.empty(time.shape)
    np.put_along_axis(
        residuals, order, deaths - np.take_along_axis(hazard, stops, -1), -1
    )
    return residuals


def invert(
    values: Callable[[Array], Array],
) -> tuple[float | None, float | None, float | None]:
    """Estimate and 95 % interval of a ratio from unit values that increase with it.

    Args:
        values: values of the units at m log ratios, shape (m, n_units); their mean is
            zero at the true ratio.

    Returns:
        The ratio at which the mean is zero, and the smallest and the largest that
        Student's t-test of a zero mean does not reject; None where there is none within
        :data:`LOG_RATIOS`.
    """
    limit = t_limit(values(np.zeros(1)).shape[-1])
    t = student_t(values(LOG_RATIOS))

    def edge(holds: Callable[[Array], NDArray[np.bool_]], side: int) -> float | None:
        """The smallest (-1) or largest (1) ratio at which a condition on t holds."""
        held = np.flatnonzero(holds(t))
        at = held[-1 if side > 0 else 0] if len(held) else -1
        if at in (-1, 0 if side < 0 else len(LOG_RATIOS) - 1):
            return None
        between = np.linspace(LOG_RATIOS[at], LOG_RATIOS[at + side], REFINED)
        inside = holds(student_t(values(between)))
        return float(between[np.flatnonzero(inside)[-1]])

    value = None
    below, above = edge(lambda t: t < 0, 1), edge(lambda t: t > 0, -1)
    if below is not None and above is not None:
        # the mean is zero on a plateau between the two, or jumps across zero
        value = (below + above) / 2
    low = edge(lambda t: np.abs(t) <= limit, -1)
    high = edge(lambda t: np.abs(t) <= limit, 1)
    if not (np.abs(t) <= limit).any():
        if value is not None:  # it jumps from one rejection to the other
            low = high = value
        elif t[-1] < 0:  # larger than all that were tried
            low = float(LOG_RATIOS[-1])
        else:
            high = float(LOG_RATIOS[0])
    return _exp(value), _exp(low), _exp(high)


def _exp(value: float | None) -> float | None:
    return None if value is None else float(np.exp(value))
