"""Which of two models is more stable, and how certain that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nequip_decorr.md.results import KINDS, Replica, RunResult
from nequip_decorr.md.statistics.pairing import pair_replicas
from nequip_decorr.md.statistics.score import (
    Interval,
    cluster_labels,
    score_difference,
)
from nequip_decorr.md.statistics.time_ratio import TimeRatio, time_ratio
from nequip_decorr.md.statistics.times import (
    PairedTimes,
    event_table,
    first_events,
    follow_up,
    not_followed,
)
from nequip_decorr.md.statistics.verdict import agreement, doubts, verdict
from nequip_decorr.md.statistics.wording import ratio_words
from nequip_decorr.wording import counted

Pairs = Sequence[tuple[Replica, Replica]]


@dataclass(frozen=True)
class Effect:
    """Difference between two models in the times of one kind of event.

    Attributes:
        n_pairs: pairs of replicas.
        n_structures: different start structures among them.
        failures: replicas of the first and of the second that had the event.
        ratio: ratio of the times to the event, first / second.
        tau_ps: time up to which the scores are evaluated: the horizon, or the time for
            which both runs were followed.
        difference: difference of the scores, first minus second, with its paired,
            clustered bootstrap interval.
    """

    n_pairs: int
    n_structures: int
    failures: tuple[int, int]
    ratio: TimeRatio
    tau_ps: float
    difference: Interval


@dataclass(frozen=True)
class KindComparison:
    """Comparison of two runs for one kind of event.

    Attributes:
        kind: one of :data:`nequip_decorr.md.results.KINDS`.
        failures: replicas of the first and of the second that had the event.
        not_followed: replicas of the first and of the second that the other kind of
            event ended first.
        overall: effect over all pairs; None if this kind was not followed.
        by_temperature: effect at each temperature, K; empty if this kind was not
            followed.
        longer: 0 or 1 for the model that is shown to last longer, else None.
        verdict: the result in words, no stronger than the interval of the time ratio.
        notes: caveats for reading the numbers.
    """

    kind: str
    failures: tuple[int, int]
    not_followed: tuple[int, int]
    overall: Effect | None
    by_temperature: dict[float, Effect]
    longer: int | None
    verdict: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Comparison of two runs, paired replica by replica.

    Attributes:
        names: names of the first and the second run.
        n_pairs: replicas of the same structure, temperature and seed in both.
        unpaired: replicas of the first and of the second run without a partner; they
            are not used.
        kinds: the comparison for each kind of event.
        agreement: how the verdicts for the two kinds differ, in words, or None.
        notes: caveats about the pairs.
    """

    names: tuple[str, str]
    n_pairs: int
    unpaired: tuple[int, int]
    kinds: dict[str, KindComparison]
    agreement: str | None
    notes: tuple[str, ...]


def compare_runs(
    first: RunResult,
    second: RunResult,
    names: tuple[str, str] = ("A", "B"),
) -> Comparison:
    """Compare two runs of the same protocol on the replicas that both contain.

    Args:
        first: a run; a time ratio above one means that it is more stable.
        second: another run.
        names: names of both runs, for messages and verdict.

    Raises:
        UserError: the runs cannot be paired, see
            :func:`~nequip_decorr.md.statistics.pairing.pair_replicas`.
    """
    pairs = pair_replicas(first, second, names)
    horizon, step = first.horizon_ps, first.timestep_fs / 1000
    kinds = {kind: compare_kind(pairs, kind, names, horizon, step) for kind in KINDS}
    longer = {
        kind: found.longer
        for kind, found in kinds.items()
        if found.overall is not None and any(found.failures)
    }
    return Comparison(
        names=names,
        n_pairs=len(pairs),
        unpaired=(len(first.replicas) - len(pairs), len(second.replicas) - len(pairs)),
        kinds=kinds,
        agreement=agreement(longer, names),
        notes=(
            *_side_notes(first, len(pairs), names[0]),
            *_side_notes(second, len(pairs), names[1]),
            *_name_notes(pairs),
        ),
    )


def compare_kind(
    pairs: Pairs,
    kind: str,
    names: tuple[str, str],
    horizon_ps: float,
    step_ps: float,
) -> KindComparison:
    """Compare paired replicas for one kind of event.

    Censoring must be independent of the event, and an event of the other kind is not.
    So there is no verdict on explosions if an unphysical geometry ended a replica: an
    explosion would probably have followed. If an explosion ended a replica first, there
    is a verdict on the geometry only if counting explosions as failures too names the
    same winner, or none.
    """
    sides = [[pair[i] for pair in pairs] for i in (0, 1)]
    failed = [event_table(side, horizon_ps, kind).failed for side in sides]
    unknown = [not_followed(side, horizon_ps, kind) for side in sides]
    failures = int(failed[0].sum()), int(failed[1].sum())
    ended = int(unknown[0].sum()), int(unknown[1].sum())
    wider = any(
        r.censored_by == "not_followed" and r.event(kind) is None
        for side in sides
        for r in side
    )
    if sum(ended) and (kind == "explosion" or wider):
        said = _not_followed(failures, ended, names, wider)
        return KindComparison(kind, failures, ended, None, {}, None, said, ())
    overall = measure_effect(pairs, kind, horizon_ps, step_ps)
    by_temperature = {
        kelvin: measure_effect(
            [pair for pair in pairs if pair[0].temperature_K == kelvin],
            kind,
            horizon_ps,
            step_ps,
        )
        for kelvin in sorted({a.temperature_K for a, _ in pairs})
    }
    longer, notes = overall.ratio.longer, doubts(overall.ratio)
    said = verdict(overall.ratio, failures, names)
    if sum(ended):
        times = paired_times(pairs, kind, horizon_ps, step_ps)
        either = time_ratio(first_events(times, unknown))
        notes.append(
            "with explosions counted as failures too, the time ratio is "
            f"{ratio_words(either)}"
        )
        if either.longer != longer:
            longer = None
            said = (
                f"no verdict: {ended[0]} of {names[0]} and {ended[1]} of {names[1]} "
                "exploded before the geometry became unphysical, and counting these "
                "as failures too changes the result"
            )
    return KindComparison(
        kind=kind,
        failures=failures,
        not_followed=ended,
        overall=overall,
        by_temperature=by_temperature,
        longer=longer,
        verdict=said,
        notes=(*notes, *_censoring_notes(overall, ended, horizon_ps, names)),
    )


def paired_times(
    pairs: Pairs, kind: str, horizon_ps: float, step_ps: float
) -> PairedTimes:
    """Times to one kind of event, of both models."""
    sides = [[pair[i] for pair in pairs] for i in (0, 1)]
    return PairedTimes(
        event_table(sides[0], horizon_ps, kind),
        event_table(sides[1], horizon_ps, kind),
        unit=np.unique([r.structure for r in sides[0]], return_inverse=True)[1],
        stratum=np.unique([r.temperature_K for r in sides[0]], return_inverse=True)[1],
        horizon=horizon_ps,
        step=step_ps,
    )


def measure_effect(
    pairs: Pairs, kind: str, horizon_ps: float, step_ps: float
) -> Effect:
    """Time ratio and score difference of paired replicas."""
    times = paired_times(pairs, kind, horizon_ps, step_ps)
    tau = min(follow_up(side, horizon_ps) for side in times.sides)
    clusters = cluster_labels([first for first, _ in pairs])[0]
    return Effect(
        n_pairs=len(pairs),
        n_structures=int(times.unit.max()) + 1,
        failures=(int(times.first.failed.sum()), int(times.second.failed.sum())),
        ratio=time_ratio(times),
        tau_ps=tau,
        difference=score_difference(*times.sides, tau, clusters=clusters),
    )


def _not_followed(
    failures: tuple[int, int],
    ended: tuple[int, int],
    names: tuple[str, str],
    wider: bool,
) -> str:
    n_failed, n_ended = (
        f"{a} of {names[0]} and {b} of {names[1]}" for a, b in (failures, ended)
    )
    if wider:
        return (
            f"not followed: {n_failed} had an event, and {n_ended} were stopped before "
            "the looser limits were reached; run md with these limits to compare"
        )
    stopped = " and ".join(name for name, n in zip(names, ended, strict=True) if n)
    return (
        f"not followed: {n_failed} exploded, and an unphysical geometry ended "
        f"{n_ended} first; run md with --until explosion for {stopped} to compare"
    )


def _side_notes(run: RunResult, n_used: int, name: str) -> list[str]:
    notes = []
    if len(run.replicas) > n_used:
        unused = counted(len(run.replicas) - n_used, "replica")
        notes.append(f"{unused} of {name} without a partner: not used")
    if not run.complete and run.source is None:
        notes.append(f"{name} is not complete: rerun the same command to resume")
    elif not run.complete:
        notes.append(f"{name} is not complete: some of its runs had no frames")
    return notes


def _name_notes(pairs: Pairs) -> list[str]:
    if any(
        a.structure_name != b.structure_name
        and None in (a.structure_sha256, b.structure_sha256)
        for a, b in pairs
    ):
        return [
            "the start structures have different names in the two runs: make sure "
            "that they are the same"
        ]
    return []


def _censoring_notes(
    overall: Effect, ended: tuple[int, int], horizon_ps: float, names: tuple[str, str]
) -> list[str]:
    notes = [
        f"{counted(n, 'replica')} of {name} exploded before the geometry became "
        "unphysical: censored there"
        for n, name in zip(ended, names, strict=True)
        if n
    ]
    if overall.tau_ps < horizon_ps:
        notes.append(
            f"not followed to the horizon of {horizon_ps:g} ps: compared over the "
            f"first {overall.tau_ps:g} ps"
        )
    return notes
