"""Times to failure of two models, and the ratio of these times."""

from __future__ import annotations

import numpy as np

from nequip_decorr.md.statistics.time_ratio import time_ratio
from nequip_decorr.md.statistics.times import PairedTimes, Times
from tests.support.comparisons import Design

TAU = 10.0


def times(values, tau=TAU):
    """Times of failure; from the horizon on they are censored there."""
    values = np.array(values, dtype=float)
    return Times(np.minimum(values, tau), values < tau)


def paired(first, second, unit=None, stratum=None, tau=TAU, step=1e-3):
    """Pairs that are units of their own, and of one temperature, where not said."""
    n = len(first.time)
    return PairedTimes(
        first,
        second,
        np.arange(n) if unit is None else np.array(unit),
        np.zeros(n, dtype=int) if stratum is None else np.array(stratum),
        horizon=tau,
        step=step,
    )


def ratio_of(first, second, *labels, **limits):
    return time_ratio(paired(first, second, *labels, **limits))


def drawn(median, ratio, structures=16, replicas=1, seed=0):
    design = Design(structures, replicas, (median,))
    return design.draw(np.random.default_rng(seed), ratio)
