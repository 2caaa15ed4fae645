"""The score (restricted mean survival time / horizon) and its clustered bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nequip_decorr.md.frames import Array
from nequip_decorr.md.results import Replica
from nequip_decorr.md.statistics.times import Times

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
N_BOOTSTRAP = 4000

#: With fewer start structures than this, replicas are resampled instead: fewer
#: clusters do not say how much structures differ.
MIN_STRUCTURES = 6

#: Weight of the pseudo-structure of :func:`score_interval`: the ``a`` with
#: ``Gamma(a).ppf(0.975) == -log(0.05)``, for which the bootstrap of n survivors ends
#: at the bound ``0.05^(1/n)`` (up to terms of order 1/n^2).
PSEUDO_WEIGHT = 0.68974

#: That of :func:`score_difference`, which has one at either limit of both models.
PSEUDO_WEIGHT_DIFFERENCE = 0.5


@dataclass(frozen=True)
class Interval:
    """An estimate and its two-sided 95 % interval."""

    value: float
    low: float
    high: float


def cluster_labels(replicas: Sequence[Replica]) -> tuple[NDArray[np.intp], str]:
    """Cluster of each replica, shape (n,), and what the clusters are.

    Clusters are structures if there are at least :data:`MIN_STRUCTURES` of them;
    otherwise every replica is its own cluster.
    """
    structures = np.array([r.structure for r in replicas])
    if len(np.unique(structures)) < MIN_STRUCTURES:
        return np.arange(len(replicas)), "replicas"
    return np.unique(structures, return_inverse=True)[1], "structures"


def restricted_mean(
    time: Array, failed: NDArray[np.bool_], tau: float, weights: Array
) -> Array:
    """Restricted mean of weighted Kaplan-Meier curves, as a fraction of ``tau``.

    ``(1/tau) * integral from 0 to tau of S(t) dt``, one value per row of weights.

    Args:
        time: times of failure or censoring, shape (n,).
        failed: whether each time is a failure, shape (n,).
        tau: upper limit of the integral, in the unit of ``time``.
        weights: non-negative weights of the replicas, shape (m, n).

    Returns:
        Values in [0, 1], shape (m,). When no replica is left at risk, a curve keeps its
        last value.
    """
    # by time; at equal times failures come before censorings, so that those censored
    # there were still at risk (starts below counts them all in the same group)
    order = np.argsort(time, kind="stable")
    steps, starts = np.unique(time[order], return_index=True)
    weights = weights[:, order]
    at_risk = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1][:, starts]
    deaths = np.add.reduceat(weights * failed[order], starts, axis=1)
    fraction = np.divide(deaths, at_risk, out=np.zeros_like(deaths), where=at_risk > 0)
    survival = np.cumprod(np.clip(1 - fraction, 0, 1), axis=1)
    edges = np.minimum(np.append(steps, tau), tau)
    area: Array = edges[0] + survival @ np.diff(edges)
    return np.clip(area / tau, 0, 1)


def score_interval(
    times: Times, tau: float, *, clusters: NDArray[np.intp], seed: int = 0
) -> Interval:
    """Restricted mean survival score with its clustered bootstrap interval.

    The bootstrap is Rubin's (Ann. Stat. 9, 130, 1981): clusters get normalised Gamma(1)
    weights instead of being drawn. For each limit, a worst-case pseudo-cluster is added
    to the resamples, which failed at once (lower limit) or never (upper limit), as in
    Learned-Miller and Thomas (arXiv:1905.06208). With weight one and no clusters this
    is Clopper-Pearson for 0/1 outcomes; here the weight is :data:`PSEUDO_WEIGHT` of a
    cluster. The usual percentile bootstrap is not used
    because it cannot see a failure that has not happened yet: with 16 replicas and a
    hazard of 0.1/tau its 95 % interval covers the true value in only 70 % of cases (and
    is [1, 1] without a failure). This one covers in 95 to 97 % of cases with 48 or more
    clusters of one replica, and in 98 to 99 % with 8 or 16 clusters or with rare or
    early failures (simulated with known hazards, equal or Gamma distributed over the
    clusters): it is too wide rather than too narrow.

    Args:
        times: of n replicas.
        tau: horizon of the score, in the unit of the times.
        clusters: cluster label 0...k-1 of each replica, shape (n,).
        seed: seed of the bootstrap weights.
    """
    time, failed = times
    value = float(restricted_mean(time, failed, tau, np.ones((1, len(time))))[0])
    if not failed.any():
        # the score is at least S(tau), which those followed to the end alone bound
        n = len(np.unique(clusters[time >= tau]))
        return Interval(value, zero_failure_bound(n), 1.0)
    weights = bootstrap_weights(clusters, PSEUDO_WEIGHT, seed)
    worst, best = pseudo_scores(times, tau, weights)
    low, high = np.quantile(worst, TAIL), np.quantile(best, 1 - TAIL)
    return Interval(value, min(float(low), value), max(float(high), value))


def score_difference(
    first: Times,
    second: Times,
    tau: float,
    *,
    clusters: NDArray[np.intp],
    seed: int = 0,
) -> Interval:
    """Difference of the scores of paired replicas, first minus second.

    Both replicas of a pair get the weight of their cluster, so that effects of a
    structure, its temperature and its seed on both models cancel. As in
    :func:`score_interval`, a worst-case pseudo-cluster is added for each limit (first
    failed at once, second survived, or the other way round), so that two models without
    failures do not differ by 0 [0, 0]. This makes the interval wide if all replicas
    fail early; use the time ratio to compare such models.

    Args:
        first: of n replicas.
        second: of their partners, in the same order.
        tau: horizon of the scores, in the unit of the times.
        clusters: cluster label 0...k-1 of each pair, shape (n,).
        seed: seed of the bootstrap weights.
    """
    ones = np.ones((1, len(clusters)))
    weights = bootstrap_weights(clusters, PSEUDO_WEIGHT_DIFFERENCE, seed)
    scores = [float(restricted_mean(*side, tau, ones)[0]) for side in (first, second)]
    (worst_a, best_a), (worst_b, best_b) = (
        pseudo_scores(side, tau, weights) for side in (first, second)
    )
    value = scores[0] - scores[1]
    low = float(np.quantile(worst_a - best_b, TAIL))
    high = float(np.quantile(best_a - worst_b, 1 - TAIL))
    return Interval(value, min(low, value), max(high, value))


def bootstrap_weights(
    clusters: NDArray[np.intp], pseudo_weight: float, seed: int
) -> Array:
    """Weights in each resample, shape (N_BOOTSTRAP, n + 1).

    The n replicas have the weight of their cluster; the last column is the weight of
    the pseudo-cluster, ``pseudo_weight`` times a cluster's on average.
    """
    n_clusters = int(clusters.max()) + 1
    size = len(clusters) / n_clusters
    generator = np.random.default_rng(seed)
    weights = generator.standard_gamma(1.0, size=(N_BOOTSTRAP, n_clusters))
    share = generator.standard_gamma(pseudo_weight, size=(N_BOOTSTRAP, 1))
    # a cluster counts once for each of its replicas
    return np.hstack([weights[:, clusters], size * share])


def pseudo_scores(times: Times, tau: float, weights: Array) -> tuple[Array, Array]:
    """Resampled scores if the pseudo-cluster fails at once, and if it survives.

    ``weights`` are those of :func:`bootstrap_weights`; both results have one value per
    resample.
    """
    time, failed = times
    worst = restricted_mean(np.append(time, 0.0), np.append(failed, True), tau, weights)
    best = restricted_mean(np.append(time, tau), np.append(failed, False), tau, weights)
    return worst, best


def zero_failure_bound(n: int) -> float:
    """95 % lower bound on survival if none of n replicas failed: 0.05^(1/n)."""
    return float((1 - CONFIDENCE) ** (1 / n)) if n else 0.0
