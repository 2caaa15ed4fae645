"""Statistics over training seeds. Pure functions of arrays.

The unit of inference is the training seed: models of one seed share their initial
weights, data order, start structures and thermal noise, and differ in the variant
alone. So every effect is a difference within a seed, and its interval is Student's over
seeds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from nequip_decorr.md.frames import Array
from nequip_decorr.md.statistics.time_ratio import (
    pseudo_log_times,
    time_ratio,
    unit_differences,
)
from nequip_decorr.md.statistics.times import PairedTimes, follow_up
from nequip_decorr.md.statistics.units import MIN_UNITS, student_interval, student_t

#: Of a study that should not miss an effect.
POWER = 0.8

#: Of a two-sided test.
LEVEL = 0.05

#: More seeds than anybody trains.
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Effect:
    """Ratio of a quantity to its value for the baseline.

    Attributes:
        baseline: geometric mean of the baseline's values, in their unit (ps for times,
            of at least a time step and at most the horizon); None where ``method`` is
            ``hazards``.
        value: the ratio; None if the data do not determine one.
        low: lower limit of its 95 % interval; None if there is none.
        high: upper limit; None if there is none.
        p_value: two-sided, for no difference; None with fewer than three seeds, or if
            all have the same ratio of coarse times.
        seeds: number of training seeds that both variants have.
        spread: standard deviation of the log ratio over seeds; None if the ratio of a
            seed is unknown (``hazards``), and for a single seed.
        method: ``log ratios``, or ``hazards`` if fewer than 80 % of the replicas of a
            variant have the event.
    """

    baseline: float | None
    value: float | None
    low: float | None
    high: float | None
    p_value: float | None
    seeds: int
    spread: float | None
    method: str = "log ratios"

    @property
    def direction(self) -> int:
        """1 if the interval is above one, -1 if below, else 0."""
        if self.low is not None and self.low > 1:
            return 1
        return -1 if self.high is not None and self.high < 1 else 0


def ratio_effect(
    variant: Mapping[int, float], baseline: Mapping[int, float]
) -> Effect | None:
    """Geometric mean over seeds of the ratio of a positive quantity.

    Args:
        variant: values by seed.
        baseline: values by seed.

    Returns:
        The effect; None if no seed has finite, positive values on both sides.
    """
    seeds = comparable(variant, baseline)
    if not seeds:
        return None
    logs = np.array([np.log(variant[seed] / baseline[seed]) for seed in seeds])
    typical = np.mean([np.log(baseline[seed]) for seed in seeds])
    found = student_interval(logs)
    enough = len(logs) >= MIN_UNITS
    return Effect(
        baseline=float(np.exp(typical)),
        value=float(np.exp(found.value)),
        low=float(np.exp(found.low)) if enough else None,
        high=float(np.exp(found.high)) if enough else None,
        p_value=student_p(logs) if enough else None,
        seeds=len(logs),
        spread=float(logs.std(ddof=1)) if len(logs) > 1 else None,
    )


def comparable(
    variant: Mapping[int, float], baseline: Mapping[int, float]
) -> list[int]:
    """Seeds with finite, positive values on both sides."""
    return [
        seed
        for seed in sorted(variant.keys() & baseline.keys())
        if min(variant[seed], baseline[seed]) > 0
        and np.isfinite([variant[seed], baseline[seed]]).all()
    ]


def time_effect(pairs: PairedTimes) -> Effect:
    """Ratio of times to an event, variant / baseline, with training seeds as units.

    The value of a seed is the mean log ratio over its replicas if at least 80 % of the
    replicas of each variant have the event, and otherwise the difference of martingale
    residuals, see :func:`~nequip_decorr.md.statistics.time_ratio.time_ratio`.
    """
    found = time_ratio(pairs)
    by_seed = unit_differences(pairs, np.zeros(1))[0]
    ratios_known = found.method != "hazards"
    end = follow_up(pairs.second, pairs.horizon)
    log_steps = pseudo_log_times(pairs.second, end, pairs.step)
    typical = pairs.step * float(np.exp(log_steps.mean()))
    enough = len(by_seed) >= MIN_UNITS and not (ratios_known and found.low is None)
    return Effect(
        baseline=typical if ratios_known else None,
        value=found.value,
        low=found.low,
        high=found.high,
        p_value=student_p(by_seed) if enough else None,
        seeds=len(by_seed),
        spread=(
            float(by_seed.std(ddof=1)) if ratios_known and len(by_seed) > 1 else None
        ),
        method="log ratios" if ratios_known else "hazards",
    )


def student_p(values: Array) -> float:
    """Two-sided p-value for a zero mean by Student's t-test."""
    return float(2 * stats.t.sf(abs(student_t(values)), len(values) - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-corrected p-values (Scand. J. Stat. 6, 65, 1979)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    corrected = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    found = np.empty(len(p))
    found[order] = corrected
    return [float(value) for value in found]


def power(log_ratio: float, spread: float, seeds: int) -> float:
    """Power of a study: probability that a two-sided t-test at 5 % shows the effect.

    Args:
        log_ratio: the effect.
        spread: standard deviation of the log ratio over seeds.
        seeds: number of seeds.
    """
    if seeds < MIN_UNITS:
        return 0.0
    if spread == 0:
        return 1.0 if log_ratio else LEVEL
    limit = stats.t.ppf(1 - LEVEL / 2, seeds - 1)
    shift = abs(log_ratio) / spread * seeds**0.5
    tails = (
        stats.nct.sf(limit, seeds - 1, shift),
        stats.nct.cdf(-limit, seeds - 1, shift),
    )
    return float(min(1.0, sum(np.nan_to_num(tails))))


def seeds_for_power(log_ratio: float, spread: float) -> int | None:
    """Smallest number of seeds that gives a power of :data:`POWER`.

    None if it is more than :data:`MOST_SEEDS`.
    """
    numbers = range(MOST_SEEDS + 1)
    found = bisect_left(
        numbers, POWER, lo=MIN_UNITS, key=lambda n: power(log_ratio, spread, n)
    )
    return found if found in numbers else None
