"""What one stability run leaves behind: the result file and its schema.

A result file is one JSON document. ``schema`` names its layout and version; a file
with another schema is refused by :func:`load`, never guessed at. Units are in the
names: ps, fs, K, eV, Angstrom.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nequip_decorr.errors import UserError
from nequip_decorr.md.files import write_atomic

SCHEMA = "nequip_decorr.md/1"

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
    in files of before it was kept.
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
        horizon_ps: the time after which a surviving replica is censored.
        timestep_fs: the MD step.
        ensemble: ``langevin``, ``nose-hoover``, ``nve`` or ``ramp``.
        replicas: in order of ``index``.
        complete: False while replicas are missing (interrupted run).
        fidelity: what :mod:`nequip_decorr.md.statistics.fidelity` measured, or None.
    """

    model: dict[str, Any]
    protocol: dict[str, Any]
    machine: dict[str, Any]
    horizon_ps: float
    timestep_fs: float
    ensemble: str
    replicas: tuple[Replica, ...]
    complete: bool = True
    fidelity: dict[str, Any] | None = None
    schema: str = SCHEMA


def replica_to_dict(replica: Replica) -> dict[str, Any]:
    """Plain-type form of one replica, as it stands in the result file."""
    return asdict(replica)


def replica_from_dict(data: dict[str, Any]) -> Replica:
    """Inverse of :func:`replica_to_dict`."""
    data = dict(data)
    failure = data.pop("failure")
    trace = data.pop("trace")
    if failure is not None:
        failure = Failure(**{**failure, "atoms": tuple(failure["atoms"])})
    return Replica(
        **data,
        failure=failure,
        trace=Trace(**{name: tuple(values) for name, values in trace.items()}),
    )


def save(result: RunResult, path: str | Path) -> None:
    """Write a result file (see :func:`~nequip_decorr.md.files.write_atomic`)."""
    write_atomic(Path(path), json.dumps(asdict(result), indent=1, allow_nan=False))


def load(path: str | Path) -> RunResult:
    """Read a result file.

    Raises:
        UserError: when the file is no JSON, or its ``schema`` is not :data:`SCHEMA`.
        UserError: when there is no such file.
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
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise UserError(
            f"expected a result file with schema '{SCHEMA}', got {path} with schema "
            f"{schema!r}; run `nequip-decorr md` again with this version"
        )
    data["replicas"] = tuple(replica_from_dict(r) for r in data["replicas"])
    return RunResult(**data)
