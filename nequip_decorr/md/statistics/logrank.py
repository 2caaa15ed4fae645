"""The log-rank test over strata: do two groups fail at one rate, like with like?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from nequip_decorr.md.frames import Array
from nequip_decorr.md.results import Replica
from nequip_decorr.md.statistics.survival import event_table


@dataclass(frozen=True)
class LogRank:
    """Stratified log-rank test of two groups.

    Attributes:
        observed: failures of the first group.
        expected: what it would have if both had one hazard in each stratum.
        z: (observed - expected) / standard deviation; positive when the first group
            fails more. None without an informative failure.
        p_value: two-sided, from the normal distribution; None with ``z``.
        n_strata: strata with both groups in them.
    """

    observed: int
    expected: float
    z: float | None
    p_value: float | None
    n_strata: int


def stratified_log_rank(
    first: Sequence[Replica], second: Sequence[Replica], horizon_ps: float
) -> LogRank:
    """Log-rank test with strata of one structure and temperature.

    Observed minus expected failures of the first group and their hypergeometric
    variance are summed over the strata (Mantel, Cancer Chemother. Rep. 50, 163, 1966);
    scipy has the test for one stratum only.
    """
    replicas = [*first, *second]
    time, failed = event_table(replicas, horizon_ps)
    in_first = np.arange(len(replicas)) < len(first)
    labels = [(r.structure, r.temperature_K) for r in replicas]
    observed, expected, variance, n_strata = 0, 0.0, 0.0, 0
    for label in sorted(set(labels)):
        rows = np.array([other == label for other in labels])
        if len(set(in_first[rows])) == 2:
            n_strata += 1
            mean, spread = expected_failures(time[rows], failed[rows], in_first[rows])
            observed += int((failed & in_first & rows).sum())
            expected += mean
            variance += spread
    if not variance > 0:
        return LogRank(observed, expected, None, None, n_strata)
    z = float((observed - expected) / np.sqrt(variance))
    return LogRank(observed, expected, z, float(2 * stats.norm.sf(abs(z))), n_strata)


def expected_failures(
    time: Array, failed: NDArray[np.bool_], in_first: NDArray[np.bool_]
) -> tuple[float, float]:
    """Expected failures of the first group in one stratum, and their variance.

    At each time of failure the first group's share is hypergeometric: that many of the
    replicas at risk fail, drawn at random.

    Args:
        time: times of failure or censoring of both groups, shape (n,).
        failed: whether each is a failure, shape (n,).
        in_first: whether each belongs to the first group, shape (n,).
    """
    expected = variance = 0.0
    for at in np.unique(time[failed]):
        at_risk = time >= at
        n = int(at_risk.sum())
        share = int((at_risk & in_first).sum()) / n
        deaths = int((failed & (time == at)).sum())
        expected += deaths * share
        if n > 1:
            variance += deaths * share * (1 - share) * (n - deaths) / (n - 1)
    return expected, variance
