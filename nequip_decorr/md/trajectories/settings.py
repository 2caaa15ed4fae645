"""The protocol of trajectories, from options, files and logs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nequip_decorr.errors import UserError
from nequip_decorr.md.protocol import Protocol
from nequip_decorr.md.trajectories.layout import REPLICAS_NAME
from nequip_decorr.md.trajectories.opening import Opened, Reading

#: Time steps closer than this are the same.
RTOL = 1e-6


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        paths: files, or folders of replicas.
        reading: settings for reading files.
        protocol: criteria and ensemble, and whatever ``given`` names.
        given: protocol fields set by the user.
        n_structures: number of structures from which the replicas started; None to
            determine it from the first frames.
    """

    paths: tuple[Path, ...]
    reading: Reading = field(default_factory=Reading)
    protocol: Protocol = field(default_factory=Protocol)
    given: frozenset[str] = frozenset()
    n_structures: int | None = None


@dataclass(frozen=True)
class Settled:
    """The protocol of all replicas; its horizon is used if ``horizon_given``.

    Trajectories are followed beyond an unphysical geometry, unless the user asked
    otherwise.
    """

    protocol: Protocol
    horizon_given: bool


def settle(
    request: Request, written: Mapping[str, Any] | None, opened: Sequence[Opened]
) -> Settled:
    """Determine the protocol.

    Args:
        request: the user's request.
        written: the content of ``replicas.json``, or None.
        opened: all replicas.

    Raises:
        UserError: if time step, temperature or (for a ramp) horizon are unknown or
            contradictory.
    """
    if written is not None:
        return _settle_written(request, written, opened)
    protocol = request.protocol
    if "temperatures_K" not in request.given or len(protocol.temperatures_K) != 1:
        raise UserError(
            "expected the temperature of the simulations, which trajectories do not "
            "state; give --temperature K (judge each temperature separately)"
        )
    horizon_given = "horizon_ps" in request.given
    if protocol.ensemble == "ramp" and not horizon_given:
        raise UserError(
            "expected the duration of the ramp, got none; give --horizon-ps"
        )
    told = "timestep_fs" in request.given
    timestep_fs = _timestep_fs(protocol.timestep_fs if told else None, opened)
    changes: dict[str, Any] = {"timestep_fs": timestep_fs, "structures": None}
    if "until" not in request.given:
        changes["until"] = "explosion"
    if not horizon_given:  # until it is known
        changes["horizon_ps"] = max(protocol.horizon_ps, timestep_fs / 1000)
    return Settled(replace(protocol, **changes), horizon_given)


def _settle_written(
    request: Request, written: Mapping[str, Any], opened: Sequence[Opened]
) -> Settled:
    """The protocol written by ``md --write-lammps``."""
    said = request.given & {"timestep_fs", "temperatures_K", "ensemble"}
    if said or request.n_structures is not None:
        raise UserError(
            f"expected {REPLICAS_NAME} to say how replicas were run, got options for "
            f"{', '.join(sorted(said)) or 'structures'} as well; leave them out"
        )
    protocol = Protocol.from_dict(written["protocol"])
    own = {name: getattr(request.protocol, name) for name in request.given}
    duration_ps = own.get("horizon_ps", protocol.horizon_ps)
    if protocol.ensemble == "ramp" and duration_ps != protocol.horizon_ps:
        raise UserError(
            f"expected the duration of the ramp, {protocol.horizon_ps:g} ps, got "
            f"{duration_ps:g}; leave out --horizon-ps, and horizon_ps in a protocol"
        )
    kept = {n: v for n, v in own.items() if n in ("criteria", "horizon_ps", "until")}
    kept = {"until": "explosion"} | kept
    protocol = replace(protocol, **kept)
    _timestep_fs(protocol.timestep_fs, opened)
    return Settled(protocol, horizon_given=True)


def _timestep_fs(given: float | None, opened: Sequence[Opened]) -> float:
    """The common time step of all replicas."""
    told = {
        replica.timestep_fs: replica.source.log or replica.source.path
        for replica in opened
        if replica.timestep_fs is not None
    }
    if given is None and not told:
        raise UserError(
            "expected the time step of the simulations, which the files do not state; "
            "give --timestep-fs"
        )
    value = next(iter(told)) if given is None else given
    for other, where in told.items():
        if not math.isclose(value, other, rel_tol=RTOL):
            raise UserError(
                f"expected one time step of all replicas, got {value:g} fs and "
                f"{other:g} fs ({where}); "
                + (
                    "judge each separately"
                    if given is None
                    else "check --timestep-fs, which is in fs"
                )
            )
    return value
