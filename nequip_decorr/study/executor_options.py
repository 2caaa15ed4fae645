"""Options of ``executor`` in ``study.yaml``: where tasks run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nequip_decorr.checks import check_mapping, check_whole
from nequip_decorr.errors import UserError
from nequip_decorr.wording import nearest_name

KINDS = ("local", "slurm", "debug")

#: Names of ``study.yaml`` for parameters of submitit that have another name there.
SLURM_NAMES = {"time_min": "time", "mem_gb": "mem"}


@dataclass(frozen=True)
class Executor:
    """Where tasks run.

    Attributes:
        kind: one of :data:`KINDS`. ``debug`` runs tasks one by one in this process.
        processes: simultaneous tasks on this machine; None for one per GPU, or one.
        gpus: number of GPUs to use; None for all GPUs of this machine.
        max_num_timeout: how often SLURM may requeue a job that ran out of time.
        slurm: parameters of submitit's SlurmExecutor.
    """

    kind: str = "local"
    processes: int | None = None
    gpus: int | None = None
    max_num_timeout: int = 10
    slurm: dict[str, Any] = field(default_factory=dict)


def read_executor(value: object) -> Executor:
    """Read ``local``, ``debug``, ``{local: {...}}`` or ``{slurm: {...}}``.

    Raises:
        UserError: for an unknown name or an invalid value.
    """
    if isinstance(value, str):
        value = {value: {}}
    data = check_mapping("executor", value)
    if len(data) != 1 or next(iter(data)) not in KINDS:
        name = next(iter(data), None)
        raise UserError(
            f"expected executor to be one of {', '.join(KINDS)}, got {list(data)}"
            f"{nearest_name(name, KINDS)}"
        )
    ((kind, options),) = data.items()
    options = dict(check_mapping(f"executor.{kind}", options or {}))
    if kind == "slurm":
        timeouts = options.pop("max_num_timeout", Executor.max_num_timeout)
        check_whole("executor.slurm.max_num_timeout", timeouts, least=0)
        return Executor("slurm", max_num_timeout=timeouts, slurm=_slurm(options))
    known = ("processes", "gpus") if kind == "local" else ()
    for name, number in options.items():
        if name not in known:
            raise UserError(
                f"expected {' or '.join(known) or 'nothing'} in executor.{kind}, got "
                f"{name!r}{nearest_name(name, known)}"
            )
        check_whole(f"executor.{kind}.{name}", number, least=int(name == "processes"))
    return Executor(kind, **options)


def _slurm(options: dict[str, Any]) -> dict[str, Any]:
    """Parameters by submitit's names; submitit checks their values on submission."""
    from submitit.slurm.slurm import _get_default_parameters

    known = sorted({*_get_default_parameters(), *SLURM_NAMES})
    for name in options:
        if name not in known:
            raise UserError(
                f"expected a parameter of SLURM in executor.slurm, got {name!r}"
                f"{nearest_name(name, known)} (known: {', '.join(known)})"
            )
    if not {"time_min", "time"} & options.keys():
        raise UserError(
            "expected time_min in executor.slurm, got none (submitit would ask for 5 "
            "minutes); give the minutes after which a job may be requeued"
        )
    named = {SLURM_NAMES.get(name, name): value for name, value in options.items()}
    if isinstance(named.get("mem"), int | float):
        named["mem"] = f"{int(named['mem'] * 1024)}MB"
    return named
