"""Stability of a model: survival curve, score and hazard with their intervals.

Times are right-censored: a replica that reached the horizon, or was interrupted, has
survived *at least* that long. scipy does the Kaplan-Meier estimate.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from nequip_decorr.errors import UserError
from nequip_decorr.md.frames import Array
from nequip_decorr.md.results import Replica
from nequip_decorr.md.statistics.score import (
    CONFIDENCE,
    MIN_STRUCTURES,
    Interval,
    cluster_labels,
    score_interval,
    zero_failure_bound,
)


@dataclass(frozen=True)
class Curve:
    """Kaplan-Meier curve as steps: ``survival[i]`` applies from ``time_ps[i]`` on.

    The first point is time zero, the last the end of the follow-up; ``low`` and
    ``high`` are pointwise 95 % limits (:func:`survival_interval`), ``at_risk`` the
    replicas still running just before ``time_ps[i]``.
    """

    time_ps: tuple[float, ...]
    survival: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    at_risk: tuple[int, ...]


@dataclass(frozen=True)
class Survival:
    """Stability of a model, estimated from a set of replicas.

    Attributes:
        n_replicas: replicas that were started.
        n_structures: different starting structures among them.
        n_failures: replicas that failed.
        n_lost: replicas censored before the horizon without a failure.
        horizon_ps: the protocol's horizon.
        tau_ps: the time up to which score and survival are taken: the horizon, or the
            longest follow-up when no replica was followed that far.
        score: restricted mean survival time / ``tau_ps``, in [0, 1].
        resampled: ``structures`` or ``replicas``: the clusters of the bootstrap.
        survival_at_tau: Kaplan-Meier survival at ``tau_ps``.
        median_ps: time at which half have failed; None when that was not reached.
        hazard_upper_per_ps: one-sided 95 % upper bound of failures / total time; None
            when the total time is zero.
        hazard_upper_per_atom_ps: that of failures / total of (time x atoms), in
            1/(atom ps).
        causes: failures by cause.
        censored: replicas without failure by the reason for which they stopped.
        curve: the Kaplan-Meier curve.
        times_ps: when the replicas failed or were censored, sorted.
        notes: what a reader must know to read the numbers, one sentence each.
    """

    n_replicas: int
    n_structures: int
    n_failures: int
    n_lost: int
    horizon_ps: float
    tau_ps: float
    score: Interval
    resampled: str
    survival_at_tau: Interval
    median_ps: float | None
    hazard_upper_per_ps: float | None
    hazard_upper_per_atom_ps: float | None
    causes: dict[str, int]
    censored: dict[str, int]
    curve: Curve
    times_ps: tuple[float, ...]
    notes: tuple[str, ...]


def estimate_survival(
    replicas: Sequence[Replica],
    horizon_ps: float,
    *,
    seed: int = 0,
) -> Survival:
    """Summarise replicas: score, S(tau), median, hazard, causes (see `Survival`).

    Args:
        replicas: the replicas of one run, or of one of its temperatures.
        horizon_ps: time after which a survivor is censored, ps.
        seed: seed of the bootstrap; the same seed gives the same interval.

    Raises:
        UserError: no replica, or a horizon or a time that is no finite number >= 0.
    """
    time, failed = event_table(replicas, horizon_ps)
    clusters, resampled = cluster_labels(replicas)
    tau = follow_up(time, failed, horizon_ps)
    atoms = np.array([r.n_atoms for r in replicas], dtype=float)
    causes = Counter(r.failure.cause for r in replicas if r.failure is not None)
    censored = Counter(r.censored_by or "unknown" for r in replicas if not r.failed)
    n_failures = int(failed.sum())
    result = Survival(
        n_replicas=len(replicas),
        n_structures=len({r.structure for r in replicas}),
        n_failures=n_failures,
        n_lost=int((~failed & (time < horizon_ps)).sum()),
        horizon_ps=horizon_ps,
        tau_ps=tau,
        score=score_interval(time, failed, tau, clusters=clusters, seed=seed),
        resampled=resampled,
        survival_at_tau=survival_interval(time, failed, tau),
        median_ps=median_time(time, failed),
        hazard_upper_per_ps=hazard_bound(n_failures, float(time.sum())),
        hazard_upper_per_atom_ps=hazard_bound(n_failures, float((time * atoms).sum())),
        causes=dict(sorted(causes.items())),
        censored=dict(sorted(censored.items())),
        curve=kaplan_meier(time, failed, tau),
        times_ps=tuple(np.sort(time).tolist()),
        notes=(),
    )
    return replace(result, notes=_notes(result))


def event_table(
    replicas: Sequence[Replica], horizon_ps: float
) -> tuple[Array, NDArray[np.bool_]]:
    """Times (ps) and whether each ended in a failure, checked; both of shape (n,)."""
    if not 0 < horizon_ps < np.inf:
        raise UserError(f"expected a horizon > 0 ps, got {horizon_ps}")
    if not replicas:
        raise UserError("expected at least one replica, got none; run some first")
    time = np.array([r.time_ps for r in replicas], dtype=float)
    good = (time >= 0) & (time < np.inf)
    if not good.all():
        bad = replicas[int(np.argmin(good))]
        raise UserError(
            f"expected times >= 0 ps, got {bad.time_ps} in replica {bad.index}; the "
            "result file is damaged"
        )
    failed = np.array([r.failed for r in replicas], dtype=bool)
    # steps do not divide every horizon: the last one may end a hair before or after it
    near = np.abs(time - horizon_ps) <= 1e-9 * horizon_ps
    return np.where(near, horizon_ps, np.minimum(time, horizon_ps)), failed


def follow_up(time: Array, failed: NDArray[np.bool_], horizon_ps: float) -> float:
    """The time up to which the curve is known: the horizon, or the last censoring.

    When the longest-lived replica failed the curve is zero from there on, which is
    known up to the horizon.
    """
    last = float(time.max())
    all_failed = bool(failed[time == last].all())
    return horizon_ps if all_failed or last <= 0 else last


def kaplan_meier(time: Array, failed: NDArray[np.bool_], tau: float) -> Curve:
    """Kaplan-Meier curve up to ``tau`` with pointwise limits, by ``scipy.stats.ecdf``.

    Args:
        time: times of failure or censoring, shape (n,).
        failed: whether each is a failure, shape (n,).
        tau: end of the curve, in the unit of ``time``.
    """
    steps = np.unique(time[failed & (time <= tau)])
    steps = np.unique(np.concatenate([[0.0], steps, [tau]]))
    limits = [survival_interval(time, failed, float(t)) for t in steps]
    return Curve(
        time_ps=tuple(float(t) for t in steps),
        survival=tuple(i.value for i in limits),
        low=tuple(i.low for i in limits),
        high=tuple(i.high for i in limits),
        at_risk=tuple(int((time >= t).sum()) for t in steps),
    )


def survival_interval(time: Array, failed: NDArray[np.bool_], at: float) -> Interval:
    """Survival at one time with a 95 % interval.

    While nobody was censored before ``at``, survival is a binomial proportion and the
    interval is Clopper and Pearson's exact one; when nobody (or everybody) has failed
    the other limit is trivial and the exact one-sided bound ``0.05^(1/n)`` is given.
    After a censoring it is Greenwood's on the log-log scale (``scipy.stats.ecdf``).
    Replicas count as independent: a clustering by structure is not in this interval
    but in the score's.
    """
    lost = ~failed & (time < at)
    value = float(_ecdf(time, failed).evaluate(at))
    if lost.any() and 0 < value < 1:
        with warnings.catch_warnings():
            # scipy warns of the undefined limits before the first and after the last
            # failure; they are not those that are read here
            warnings.simplefilter("ignore", RuntimeWarning)
            limits = _ecdf(time, failed).confidence_interval(
                confidence_level=CONFIDENCE, method="log-log"
            )
            low, high = (float(side.evaluate(at)) for side in (limits.low, limits.high))
        return Interval(value, low, high)
    # where Greenwood's variance is zero the replicas of known outcome give a bound
    n = int((~lost).sum())
    survivors = n - int((failed & (time <= at)).sum())
    if n == 0:
        return Interval(value, 0.0, 1.0)
    if survivors == n:
        return Interval(value, zero_failure_bound(n), 1.0)
    if survivors == 0:
        return Interval(value, 0.0, 1 - zero_failure_bound(n))
    exact = stats.binomtest(survivors, n).proportion_ci(CONFIDENCE, method="exact")
    return Interval(value, float(exact.low), float(exact.high))


def median_time(time: Array, failed: NDArray[np.bool_]) -> float | None:
    """First time at which the Kaplan-Meier curve is at or below 1/2, or None."""
    curve = _ecdf(time, failed)
    # the product may end a rounding error above one half
    below = np.flatnonzero(curve.probabilities <= 0.5 + 1e-12)
    return float(curve.quantiles[below[0]]) if len(below) else None


def hazard_bound(n_failures: int, exposure: float) -> float | None:
    """One-sided 95 % upper bound of failures per exposure.

    It is ``chi2_{0.95, 2d+2} / (2 T)`` for d failures in exposure T, exact for a
    constant hazard; with d = 0 it is about 3 / T. None without exposure.
    """
    if not exposure > 0:
        return None
    return float(stats.chi2.ppf(CONFIDENCE, 2 * n_failures + 2) / (2 * exposure))


def describe_score(survival: Survival) -> str:
    """The headline in words: score, interval, and what it was resampled over."""
    score = survival.score
    if survival.n_failures == 0 and _clustered(survival):
        return (
            f"no failure in {counted(survival.n_replicas, 'replica')} of "
            f"{survival.n_structures} structures over {survival.tau_ps:g} ps: with "
            f"95 % confidence the score is >= {score.low:.2f} (and "
            f"S({survival.tau_ps:g} ps) >= {survival.survival_at_tau.low:.2f} if "
            "replicas of one structure are independent)"
        )
    if survival.n_failures == 0:
        return (
            f"no failure in {counted(survival.n_replicas, 'replica')} over "
            f"{survival.tau_ps:g} ps: with 95 % confidence "
            f"S({survival.tau_ps:g} ps) >= {survival.survival_at_tau.low:.2f}"
        )
    return (
        f"score {score.value:.2f} [{score.low:.2f}, {score.high:.2f}]: on average a "
        f"replica survived {100 * score.value:.0f} % of {survival.tau_ps:g} ps; "
        f"{survival.n_failures} of {survival.n_replicas} failed"
    )


def counted(n: int, noun: str) -> str:
    """``1 replica``, ``2 replicas``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def survival_by_temperature(
    replicas: Sequence[Replica], horizon_ps: float
) -> dict[float, Survival]:
    """:func:`estimate_survival` of each temperature (K), coldest first."""
    return {
        kelvin: estimate_survival(
            [r for r in replicas if r.temperature_K == kelvin], horizon_ps
        )
        for kelvin in sorted({r.temperature_K for r in replicas})
    }


def _clustered(result: Survival) -> bool:
    """Whether the score's interval resamples clusters of several replicas."""
    return result.resampled == "structures" and result.n_structures < result.n_replicas


def _notes(result: Survival) -> tuple[str, ...]:
    notes = []
    if result.tau_ps < result.horizon_ps:
        notes.append(
            f"no replica was followed to the horizon of {result.horizon_ps:g} ps; "
            f"score and survival are those of the first {result.tau_ps:g} ps"
        )
    if result.n_lost:
        notes.append(
            f"{counted(result.n_lost, 'replica')} stopped before the horizon without "
            "a failure: censored there"
        )
    if result.n_failures == 0:
        notes.append(
            f"no failure in {counted(result.n_replicas, 'replica')} is a bound, not a "
            "proof: "
            f"S({result.tau_ps:g} ps) >= {result.survival_at_tau.low:.2f} "
            "(0.05^(1/n), 95 % confidence)"
        )
    if result.resampled == "replicas":
        notes.append(
            "the score's interval resamples replicas: from "
            f"{counted(result.n_structures, 'starting structure')} (fewer than "
            f"{MIN_STRUCTURES}) it cannot cover the choice of structures"
        )
    elif _clustered(result):
        notes.append(
            "S(tau), its interval and the hazard count replicas as independent; the "
            "score's interval resamples whole structures"
        )
    return tuple(notes)


def _ecdf(time: Array, failed: NDArray[np.bool_]) -> Any:
    data = stats.CensoredData(uncensored=time[failed], right=time[~failed])
    return stats.ecdf(data).sf
