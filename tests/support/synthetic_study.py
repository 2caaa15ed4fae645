"""The folder of a study whose effects are known: records are drawn, nothing is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nequip_decorr.study.folder import Registered, StudyFolder
from nequip_decorr.study.plan import Plan
from nequip_decorr.study.questions import Question
from nequip_decorr.study.tasks import Task, key_of

HORIZON_PS = 10.0
CONDITIONS = {"hot": 1200.0, "hotter": 2400.0}


def synthetic_study(
    path: Path,
    variants: int = 2,
    seeds: int = 8,
    *,
    log_ratio: float = 0.4,
    spread: float = 0.2,
    scale_ps: float = 0.5,
    added: int = 0,
    missing: tuple[str, ...] = (),
    failed: tuple[str, ...] = (),
    replicas: int = 1,
) -> StudyFolder:
    """Write the folder of a study.

    Args:
        path: of the folder.
        variants: how many; each has times and errors ``exp(log_ratio)`` times those of
            the first.
        seeds: training seeds, before any are added.
        log_ratio: effect on times; errors change by a fifth of it.
        spread: standard deviation over seeds of the log ratio.
        scale_ps: of the times to failure.
        added: seeds that were added later.
        missing: keys of tasks without a record.
        failed: keys of tasks that failed.
        replicas: of each of the eight structures.
    """
    rng = np.random.default_rng(variants + 100 * seeds)
    names = ["none", *(f"variant-{i}" for i in range(1, variants))]
    folder = StudyFolder(path)
    stages = ("train", "test", *(f"md-{name}" for name in CONDITIONS))
    tasks = [
        Task(
            stage,
            name,
            seed,
            ("true",),
            "/nowhere",
            () if stage == "train" else (key_of(name, seed, "train"),),
        )
        for seed in range(1, seeds + added + 1)
        for name in names
        for stage in stages
    ]
    _register(folder, names, tasks, seeds, added)
    for seed in range(1, seeds + added + 1):
        structures = rng.normal(0, 0.4, 8)
        for number, name in enumerate(names):
            shift = log_ratio * (number > 0) + rng.normal(0, spread)
            results: dict[str, Any] = {
                "train": {"checkpoint": f"/nowhere/{name}_{seed}/best.ckpt"},
                "test": {"errors": _errors(rng, shift / 5)},
            }
            for condition, kelvin in CONDITIONS.items():
                noise = rng.normal(0, 0.4, (replicas, 8))
                times = scale_ps * np.exp(shift + structures + noise)
                results[f"md-{condition}"] = _simulated(times, kelvin)
            for stage, result in results.items():
                key = key_of(name, seed, stage)
                if key not in missing:
                    folder.store.write(
                        key, _record(key, stage, name, seed, result, key in failed)
                    )
    return folder


def _register(
    folder: StudyFolder, names: list[str], tasks: list[Task], seeds: int, added: int
) -> Registered:
    questions = [
        Question(name, "time", f"{condition}@{kelvin:g}K", kind)
        for name in names[1:]
        for condition, kelvin in CONDITIONS.items()
        for kind in ("unphysical", "explosion")
    ]
    asked = {
        "primary": vars(questions[0]) | {"primary": True} if questions else None,
        "secondary": [vars(q) for q in questions[1:]]
        + [vars(Question(name, "training time")) for name in names[1:]],
    }
    identity = {
        "baseline": names[0],
        "variants": {name: {"overrides": [f"lr={i}"]} for i, name in enumerate(names)},
        "md": {name: {"protocol": {"ensemble": "langevin"}} for name in CONDITIONS},
    }
    for wave in (range(1, seeds + 1), range(1, seeds + added + 1)):
        plan = Plan(identity, tuple(wave), tuple(tasks), {})
        with folder.held():
            registered = folder.register(plan, asked, ())
    return registered


def _errors(rng: np.random.Generator, shift: float) -> dict[str, dict[str, float]]:
    return {
        test: {
            metric: float(value * np.exp(shift + rng.normal(0, 0.02)))
            for metric, value in {"forces_rmse": 0.2, "energy_rmse": 0.01}.items()
        }
        for test in ("in", "out")
    }


def _simulated(times: np.ndarray, kelvin: float) -> dict[str, Any]:
    """Unphysical geometry ends a replica; explosions are not followed."""
    replicas = [
        {
            "structure": index,
            "formula": "HfO2",
            "temperature_K": kelvin,
            "seed": number,
            "time_ps": min(time, HORIZON_PS),
            "censored_by": None if time < HORIZON_PS else "horizon",
            "unphysical": {
                "time_ps": min(time, HORIZON_PS),
                "happened": bool(time < HORIZON_PS),
                "cause": "overlap" if time < HORIZON_PS else None,
            },
            "explosion": {
                "time_ps": min(time, HORIZON_PS),
                "happened": False,
                "cause": None,
            },
        }
        for number, row in enumerate(times.tolist())
        for index, time in enumerate(row)
    ]
    return {
        "horizon_ps": HORIZON_PS,
        "timestep_fs": 1.0,
        "replicas": replicas,
        "drift": [],
        "rdf": [],
    }


def _record(
    key: str, stage: str, name: str, seed: int, result: dict[str, Any], failed: bool
) -> dict[str, Any]:
    return {
        "key": key,
        "stage": stage,
        "variant": name,
        "seed": seed,
        "status": "failed" if failed else "done",
        "error": "the command ended with exit status 1" if failed else None,
        "result": None if failed else result,
        "tail": ["RuntimeError: out of luck <&>"] if failed else [],
        "interrupted": 0,
        "wall_s": 60.0,
        "cpu_s": 60.0 + seed,
        "machine": {"host": "here", "cores": 2},
    }
