"""The score, restricted mean survival time / horizon, and its clustered bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nequip_decorr.md.frames import Array
from nequip_decorr.md.results import Replica

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
N_BOOTSTRAP = 4000

#: With fewer starting structures than this, replicas are resampled instead: fewer
#: clusters do not say how much structures differ.
MIN_STRUCTURES = 6

#: Weight of the pseudo-replica of :func:`score_interval`: the ``a`` with
#: ``Gamma(a).ppf(0.975) == -log(0.05)``, for which the bootstrap of n survivors ends
#: at the bound ``0.05^(1/n)`` (up to terms of order 1/n^2).
PSEUDO_WEIGHT = 0.68974


@dataclass(frozen=True)
class Interval:
    """An estimate and its two-sided 95 % interval."""

    value: float
    low: float
    high: float


def cluster_labels(replicas: Sequence[Replica]) -> tuple[NDArray[np.intp], str]:
    """Cluster of each replica, shape (n,), and what the clusters are.

    Structures, when there are at least :data:`MIN_STRUCTURES`; else every replica is
    its own cluster.
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
        failed: whether each is a failure, shape (n,).
        tau: upper limit of the integral, in the unit of ``time``.
        weights: non-negative weights of the replicas, shape (m, n).

    Returns:
        Values in [0, 1], shape (m,). A curve that nobody is left to continue keeps
        its last value.
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
    time: Array,
    failed: NDArray[np.bool_],
    tau: float,
    *,
    clusters: NDArray[np.intp],
    seed: int = 0,
) -> Interval:
    """Restricted mean survival score with its clustered bootstrap interval.

    The bootstrap is Rubin's (Ann. Stat. 9, 130, 1981): clusters get Gamma(1) weights,
    normalised, instead of being drawn. To each limit's resamples is added a
    pseudo-replica at the worst case, which failed at once (lower limit) or never
    (upper), as in Learned-Miller and Thomas (arXiv:1905.06208). With weight one and no
    clusters this is Clopper-Pearson for 0/1 outcomes; here the weight is
    :data:`PSEUDO_WEIGHT` of a replica. The usual percentile bootstrap is not used
    because it cannot see a failure that has not happened yet: with 16 replicas and a
    hazard of 0.1/tau its 95 % interval covers in 70 % of cases (and is [1, 1] without
    a failure), this one in 98 %. With a few failures it covers in 97 to 98 % with 16
    replicas, in 94 to 97 % from 32 replicas or 8 structures of 4 on (simulated with
    known hazards, alike or Gamma distributed over the structures).

    Args:
        time: times of failure or censoring, shape (n,).
        failed: whether each is a failure, shape (n,).
        tau: horizon of the score, in the unit of ``time``.
        clusters: cluster label 0...k-1 of each replica, shape (n,).
        seed: seed of the bootstrap weights.
    """
    value = float(restricted_mean(time, failed, tau, np.ones((1, len(time))))[0])
    if not failed.any():
        # the score is at least S(tau), which those followed to the end alone bound
        ended = time >= tau
        time, failed = time[ended], failed[ended]
        labels, clusters = np.unique(clusters[ended], return_inverse=True)
        if len(labels) == len(clusters):
            # known in closed form where no two replicas share a cluster
            return Interval(value, zero_failure_bound(len(clusters)), 1.0)
    weights = bootstrap_weights(clusters, PSEUDO_WEIGHT, seed)
    worst, best = pseudo_scores(time, failed, tau, weights)
    low, high = np.quantile(worst, TAIL), np.quantile(best, 1 - TAIL)
    return Interval(value, min(float(low), value), max(float(high), value))


def bootstrap_weights(
    clusters: NDArray[np.intp], pseudo_weight: float, seed: int
) -> Array:
    """Weights in each resample, shape (N_BOOTSTRAP, n + 1).

    The n replicas have their cluster's weight; the last column is the pseudo-replica's,
    ``pseudo_weight`` times that of one replica on average.
    """
    n_clusters = int(clusters.max()) + 1
    size = len(clusters) / n_clusters
    generator = np.random.default_rng(seed)
    weights = generator.standard_gamma(1.0, size=(N_BOOTSTRAP, n_clusters))
    # a share of a cluster, in the weight of as many replicas as a cluster has
    share = generator.standard_gamma(pseudo_weight / size, size=(N_BOOTSTRAP, 1))
    return np.hstack([weights[:, clusters], size * share])


def pseudo_scores(
    time: Array, failed: NDArray[np.bool_], tau: float, weights: Array
) -> tuple[Array, Array]:
    """Resampled scores with the pseudo-replica failed at once, and with it surviving.

    ``weights`` are those of :func:`bootstrap_weights`; both results have one value per
    resample.
    """
    worst = restricted_mean(np.append(time, 0.0), np.append(failed, True), tau, weights)
    best = restricted_mean(np.append(time, tau), np.append(failed, False), tau, weights)
    return worst, best


def zero_failure_bound(n: int) -> float:
    """Smallest survival that n survivors of n do not exclude (95 %): 0.05^(1/n)."""
    return float((1 - CONFIDENCE) ** (1 / n)) if n else 0.0
