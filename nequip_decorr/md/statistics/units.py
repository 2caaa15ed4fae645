"""Inference on one value per independent unit: a start structure, a training seed.

Replicas of one structure, or structures of one trained model, are not independent of
each other; units are. All tests here test whether the mean over units is zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from nequip_decorr.md.frames import Array
from nequip_decorr.md.statistics.score import TAIL, Interval

#: Fewer units say nothing about how much units differ.
MIN_UNITS = 3

#: With five units of one sign out of five, the exact sign-flip p-value is 0.06: fewer
#: than six cannot reach 0.05.
MIN_SIGN_FLIP = 6

#: Up to 2^15 sign patterns are enumerated; of more, as many are drawn.
MAX_ENUMERATED = 15

#: Smaller differences between values of order one are rounding errors.
ROUNDING = 1e-10


def unit_means(values: Array, unit: NDArray[np.intp]) -> Array:
    """Mean of the values of each unit, shape (..., n_units).

    Args:
        values: shape (..., n).
        unit: unit 0...k-1 of each value, shape (n,).
    """
    members = np.arange(int(unit.max()) + 1) == unit[:, None]
    means: Array = values @ (members / members.sum(axis=0))
    return means


def student_interval(values: Array) -> Interval:
    """Mean over units with its 95 % Student's t interval; infinite for one unit."""
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return Interval(mean, -np.inf, np.inf)
    half = t_limit(n) * float(values.std(ddof=1)) / n**0.5
    return Interval(mean, mean - half, mean + half)


def student_t(values: Array) -> Array:
    """Student's t for a zero mean over the last axis; 0 if all values are zero.

    Infinite if all values are equal and not zero, as for one unit.
    """
    n = values.shape[-1]
    mean = values.mean(axis=-1)
    spread = values.std(axis=-1, ddof=1) if n > 1 else np.zeros_like(mean)
    known = spread > ROUNDING
    finite = mean * np.sqrt(n) / np.where(known, spread, 1.0)
    t = np.where(known, finite, np.copysign(np.inf, mean))
    return np.where(np.abs(mean) < ROUNDING, 0.0, t)


def t_limit(n: int) -> float:
    """Largest t of n units that a two-sided test at 5 % does not reject."""
    if n < 2:
        return np.inf
    return float(stats.t.ppf(1 - TAIL, n - 1))


def sign_flip_p(values: Array) -> float | None:
    """Two-sided sign-flip p-value for a zero mean; None with fewer than six units.

    Exact if the difference between two models is equally likely to have either sign in
    each unit, whatever its distribution. Enumerated for up to 16 units.
    """
    n = len(values)
    if n < MIN_SIGN_FLIP:
        return None
    # the first sign is fixed: a pattern and its opposite are equally far from zero
    if n - 1 <= MAX_ENUMERATED:
        bits = np.arange(2 ** (n - 1))[:, None] >> np.arange(n - 1) & 1
    else:
        bits = np.random.default_rng(0).integers(0, 2, (2**MAX_ENUMERATED, n - 1))
    sums = np.abs(values[0] + (1.0 - 2 * bits) @ values[1:])
    rounding = ROUNDING * np.abs(values).sum()
    extreme = int((sums >= abs(values.sum()) - rounding).sum())
    drawn = n - 1 > MAX_ENUMERATED  # the pattern that was observed is one more
    return (extreme + drawn) / (len(bits) + drawn)
