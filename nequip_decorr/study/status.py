"""Progress of a study: tasks by stage, and remaining time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from nequip_decorr.study.run import Records, outlook
from nequip_decorr.study.tasks import Task


@dataclass(frozen=True)
class StageStatus:
    """Tasks of one stage.

    Attributes:
        stage: name of the stage.
        total: number of tasks.
        done: finished successfully.
        failed: ended with an error.
        blocked: need a task that failed.
        running: running or queued.
        mean_s: mean duration of a task in seconds; None if unknown.
    """

    stage: str
    total: int
    done: int
    failed: int
    blocked: int
    running: int
    mean_s: float | None

    @property
    def open(self) -> int:
        """Tasks that are running or still to be run."""
        return self.total - self.done - self.failed - self.blocked


def by_stage(
    tasks: Sequence[Task], records: Records, running: set[str]
) -> list[StageStatus]:
    """Status of each stage, in the order of the plan."""
    blocked = {task.key for task in outlook(tasks, records).blocked}
    found = []
    for stage in dict.fromkeys(task.stage for task in tasks):
        own = [task.key for task in tasks if task.stage == stage]
        ended = [records[key] for key in own if key in records]
        done = [record for record in ended if record["status"] == "done"]
        times = [record["wall_s"] for record in done if record["interrupted"] == 0]
        found.append(
            StageStatus(
                stage=stage,
                total=len(own),
                done=len(done),
                failed=len(ended) - len(done),
                blocked=len(blocked.intersection(own)),
                running=len(running.intersection(own)),
                mean_s=mean(times) if times else None,
            )
        )
    return found


def time_left_s(stages: Sequence[StageStatus], at_a_time: int) -> float | None:
    """Estimated remaining seconds, from the durations of finished tasks.

    None while a remaining stage has no finished task.
    """
    left = 0.0
    for stage in stages:
        if stage.open and stage.mean_s is None:
            return None
        left += stage.open * (stage.mean_s or 0.0)
    return left / max(1, at_a_time)


def duration(seconds: float) -> str:
    """Seconds in readable units."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def status_table(
    tasks: Sequence[Task],
    records: Records,
    running: set[str],
    at_a_time: int = 1,
    trouble: str | None = None,
) -> Group:
    """Table of tasks by stage, with a summary line."""
    stages = by_stage(tasks, records, running)
    table = Table(box=SIMPLE_HEAD)
    table.add_column("stage")
    for name in ("done", "failed", "blocked", "running", "time per task"):
        table.add_column(name, justify="right")
    for stage in stages:
        table.add_row(
            Text(stage.stage),
            f"{stage.done}/{stage.total}",
            *(
                str(n) if n else ""
                for n in (stage.failed, stage.blocked, stage.running)
            ),
            "" if stage.mean_s is None else duration(stage.mean_s),
        )
    return Group(table, Text(_line(stages, at_a_time, trouble)))


def _line(stages: Sequence[StageStatus], at_a_time: int, trouble: str | None) -> str:
    if trouble is not None:
        return f"the scheduler does not answer, trying again ({trouble})"
    left = time_left_s(stages, at_a_time)
    if not any(stage.open for stage in stages):
        failed = sum(stage.failed for stage in stages)
        return f"finished; {failed} failed" if failed else "finished"
    if left is None:
        return "time left: not known until each stage has run once"
    return f"time left: about {duration(left)}, {at_a_time} at a time"


def failures(records: Records) -> list[Mapping[str, Any]]:
    """Records of failed tasks."""
    return [record for record in records.values() if record["status"] != "done"]
