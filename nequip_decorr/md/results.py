"""Results of a stability run: the result file and its schema.

A result file is one JSON document, with recorded time series in a folder beside it
(``result.traces/0000.npz`` for replica 0 of ``result.json``). ``schema`` names its
layout and version; :func:`load` refuses one that it does not know. Units are in the
names: ps, fs, K, eV, Angstrom.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nequip_decorr.errors import UserError
from nequip_decorr.md.files import write_atomic

SCHEMA = "nequip_decorr.md/2"

#: Traces are in the file itself, and the protocol's main settings beside it.
SCHEMA_1 = "nequip_decorr.md/1"

#: Name of the result file in the folder of a run.
RESULT_NAME = "result.json"

#: Causes that end a replica as a failure, in the order in which they are tested.
CAUSES = (
    "nonfinite",
    "blowup",
    "overlap",
    "runaway",
    "dissociation",
    "exception",
)

#: Reasons for which a replica stops without having failed (right-censoring).
CENSORED_BY = (
    "horizon",
    "interrupt",
    "out_of_memory",
    "disk_full",
    "model_broken",
    "worker_died",
)


@dataclass(frozen=True)
class Failure:
    """Why, when and where a replica failed.

    Attributes:
        cause: one of :data:`CAUSES`.
        step: MD step at which the test failed (0 is the start structure).
        time_ps: ``step`` in ps.
        message: one line for a person, with the value, the limit and the atoms.
        atoms: zero-based indices of the atoms involved (may be empty).
        value: the quantity that was tested (NaN is stored as ``null``).
        limit: its limit.
        last_good_frame: path of the last frame before the failure (extxyz), relative
            to the result file, or None.
        half_step_time_ps: time of failure of the repeat at half the time step from
            the last good frame; None when no repeat was asked for or the repeat
            survived.
        half_step_cause: the repeat's cause, ``"none"`` when the repeat survived, None
            when no repeat was asked for.
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


@dataclass(frozen=True)
class Trace:
    """Recorded time series of one replica, all of one length.

    ``total_energy_eV`` is the conserved quantity of an NVE run (kinetic + potential).
    """

    time_ps: tuple[float, ...] = ()
    temperature_K: tuple[float, ...] = ()
    potential_energy_eV: tuple[float, ...] = ()
    total_energy_eV: tuple[float, ...] = ()


@dataclass(frozen=True)
class Replica:
    """One trajectory: what was started, how far it came, and why it ended.

    ``time_ps`` is the time of failure, or of censoring when ``failure`` is None.
    ``structure`` is the index of the starting structure: the cluster of the bootstrap
    and, with ``seed`` and ``temperature_K``, the key under which two models' replicas
    are paired. ``trajectory`` is the path of its recorded positions (extxyz, sound
    frames only), relative to the result file. ``structure_sha256`` is
    :func:`nequip_decorr.md.structures.structure_hash` of the starting structure, None
    in files written before it was kept.
    """

    index: int
    structure: int
    structure_name: str
    formula: str
    n_atoms: int
    temperature_K: float
    seed: int
    time_ps: float
    failure: Failure | None = None
    censored_by: str | None = None
    trace: Trace = field(default_factory=Trace)
    trajectory: str | None = None
    structure_sha256: str | None = None

    @property
    def failed(self) -> bool:
        """Whether the replica ended in a failure (an event, not a censoring)."""
        return self.failure is not None

    @property
    def key(self) -> tuple[int, float, int]:
        """What pairs this replica with another model's: structure, T, seed."""
        return (self.structure, self.temperature_K, self.seed)


@dataclass(frozen=True)
class RunResult:
    """A whole run: model, protocol, machine, and every replica that was started.

    Attributes:
        model: ``path``, ``sha256``, ``kind`` and ``species`` of the model, and its
            ``chemical_species_to_atom_type_map`` where types have other names.
        protocol: the protocol as written to YAML (plain types, units in names).
        machine: host, processor, versions; for the reader, never compared.
        replicas: in order of ``index``.
        complete: False while replicas are missing (interrupted run).
        fidelity: what :mod:`nequip_decorr.md.statistics.fidelity` measured, or None.
    """

    model: dict[str, Any]
    protocol: dict[str, Any]
    machine: dict[str, Any]
    replicas: tuple[Replica, ...]
    complete: bool = True
    fidelity: dict[str, Any] | None = None

    @property
    def horizon_ps(self) -> float:
        """The time after which a surviving replica is censored."""
        return float(self.protocol["horizon_ps"])

    @property
    def timestep_fs(self) -> float:
        """The MD step."""
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
    buffer = io.BytesIO()
    series: dict[str, Any] = {k: np.array(v) for k, v in asdict(trace).items()}
    np.savez_compressed(buffer, allow_pickle=False, **series)
    write_atomic(path, buffer.getvalue(), durable=False)


def load_trace(path: Path) -> Trace:
    """Read a trace; empty when it was not copied along, or cannot be read."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return Trace(**{name: tuple(file[name].tolist()) for name in file.files})
    except (FileNotFoundError, zipfile.BadZipFile, ValueError, EOFError):
        return Trace()


def replica_to_dict(replica: Replica, result_path: Path) -> dict[str, Any]:
    """Plain-type form of one replica, as it stands in the result file."""
    path = trace_path(result_path, replica.index).relative_to(result_path.parent)
    traced = bool(replica.trace.time_ps)
    bare = asdict(replace(replica, trace=Trace()))
    return bare | {"trace": path.as_posix() if traced else None}


def replica_from_dict(data: Mapping[str, Any], folder: Path) -> Replica:
    """Inverse of :func:`replica_to_dict`; ``folder`` is that of the result file."""
    failure, trace = data["failure"], data["trace"]
    if failure is not None:
        failure = Failure(**{**failure, "atoms": tuple(failure["atoms"])})
    if trace is None:
        series = Trace()
    elif isinstance(trace, str):
        series = load_trace(folder / trace)
    else:  # schema 1
        series = Trace(**{name: tuple(values) for name, values in trace.items()})
    return Replica(**{**data, "failure": failure, "trace": series})


def save(result: RunResult, path: str | Path, *, traces: bool = True) -> None:
    """Write a result file (see :func:`~nequip_decorr.md.files.write_atomic`).

    Args:
        result: what is to be written.
        path: the file.
        traces: write the traces as well; False where they are there already.
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
    """Read a result file, of this schema or the one before.

    Raises:
        UserError: when there is no such file, it is not JSON, or its ``schema`` is
            neither.
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
    if schema == SCHEMA_1:
        for name in ("horizon_ps", "timestep_fs", "ensemble"):
            data["protocol"][name] = data.pop(name)
    replicas = tuple(replica_from_dict(r, path.parent) for r in data["replicas"])
    return RunResult(**{**data, "replicas": replicas})
