"""Stability of a model: survival curve, score and hazard, with intervals.

Times are right-censored: a replica that reached the horizon, or was interrupted, has
survived *at least* that long. The Kaplan-Meier estimate is scipy's.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

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
from nequip_decorr.md.statistics.times import event_table, follow_up, not_followed
from nequip_decorr.wording import counted

#: What a reader must know where events of the other kind ended replicas.
_NOT_FOLLOWED = {
    "unphysical": "{n} exploded before the geometry became unphysical: censored there",
    "explosion": "{n} not followed beyond an unphysical geometry: censored there, so "
    "later explosions are unknown",
    "not_followed": "{n} rejudged under looser limits than those that ended the run: "
    "censored there, so what came after is unknown",
}


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
    """How long a model goes without an event of one kind, from a set of replicas.

    Attributes:
        kind: kind of event, one of :data:`nequip_decorr.md.results.KINDS`. Below,
            "failed" means having had such an event.
        n_replicas: replicas that were started.
        n_structures: different start structures among them.
        n_failures: replicas that failed.
        n_not_followed: replicas censored where an event of the other kind ended them.
        n_lost: replicas censored before the horizon for any other reason.
        horizon_ps: the protocol's horizon.
        tau_ps: time up to which score and survival are evaluated: the horizon, or the
            longest follow-up if that ends earlier and not by a failure.
        score: restricted mean survival time / ``tau_ps``, in [0, 1].
        resampled: ``structures`` or ``replicas``: the clusters of the bootstrap.
        survival_at_tau: Kaplan-Meier survival at ``tau_ps``.
        median_ps: time at which half have failed; None if not reached.
        hazard_upper_per_ps: one-sided 95 % upper bound on failures / total time; None
            if the total time is zero.
        hazard_upper_per_atom_ps: the same for failures / total of (time x atoms), in
            1/(atom ps).
        causes: failures by cause.
        censored: replicas without failure, by the reason why they stopped (the kind of
            event if the other kind ended them).
        curve: the Kaplan-Meier curve.
        times_ps: when the replicas failed or were censored, sorted.
        notes: caveats for reading the numbers, one sentence each.
    """

    kind: str
    n_replicas: int
    n_structures: int
    n_failures: int
    n_not_followed: int
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

    @property
    def known(self) -> bool:
        """Whether the estimates mean anything: the replicas were followed far enough.

        Censoring must be independent of the event. An unphysical geometry that ended a
        replica is not independent of its explosion, nor is what ended it under limits
        that were replaced by looser ones.
        """
        if self.kind == "explosion" or "not_followed" in self.censored:
            return self.n_not_followed == 0
        return self.n_not_followed < self.n_replicas


def estimate_survival(
    replicas: Sequence[Replica],
    horizon_ps: float,
    kind: str,
) -> Survival:
    """Summarise replicas: score, S(tau), median, hazard, causes (see `Survival`).

    Args:
        replicas: replicas of one run, or of one of its temperatures.
        horizon_ps: time after which a survivor is censored, ps.
        kind: kind of event, one of :data:`nequip_decorr.md.results.KINDS`.

    Raises:
        UserError: no replica, or a horizon or a time that is no finite number >= 0.
    """
    times = event_table(replicas, horizon_ps, kind)
    time, failed = times
    clusters, resampled = cluster_labels(replicas)
    tau = follow_up(times, horizon_ps)
    atoms = np.array([r.n_atoms for r in replicas], dtype=float)
    early = ~failed & (time < horizon_ps)
    causes, censored = Counter[str](), Counter[str]()
    for replica, happened, stopped in zip(replicas, failed, early, strict=True):
        event = replica.event(kind)
        if event is not None and happened:
            causes[event.cause] += 1
        else:
            censored[_why_censored(replica) if stopped else "horizon"] += 1
    n_not_followed = int(not_followed(replicas, horizon_ps, kind).sum())
    n_failures = int(failed.sum())
    result = Survival(
        kind=kind,
        n_replicas=len(replicas),
        n_structures=len({r.structure for r in replicas}),
        n_failures=n_failures,
        n_not_followed=n_not_followed,
        n_lost=int(early.sum()) - n_not_followed,
        horizon_ps=horizon_ps,
        tau_ps=tau,
        score=score_interval(times, tau, clusters=clusters),
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

    If no replica was censored before ``at``, survival is a binomial proportion and the
    interval is the exact one of Clopper and Pearson. If none (or all) have failed, one
    limit is trivial and the other is the exact one-sided bound ``0.05^(1/n)`` (or
    ``1 - 0.05^(1/n)``). After
    censoring, the interval is Greenwood's on the log-log scale (``scipy.stats.ecdf``).
    Replicas are treated as independent; clustering by structure enters only the score's
    interval.
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
    """One-sided 95 % upper bound on failures per exposure.

    It is ``chi2_{0.95, 2d+2} / (2 T)`` for d failures in exposure T, exact for a
    constant hazard; with d = 0 it is about 3 / T. None without exposure.
    """
    if not exposure > 0:
        return None
    return float(stats.chi2.ppf(CONFIDENCE, 2 * n_failures + 2) / (2 * exposure))


def describe_score(survival: Survival) -> str:
    """The headline in words: score and interval, or the bound without failures."""
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
    share = "more than 99" if score.value > 0.99 else f"{100 * score.value:.0f}"
    return (
        f"score {score.value:.2f} [{score.low:.2f}, {score.high:.2f}]: on average a "
        f"replica survived {share} % of {survival.tau_ps:g} ps; "
        f"{survival.n_failures} of {survival.n_replicas} failed"
    )


def survival_by_temperature(
    replicas: Sequence[Replica], horizon_ps: float, kind: str
) -> dict[float, Survival]:
    """:func:`estimate_survival` of each temperature (K), coldest first."""
    return {
        kelvin: estimate_survival(
            [r for r in replicas if r.temperature_K == kelvin], horizon_ps, kind
        )
        for kelvin in sorted({r.temperature_K for r in replicas})
    }


def _clustered(result: Survival) -> bool:
    """Whether the score's interval resamples clusters of several replicas."""
    return result.resampled == "structures" and result.n_structures < result.n_replicas


def _why_censored(replica: Replica) -> str:
    if replica.censored_by is not None or replica.first is None:
        return replica.censored_by or "unknown"
    return replica.first.kind


def _notes(result: Survival) -> tuple[str, ...]:
    notes = list(_unfollowed(result))
    if not result.known:
        return tuple(notes)
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
            f"{counted(result.n_structures, 'start structure')} (fewer than "
            f"{MIN_STRUCTURES}) it cannot cover the choice of structures"
        )
    elif _clustered(result):
        notes.append(
            "S(tau), its interval and the hazard count replicas as independent; the "
            "score's interval resamples whole structures"
        )
    return tuple(notes)


def _unfollowed(result: Survival) -> Iterator[str]:
    """Notes on replicas that ended before an event of this kind could happen."""
    n_wider = result.censored.get("not_followed", 0)
    if result.n_not_followed > n_wider:
        n_other = result.n_not_followed - n_wider
        yield _NOT_FOLLOWED[result.kind].format(n=n_other)
    if n_wider:
        yield _NOT_FOLLOWED["not_followed"].format(n=n_wider)


def _ecdf(time: Array, failed: NDArray[np.bool_]) -> Any:
    data = stats.CensoredData(uncensored=time[failed], right=time[~failed])
    return stats.ecdf(data).sf
