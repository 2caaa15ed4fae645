"""Results of each model of a study, from the records of its tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from nequip_decorr.study.folder import Registered

#: Values of ``CUDA_VISIBLE_DEVICES`` with which a task has no GPU; None: not set.
NO_GPUS = (None, "", "-1")


@dataclass(frozen=True)
class Model:
    """Results of one model; anything not measured yet is None or missing.

    Attributes:
        variant: variant of the training.
        seed: training seed.
        train_s: CPU time of the training (s); None if it was interrupted or failed.
        train_wall_s: wall time of the training (s); None as for ``train_s``.
        train_gpu: whether the training was given a GPU.
        checkpoint: best checkpoint, relative to the folder of the study.
        errors: errors by test set and metric, in the units of the config.
        layers: correlation of each layer, from ``nequip-decorr inspect``.
        inspection: file with the correlation matrices, likewise.
        replicas: replicas by condition, see :func:`.stages.simulated`.
        horizon_ps: horizon by condition.
        timestep_fs: MD time step by condition.
        drift: energy drifts (meV/atom/ps) by simulation; None for a replica that
            failed.
        rdf: mean error of the pair distributions by condition.
        failed: stages that failed.
    """

    variant: str
    seed: int
    train_s: float | None = None
    train_wall_s: float | None = None
    train_gpu: bool = False
    checkpoint: str | None = None
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    inspection: str | None = None
    replicas: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    horizon_ps: dict[str, float] = field(default_factory=dict)
    timestep_fs: dict[str, float] = field(default_factory=dict)
    drift: dict[str, list[float | None]] = field(default_factory=dict)
    rdf: dict[str, float] = field(default_factory=dict)
    failed: tuple[str, ...] = ()

    @property
    def correlation(self) -> float | None:
        """Mean over layers of the mean |rho|."""
        return mean(each["mean_abs"] for each in self.layers) if self.layers else None


def models(
    registered: Registered, records: Mapping[str, Mapping[str, Any]]
) -> list[Model]:
    """All models of a plan, in its order, with their results so far."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for task in registered.tasks:
        known = found.setdefault((task.variant, task.seed), {"failed": ()})
        record = records.get(task.key)
        if record is None:
            continue
        if record["status"] != "done":
            known["failed"] += (task.stage,)
        else:
            _add(known, task.stage, record, registered.identity["md"])
    return [Model(variant, seed, **known) for (variant, seed), known in found.items()]


def _add(
    known: dict[str, Any],
    stage: str,
    record: Mapping[str, Any],
    simulations: Mapping[str, Any],
) -> None:
    result = record["result"]
    if stage == "train":
        known["checkpoint"] = result["checkpoint"]
        known["train_gpu"] = record["machine"].get("gpus") not in NO_GPUS
        if not record["interrupted"]:
            known["train_s"] = record["cpu_s"]
            known["train_wall_s"] = record["wall_s"]
    elif stage == "test":
        known["errors"] = result["errors"]
    elif stage == "inspect":
        known["layers"], known["inspection"] = result["layers"], result["file"]
    elif stage.startswith("md-"):
        name = stage.removeprefix("md-")
        if is_drift(simulations[name]):
            slopes = [
                None if drift is None else drift["slope_meV_per_atom_ps"]
                for drift in result["drift"]
            ]
            known.setdefault("drift", {})[name] = slopes
        else:
            _add_md(known, name, result)


def _add_md(known: dict[str, Any], name: str, result: Mapping[str, Any]) -> None:
    for replica in result["replicas"]:
        condition = condition_of(name, replica["temperature_K"])
        known.setdefault("replicas", {}).setdefault(condition, []).append(replica)
        known.setdefault("horizon_ps", {})[condition] = result["horizon_ps"]
        known.setdefault("timestep_fs", {})[condition] = result["timestep_fs"]
    errors: dict[str, list[float]] = {}
    for pair in result["rdf"]:
        condition = condition_of(name, pair["temperature_K"])
        errors.setdefault(condition, []).append(pair["error"])
    for condition, values in errors.items():
        known.setdefault("rdf", {})[condition] = mean(values)


def is_drift(simulation: Mapping[str, Any]) -> bool:
    """Whether a simulation of a plan measures the energy drift, and has no events."""
    return bool(simulation["protocol"]["ensemble"] == "nve")


def condition_of(simulation: str, temperature_K: float) -> str:
    """Name of a simulation at a temperature."""
    return f"{simulation}@{temperature_K:g}K"
