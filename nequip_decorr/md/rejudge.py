"""Rejudges finished replicas under other limits, without rerunning anything.

The result is exactly that of a run with these limits, because the tests of a run keep
the extreme values they saw (:mod:`nequip_decorr.md.criteria.extremes`). Nothing is
known about what comes after the event that ended a run: if it no longer counts under
the new limits, the replica is censored there as ``not_followed``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from nequip_decorr.errors import UserError
from nequip_decorr.md import results
from nequip_decorr.md.arrays import read_arrays
from nequip_decorr.md.criteria.extremes import TRACED_RATIO, Extremes
from nequip_decorr.md.criteria.heat import Heat
from nequip_decorr.md.criteria.monitor import LARGEST, longest_ways
from nequip_decorr.md.criteria.violation import (
    Names,
    Violation,
    too_close,
    too_far,
    too_strong,
)
from nequip_decorr.md.criteria.warmth import warmth
from nequip_decorr.md.protocol import Protocol, degrees_of_freedom
from nequip_decorr.md.running.folder import extremes_path
from nequip_decorr.md.running.replica import as_event

#: Limits of tests whose outcome a run keeps, but not what they saw.
FIXED = ("max_bond_deviation_A", "bond_confirm_fs", "fragment_ratio", "isolation_ratio")

#: The order of the tests within a step. Positions come before the model is called.
_PLACES, _WAY, _MODEL, _FORCE, _OVERLAP, _TOO_HOT, _HOT_ATOM, _HOT, _BONDS = range(9)


class Found(NamedTuple):
    """An event under the new limits: its step, the order of its test, and the event."""

    step: int
    test: int
    event: results.Event


def rejudge(
    result: results.RunResult, result_path: Path, limits: Mapping[str, Any]
) -> results.RunResult:
    """The result that a run would have had under other limits.

    Args:
        result: the run, finished or not.
        result_path: its result file, beside which the extreme values are stored.
        limits: names and values of :class:`~nequip_decorr.md.protocol.Criteria`.

    Raises:
        UserError: if a limit does not exist or is invalid, its test cannot be repeated,
            a start structure violates it, or the run did not keep its extreme values.
    """
    before = Protocol.from_dict(result.protocol)
    protocol = Protocol.from_dict({"criteria": dict(limits)}, base=before)
    _check_known(before, protocol)
    replicas = tuple(
        rejudge_replica(replica, seen_by_tests(result_path, replica), protocol)
        for replica in result.replicas
    )
    return replace(
        result,
        protocol=result.protocol | {"criteria": protocol.to_dict()["criteria"]},
        machine=result.machine | {"rejudged_from": str(result_path)},
        replicas=replicas,
        fidelity=None,
    )


def rejudge_replica(
    replica: results.Replica, seen: Extremes, protocol: Protocol
) -> results.Replica:
    """A replica as it would have ended under another protocol's criteria.

    Raises:
        UserError: its start structure would have been refused, or what its tests saw
            is older than the result.
    """
    # an event may have ended the step after the last whole one
    if protocol.time_ps(seen.last_step + 1) < replica.time_ps:
        raise UserError(
            f"the recorded extremes of replica {replica.index} end at step "
            f"{seen.last_step}, before its {replica.time_ps:g} ps: the run is still "
            "going or was killed; rerun its command to the end, then rejudge"
        )
    found = sorted(
        _found(replica, seen, protocol), key=lambda each: (each.step, each.test)
    )
    for each in found:
        if each.event.cause == "overlap" and each.step == 0:
            raise UserError(
                f"expected a limit that the start structures satisfy, got min_distance_"
                f"ratio {protocol.criteria.min_distance_ratio:g}, which "
                f"{replica.structure_name} violates ({each.event.message}); lower it"
            )
    happened: dict[str, results.Event] = {}
    for each in found:
        kind = each.event.kind
        happened.setdefault(kind, each.event)
        if kind == "explosion" or protocol.until == "first":
            return _ended(replica, happened, each.event)
    if replica.censored_by is not None:
        return replace(replica, **_both(happened))
    return replace(
        replica,
        **_both(happened),
        time_ps=protocol.time_ps(seen.last_step),
        censored_by="not_followed",
    )


def _check_known(before: Protocol, now: Protocol) -> None:
    for name in FIXED:
        old, new = getattr(before.criteria, name), getattr(now.criteria, name)
        if old != new:
            raise UserError(
                f"expected criteria.{name} as in the run ({old}), got {new}: retesting "
                "it needs all positions; run `nequip-decorr md` with this limit"
            )
    ratio = now.criteria.min_distance_ratio
    widest = max(TRACED_RATIO, before.criteria.min_distance_ratio or 0.0)
    if ratio is not None and ratio > widest:
        raise UserError(
            f"expected criteria.min_distance_ratio <= {widest:g}, got {ratio:g}: "
            "larger distances are not kept; run `nequip-decorr md` with this limit"
        )


def seen_by_tests(result_path: Path, replica: results.Replica) -> Extremes:
    """Extreme values of a replica, from the file beside its run's result.

    Raises:
        UserError: if the file is missing or cannot be read.
    """
    path = extremes_path(result_path, replica.index)
    arrays = read_arrays(path)
    if arrays is None:
        raise UserError(
            f"expected the extremes of replica {replica.index} in {path}, got no "
            "readable file; rejudge the folder of a run that this version made"
        )
    return Extremes.from_arrays(arrays)


def _found(
    replica: results.Replica, seen: Extremes, protocol: Protocol
) -> Iterator[Found]:
    """The first event by each test."""
    criteria = protocol.criteria
    names = Names(Atoms(seen.numbers))
    heat = Heat(
        criteria,
        names,
        timestep_fs=protocol.timestep_fs,
        degrees_of_freedom=degrees_of_freedom(len(seen.numbers), protocol.ensemble),
        warmth=warmth(protocol, replica.temperature_K, seen.start_excess_K),
    )

    def event(step: int, test: int, violation: Violation) -> Found:
        return Found(step, test, _same(replica, as_event(violation, step, protocol)))

    ways_A = longest_ways(
        seen.masses,
        protocol.timestep_fs,
        criteria.max_displacement_A,
        heat.largest_kinetic_energy_eV(),
    )
    squares_A2 = ways_A**2
    far = [row for row in seen.way if not row[2] <= squares_A2[row[1]]]
    if far:
        step = far[0][0]
        _, atom, square = max(
            (row for row in far if row[0] == step),
            key=lambda row: row[2] / squares_A2[row[1]],
        )
        violation = too_far(names, atom, square, float(ways_A[atom]))
        yield event(step, _WAY, violation)
    limit = criteria.max_force_eV_per_A or LARGEST
    for step, atom, square in seen.force:
        if not square <= limit**2:
            yield event(step, _FORCE, too_strong(names, atom, square, limit))
            break
    ratio = criteria.min_distance_ratio or 0.0
    for step, i, j, distance_A in seen.distance:
        limit_A = ratio * float(covalent_radii[seen.numbers[[i, j]]].sum())
        if distance_A < limit_A:
            yield event(step, _OVERLAP, too_close(names, (i, j), distance_A, limit_A))
            break
    for step, test, violation in _heat(seen, heat, protocol, replica.temperature_K):
        yield event(step, test, violation)
    if seen.dissociation is not None:
        step, violation = seen.dissociation
        yield event(step, _BONDS, violation)
    fixed = replica.explosion
    if fixed is not None and fixed.cause in ("nonfinite", "exception"):
        # positions that are not finite have ended their step before the model's turn
        in_step = fixed.cause == "exception" or fixed.step <= seen.last_step
        yield Found(fixed.step, _MODEL if in_step else _PLACES, fixed)


def _heat(
    seen: Extremes, heat: Heat, protocol: Protocol, start_K: float
) -> Iterator[tuple[int, int, Violation]]:
    """The first violation of each heat test."""
    temperatures_K = np.array(seen.temperature_K)
    limit_K = protocol.criteria.max_temperature_K
    if limit_K is not None:
        for step in np.flatnonzero(~(temperatures_K <= limit_K))[:1].tolist():
            violation = heat.too_hot(float(temperatures_K[step]))
            if violation is not None:
                yield step, _TOO_HOT, violation
    for step, atom, energy_eV in seen.kinetic:
        violation = heat.hot_atom(atom, energy_eV, step)
        if violation is not None:
            yield step, _HOT_ATOM, violation
            break
    if protocol.criteria.runaway_sigma is None:
        return
    # no limit is below that of the coldest target (up to rounding), and few steps are
    # above that: the limit itself is asked for these alone
    dof = degrees_of_freedom(len(seen.numbers), protocol.ensemble)
    coldest_K = min(start_K, protocol.ramp_end_temperature_K or start_K)
    least_K = coldest_K * (1 + protocol.criteria.runaway_sigma * math.sqrt(2 / dof))
    warm = np.flatnonzero(~(temperatures_K <= 0.999 * least_K)).tolist()
    for before, step in pairwise([-1, *warm]):
        if step > before + 1:
            heat.hot_since = -1
        violation = heat.hot_for_long(float(temperatures_K[step]), step)
        if violation is not None:
            yield step, _HOT, violation
            break


def _same(replica: results.Replica, event: results.Event) -> results.Event:
    """The run's own event if it is this one, with its frame and possibly a repeat."""
    own = replica.event(event.kind)
    if own is None:
        return event
    kept = replace(
        event,
        last_good_frame=own.last_good_frame,
        half_step_time_ps=own.half_step_time_ps,
        half_step_cause=own.half_step_cause,
    )
    return own if kept == own else event


def _both(happened: Mapping[str, results.Event]) -> dict[str, Any]:
    return {kind: happened.get(kind) for kind in results.KINDS}


def _ended(
    replica: results.Replica,
    happened: Mapping[str, results.Event],
    last: results.Event,
) -> results.Replica:
    trace = replica.trace
    kept = sum(time_ps < last.time_ps for time_ps in trace.time_ps)
    cut = {item.name: getattr(trace, item.name)[:kept] for item in fields(trace)}
    return replace(
        replica,
        **_both(happened),
        time_ps=last.time_ps,
        censored_by=None,
        trace=results.Trace(**cut),
    )
