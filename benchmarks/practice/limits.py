"""Judges the simulations of a finished study again at tighter limits.

Each set of limits becomes a study of its own, with records of its simulations alone::

    python -m benchmarks.practice.limits outputs/practice/3bpa \
        benchmarks/practice/results/3bpa

reads the runs in the first folder and writes ``limits/NAME=VALUE`` into the second.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nequip_decorr.md import results
from nequip_decorr.md.rejudge import rejudge
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.stages import simulated

from ..common import enter

#: Fixed before the studies ran, see PREREGISTRATION.md.
LIMITS: tuple[tuple[str, float], ...] = (
    ("min_distance_ratio", 0.65),
    ("min_distance_ratio", 0.7),
    ("max_force_eV_per_A", 50),
    ("max_temperature_K", 5000),
)


def result_of(run: Path, limits: Mapping[str, float]) -> dict[str, Any]:
    """What a study keeps of a run, under other limits; without pair distributions."""
    path = run / results.RESULT_NAME
    after = rejudge(results.load(path), path, limits)
    with tempfile.TemporaryDirectory() as folder:
        results.save(after, Path(folder) / results.RESULT_NAME)
        return {**simulated(Path(folder)), "rdf": []}


def judge_again(study: StudyFolder, limits: Mapping[str, float], out: Path) -> None:
    """Write the study that these limits would have given."""
    registered = study.registered()
    tasks = [
        task
        for task in registered.tasks
        if task.stage.startswith("md-")
        and not is_drift(registered.identity, task.stage)
    ]
    shutil.rmtree(out, ignore_errors=True)
    folder = StudyFolder(out)
    (out / "records").mkdir(parents=True)
    shutil.copy(study.path / "plan.json", out)
    for task in tasks:
        record = study.record(task.key)
        if record is None or record["status"] != "done":
            continue
        result = result_of(study.path / task.folder, limits)
        folder.store.write(task.key, {**record, "result": result})
    folder.store.gather(task.key for task in tasks)
    (out / "records").rmdir()


def is_drift(identity: Mapping[str, Any], stage: str) -> bool:
    """Whether a simulation is of the NVE drift, which has no limits."""
    protocol = identity["md"][stage.removeprefix("md-")]["protocol"]
    return bool(protocol["ensemble"] == "nve")


def main() -> None:
    """Judge one study under each set of limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, help="folder in which the study ran")
    parser.add_argument("out", type=Path, help="folder of its committed records")
    args = parser.parse_args()
    for name, value in LIMITS:
        out = args.out / "limits" / f"{name}={value:g}"
        judge_again(StudyFolder(args.study), {name: value}, out)
        print(f"written: {out}", flush=True)


if __name__ == "__main__":
    enter(main)
