"""Plans of replicas before judging: names, structures, and checked first frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nequip_decorr.errors import UserError
from nequip_decorr.md.protocol import Protocol, degrees_of_freedom
from nequip_decorr.md.trajectories.first_frame import check_temperature
from nequip_decorr.md.trajectories.judging import (
    Judge,
    reference_warmth,
    temperature_of,
)
from nequip_decorr.md.trajectories.opening import Opened
from nequip_decorr.md.trajectories.snapshot import Warn

#: Positions that agree to so many decimals are one start structure: LAMMPS dumps six
#: digits.
DECIMALS = 3


@dataclass(frozen=True)
class Plan:
    """A replica before it is judged; names as in :class:`results.Replica`."""

    opened: Opened
    structure: int
    structure_name: str
    temperature_K: float
    seed: int
    structure_sha256: str | None = None
    name: str | None = None


def planned(opened: Opened) -> Plan:
    """Plan of a replica from ``replicas.json``."""
    plan = opened.source.plan or {}
    return Plan(
        opened,
        structure=int(plan["structure"]),
        structure_name=str(plan["structure_name"]),
        temperature_K=float(plan["temperature_K"]),
        seed=int(plan["seed"]),
        structure_sha256=plan.get("structure_sha256"),
    )


def plan_all(
    opened: Sequence[Opened],
    names: Sequence[str],
    temperature_K: float,
    n_structures: int | None,
    note: Warn,
) -> list[Plan]:
    """Plans of all replicas, with the structures from which they started.

    Args:
        opened: replicas with frames.
        names: names of all replicas, also of those without frames, in their order.
        temperature_K: target temperature.
        n_structures: number of structures from which they started; None to determine
            it from the first frames.
        note: called with what the user should know.
    """
    structures = _structures(opened, names, n_structures, note)
    seen: Counter[int] = Counter()
    plans = []
    for replica, structure in zip(opened, structures, strict=True):
        name = replica.source.name
        seed = seen[structure]
        plans.append(Plan(replica, structure, name, temperature_K, seed, name=name))
        seen[structure] += 1
    return plans


def _structures(
    opened: Sequence[Opened],
    names: Sequence[str],
    n_structures: int | None,
    note: Warn,
) -> list[int]:
    """Index of each replica's start structure."""
    if n_structures is not None:
        n = len(names)
        if n_structures < 1 or n % n_structures:
            raise UserError(
                f"expected a number of structures that divides the {n} replicas, got "
                f"{n_structures}; give another --structures"
            )
        each = n // n_structures
        return [names.index(replica.source.name) // each for replica in opened]
    numbers: dict[bytes, int] = {}
    found = []
    for replica in opened:
        positions = np.round(replica.first.positions_A, DECIMALS) + 0.0
        key = replica.first.numbers.tobytes() + positions.tobytes()
        found.append(numbers.setdefault(key, len(numbers)))
    if len(numbers) == len(opened) > 1:
        note(
            "all first frames differ, so each replica counts as a separate start "
            "structure; if several started from the same one, give --structures N"
        )
    return found


def check_start(plan: Plan, protocol: Protocol, *, sound: bool) -> None:
    """Refuse a first frame in wrong units or (``sound``) with a violation."""
    opened = plan.opened
    first, path = opened.first, opened.source.path
    dof = degrees_of_freedom(len(opened.start), protocol.ensemble)
    kelvin = temperature_of(first, dof)
    if kelvin is not None and np.isfinite(kelvin):
        check_temperature(kelvin, plan.temperature_K, str(path), opened.units)
    if not sound:
        return
    warmth = reference_warmth(protocol, plan.temperature_K, len(opened.start), first)
    judge = Judge(
        opened.start, protocol, warmth, interval_steps=opened.interval_steps or 1
    )
    judge(first, 0)
    if judge.events:
        (event, *_) = judge.events.values()
        raise UserError(
            f"expected a first frame without violations, as the reference, got "
            f"{event.violation.message} in {path}; give the structure that the run "
            "started from (--start FILE) or looser limits (--protocol FILE)"
        )
