"""Keeps what a page needs of a study: its plan, its records, and tighter limits.

::

    python -m benchmarks.practice.keep outputs/practice/3bpa \
        benchmarks/practice/results/3bpa

Each set of limits becomes a study of its own in ``limits/NAME=VALUE``, with the records
of its simulations alone.

Of a study that is not finished, only models of which nothing is left to run are kept.
Copied into a new folder on any machine, they are where ``nequip-decorr study`` goes on;
what is kept from there includes them, also where their runs are no longer at hand.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nequip_decorr.errors import UserError
from nequip_decorr.md import results
from nequip_decorr.md.rejudge import rejudge
from nequip_decorr.study.folder import Registered, StudyFolder
from nequip_decorr.study.models import is_drift
from nequip_decorr.study.run import outlook
from nequip_decorr.study.stages import simulated
from nequip_decorr.study.tasks import Task

from ..common import enter

#: Fixed before the studies ran, see PREREGISTRATION.md.
LIMITS: tuple[tuple[str, float], ...] = (
    ("min_distance_ratio", 0.65),
    ("min_distance_ratio", 0.7),
    ("max_force_eV_per_A", 50),
    ("max_temperature_K", 5000),
)

Record = Mapping[str, Any]


def keep(study: StudyFolder, out: Path) -> None:
    """Copy the plan, and the records of models of which nothing is left to run."""
    registered = study.registered()
    records = study.records(registered)
    write(study, out, [records[task.key] for task in finished(registered, records)])


def finished(registered: Registered, records: Mapping[str, Record]) -> list[Task]:
    """Tasks with a record, of the models of which nothing is left to run."""
    open_tasks = outlook(registered.tasks, records)
    left = {(t.variant, t.seed) for t in (*open_tasks.ready, *open_tasks.waiting)}
    return [
        task
        for task in registered.tasks
        if task.key in records and (task.variant, task.seed) not in left
    ]


def judge_again(study: StudyFolder, limits: Mapping[str, float], out: Path) -> None:
    """Write the study that these limits would have given."""
    registered = study.registered()
    records = study.records(registered)
    earlier = {**kept(study.path / "limits" / out.name), **kept(out)}
    judged = []
    for task in finished(registered, records):
        record, run = records[task.key], study.path / task.folder
        if record["status"] != "done":  # a model that failed is still one
            judged.append(record)
            continue
        name = task.stage.removeprefix("md-")
        if name == task.stage or is_drift(registered.identity["md"][name]):
            continue
        if run.exists():
            judged.append({**record, "result": result_of(run, limits)})
        elif task.key in earlier:  # kept from another machine
            judged.append(earlier[task.key])
        else:
            raise UserError(
                f"expected the simulation {run}, or its record in {out}, got neither; "
                f"copy the folder limits from the kept records into {study.path}"
            )
    write(study, out, judged)


def kept(folder: Path) -> dict[str, dict[str, Any]]:
    """Records in a folder of this module, by task; none if there is no folder."""
    return StudyFolder(folder).store.gathered()


def result_of(run: Path, limits: Mapping[str, float]) -> dict[str, Any]:
    """What a study keeps of a run, under other limits; without pair distributions."""
    path = run / results.RESULT_NAME
    after = rejudge(results.load(path), path, limits)
    with tempfile.TemporaryDirectory() as folder:
        results.save(after, Path(folder) / results.RESULT_NAME)
        return {**simulated(Path(folder)), "rdf": []}


def write(study: StudyFolder, out: Path, records: Iterable[Record]) -> None:
    """A folder with the plan of a study and these records, in this order."""
    folder = StudyFolder(out)
    (out / "records").mkdir(parents=True, exist_ok=True)
    shutil.copy(study.path / "plan.json", out)
    keys = []
    for record in records:
        keys.append(record["key"])
        folder.store.write(record["key"], record)
    folder.store.gather(keys)
    (out / "records").rmdir()


def main() -> None:
    """Keep one study, and judge it under each set of limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, help="folder in which the study ran")
    parser.add_argument("out", type=Path, help="folder of its committed records")
    args = parser.parse_args()
    study = StudyFolder(args.study)
    for name, value in LIMITS:
        out = args.out / "limits" / f"{name}={value:g}"
        judge_again(study, {name: value}, out)
        print(f"written: {out}", flush=True)
    keep(study, args.out)
    print(f"written: {args.out}")


if __name__ == "__main__":
    enter(main)
