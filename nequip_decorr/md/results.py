"""Results of a stability run: the result file and its schema.

A result file is one JSON document, with recorded time series in a folder beside it
(``result.traces/0000.npz`` for replica 0 of ``result.json``). ``schema`` names its
layout and version; :func:`load` refuses unknown layouts. Units are in the
names: ps, fs, K, eV, Angstrom.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nequip_decorr.errors import UserError
from nequip_decorr.md.arrays import read_arrays, write_arrays
from nequip_decorr.md.files import write_atomic
from nequip_decorr.wording import named

SCHEMA = "nequip_decorr.md/2"

#: Traces are in the file itself, and the protocol's main settings beside it.
SCHEMA_1 = "nequip_decorr.md/1"

#: Name of the result file in the folder of a run.
RESULT_NAME = "result.json"

#: What can happen to a replica: its geometry becomes unphysical, or it explodes. The
#: one need not follow from the other, so they are never counted together.
KINDS = ("unphysical", "explosion")

#: Causes of events, in the order in which they are tested, and their kinds.
CAUSES = {
    "nonfinite": "explosion",
    "blowup": "explosion",
    "overlap": "unphysical",
    "runaway": "explosion",
    "dissociation": "unphysical",
    "exception": "explosion",
}

#: Reasons for which a replica ends without an event that ends it (right-censoring).
#: ``not_followed``: judged again under wider limits, of which nothing is known after
#: the event that ended the run. ``file_ends``: a trajectory from elsewhere that stops.
CENSORED_BY = (
    "horizon",
    "not_followed",
    "file_ends",
    "interrupt",
    "out_of_memory",
    "disk_full",
    "model_broken",
    "worker_died",
)


def kind_of(cause: str) -> str:
    """The kind of event, one of :data:`KINDS`, that a cause belongs to."""
    return CAUSES[cause]


@dataclass(frozen=True)
class Event:
    """An event of a replica: why, when and where it happened.

    Attributes:
        cause: one of :data:`CAUSES`.
        step: MD step at which the test failed (0 is the start structure).
        time_ps: ``step`` in ps.
        message: one line of text, with the value, the limit and the atoms.
        atoms: zero-based indices of the atoms involved (may be empty).
        value: the tested quantity (NaN is stored as ``null``).
        limit: its limit.
        last_good_frame: path of the last frame before the event (extxyz), relative
            to the result file, or None.
        half_step_time_ps: time of the event in the repeat at half the time step from
            the last good frame; None without a repeat, or if the repeat survived.
        half_step_cause: cause of that event; ``"none"`` if the repeat survived, None
            without a repeat.
    """

    cause: str
    step: int
    time_ps: float
    message: str
    atoms: tuple[int, ...] = ()
    value: float | None = None
    limit: float | None = None
    last_good_frame: str | None = None
    half_step_time_ps: float | None = None
    half_step_cause: str | None = None

    @property
    def kind(self) -> str:
        """The kind of event, one of :data:`KINDS`."""
        return kind_of(self.cause)


@dataclass(frozen=True)
class Trace:
    """Recorded time series of one replica, all of the same length.

    ``total_energy_eV`` is the conserved quantity of an NVE run (kinetic + potential).
    """

    time_ps: tuple[float, ...] = ()
    temperature_K: tuple[float, ...] = ()
    potential_energy_eV: tuple[float, ...] = ()
    total_energy_eV: tuple[float, ...] = ()


@dataclass(frozen=True)
class Replica:
    """One trajectory: how it started, what happened to it, and why it ended.

    ``unphysical`` and ``explosion`` are the first event of each kind. ``time_ps`` is
    when the simulation ended: at the event that ended it, or else where it was
    censored, for the reason ``censored_by`` (None when an event ended it).
    ``structure`` is the index of the start structure. It is the cluster of the
    bootstrap and, with ``seed`` and ``temperature_K``, the key by which the replicas of
    two models are paired. ``trajectory`` is the path of its recorded positions (extxyz,
    sound frames only), relative to the result file. ``structure_sha256`` is
    :func:`nequip_decorr.md.structures.structure_hash` of the start structure; None in
    files from before it was stored. ``name`` is the name of a trajectory from another
    program; with ``temperature_K`` it is then the key.
    """

    index: int
    structure: int
    structure_name: str
    formula: str
    n_atoms: int
    temperature_K: float
    seed: int
    time_ps: float
    unphysical: Event | None = None
    explosion: Event | None = None
    censored_by: str | None = None
    trace: Trace = field(default_factory=Trace)
    trajectory: str | None = None
    structure_sha256: str | None = None
    name: str | None = None

    def event(self, kind: str) -> Event | None:
        """The event of a kind; None if it did not happen (or was not followed)."""
        return {"unphysical": self.unphysical, "explosion": self.explosion}[kind]

    @property
    def first(self) -> Event | None:
        """The earlier of the two events; None if neither happened."""
        events = [event for event in map(self.event, KINDS) if event is not None]
        return min(events, key=lambda event: event.step, default=None)

    def followed(self, kind: str) -> tuple[float, bool]:
        """Time of an event of a kind, ps, and True; or the time without it, and False.

        A replica ended by the other kind is known to be without this one until its end.
        """
        event = self.event(kind)
        return (self.time_ps, False) if event is None else (event.time_ps, True)

    @property
    def key(self) -> tuple[int | str, float, int]:
        """Key for pairing with another model: structure, T and seed, or name and T."""
        if self.name is not None:
            return (self.name, self.temperature_K, 0)
        return (self.structure, self.temperature_K, self.seed)


@dataclass(frozen=True)
class RunResult:
    """A whole run: model, protocol, machine, and every replica that was started.

    Attributes:
        model: ``path``, ``sha256``, ``kind`` and ``species`` of the model, and its
            ``chemical_species_to_atom_type_map`` where types have other names.
        protocol: the protocol as written to YAML (plain types, units in names).
        machine: host, processor, versions; for information only, never compared.
        replicas: in order of ``index``.
        complete: False while replicas are missing (interrupted run).
        fidelity: results of :mod:`nequip_decorr.md.statistics.fidelity`, or None.
        source: origin of trajectories from other programs, and what was not tested
            (:mod:`nequip_decorr.md.trajectories`); None for a run of `md`.
    """

    model: dict[str, Any]
    protocol: dict[str, Any]
    machine: dict[str, Any]
    replicas: tuple[Replica, ...]
    complete: bool = True
    fidelity: dict[str, Any] | None = None
    source: dict[str, Any] | None = None

    @property
    def horizon_ps(self) -> float:
        """Time after which a surviving replica is censored."""
        return float(self.protocol["horizon_ps"])

    @property
    def timestep_fs(self) -> float:
        """MD time step."""
        return float(self.protocol["timestep_fs"])

    @property
    def ensemble(self) -> str:
        """``langevin``, ``nose-hoover``, ``nve`` or ``ramp``."""
        return str(self.protocol["ensemble"])


def trace_path(result_path: Path, index: int) -> Path:
    """File of a replica's trace."""
    return result_path.with_suffix(".traces") / f"{index:04d}.npz"


def save_trace(trace: Trace, result_path: Path, index: int) -> None:
    """Write a replica's trace beside its result file; an empty one has no file."""
    path = trace_path(result_path, index)
    if not trace.time_ps:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(exist_ok=True)
    series = {name: np.array(values) for name, values in asdict(trace).items()}
    write_arrays(path, series, final=True)


def load_trace(path: Path) -> Trace:
    """Read a trace; empty if the file is missing or cannot be read."""
    series = read_arrays(path) or {}
    return Trace(**{name: tuple(values.tolist()) for name, values in series.items()})


def replica_to_dict(replica: Replica, result_path: Path) -> dict[str, Any]:
    """One replica in plain types, as in the result file."""
    path = trace_path(result_path, replica.index).relative_to(result_path.parent)
    traced = bool(replica.trace.time_ps)
    bare = asdict(replace(replica, trace=Trace()))
    return bare | {"trace": path.as_posix() if traced else None}


def replica_from_dict(data: Mapping[str, Any], folder: Path) -> Replica:
    """Inverse of :func:`replica_to_dict`; ``folder`` is that of the result file."""
    events = {kind: event_from_dict(data[kind]) for kind in KINDS if data[kind]}
    trace = data["trace"]
    if trace is None:
        series = Trace()
    elif isinstance(trace, str):
        series = load_trace(folder / trace)
    else:  # schema 1
        series = Trace(**{name: tuple(values) for name, values in trace.items()})
    bare = {**data, "trace": series, **dict.fromkeys(KINDS)}
    return Replica(**{**bare, **events})


def event_from_dict(data: Mapping[str, Any]) -> Event:
    """An event from plain types."""
    return Event(**{**data, "atoms": tuple(data["atoms"])})


def save(result: RunResult, path: str | Path, *, traces: bool = True) -> None:
    """Write a result file (see :func:`~nequip_decorr.md.files.write_atomic`).

    Args:
        result: the result to write.
        path: the file.
        traces: whether to write the traces as well (False if they exist already).
    """
    path = Path(path)
    if traces:
        for replica in result.replicas:
            save_trace(replica.trace, path, replica.index)
    bare = replace(result, replicas=())
    data = {"schema": SCHEMA, **asdict(bare)}
    data["replicas"] = [replica_to_dict(r, path) for r in result.replicas]
    write_atomic(path, json.dumps(data, indent=1, allow_nan=False))


def load(path: str | Path) -> RunResult:
    """Read a result file of the current schema or the previous one.

    Raises:
        UserError: when there is no such file, it is not JSON, its ``schema`` is
            neither, or it is damaged.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"expected a result file of `nequip-decorr md`, got {path}, which cannot "
            f"be read ({error.strerror}); check the path"
        ) from error
    except ValueError as error:
        raise UserError(
            f"expected a result file of `nequip-decorr md`, got {path} which is not "
            f"JSON ({error}); give the .json file that the run wrote"
        ) from error
    schema = data.pop("schema", None) if isinstance(data, dict) else None
    if schema not in (SCHEMA, SCHEMA_1):
        raise UserError(
            f"expected a result file with schema '{SCHEMA}', got {path} with schema "
            f"{schema!r}; run `nequip-decorr md` again with this version"
        )
    try:
        if schema == SCHEMA_1:
            _from_schema_1(data)
        return _from_dict(data, path.parent)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"expected a whole result file of `nequip-decorr md`, got {path}, which is "
            f"damaged ({named(error)}); copy it again or "
            "repeat the run"
        ) from error


def _from_dict(data: Mapping[str, Any], folder: Path) -> RunResult:
    """A result from plain types; what all who read it count on is there."""
    replicas = tuple(replica_from_dict(each, folder) for each in data["replicas"])
    result = RunResult(**{**data, "replicas": replicas})
    events = [e for r in replicas for kind in KINDS if (e := r.event(kind))]
    times = [r.time_ps for r in replicas] + [e.time_ps for e in events]
    times += [result.horizon_ps, result.timestep_fs]
    if not all(isinstance(time_ps, int | float) for time_ps in times):
        raise TypeError("a time is no number")
    return result


def _from_schema_1(data: dict[str, Any]) -> None:
    """Convert a document of schema 1 to the current layout, in place."""
    for name in ("horizon_ps", "timestep_fs", "ensemble"):
        data["protocol"][name] = data.pop(name)
    data["protocol"]["until"] = "first"
    for replica in data["replicas"]:
        failure = replica.pop("failure")
        replica.update(dict.fromkeys(KINDS))
        if failure is not None:
            replica[kind_of(failure["cause"])] = failure
