"""Executors: processes on this machine, SLURM (both by submitit), or this process."""

from __future__ import annotations

import json
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nequip_decorr.errors import UserError
from nequip_decorr.md.files import write_atomic
from nequip_decorr.study.executor_options import Executor
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.task import TaskRun
from nequip_decorr.study.tasks import Task
from nequip_decorr.wording import one_line

#: A task on this machine may take as long as it takes.
TEN_YEARS_MIN = 5_000_000

#: SLURM's own limit, unless it is configured.
LARGEST_ARRAY = 1000


class UnreachableError(RuntimeError):
    """The scheduler does not answer; its jobs keep running."""


class Runner(ABC):
    """Runs tasks somewhere.

    Attributes:
        poll_s: seconds between checks of running tasks.
        survives: whether tasks keep running when the study's own process ends.
    """

    poll_s = 0.2
    survives = False

    @abstractmethod
    def room(self) -> int:
        """Number of tasks that can be submitted now."""

    @abstractmethod
    def submit(self, tasks: Sequence[Task]) -> set[str]:
        """Start tasks, or queue them.

        Returns:
            Keys of those that were accepted; the others may be submitted again later.

        Raises:
            UserError: if tasks are refused for good.
            UnreachableError: if the scheduler does not answer.
        """

    @abstractmethod
    def active(self) -> set[str]:
        """Keys of the tasks that have been submitted and have not ended.

        Raises:
            UnreachableError: if this cannot be determined now.
        """

    def ending(self, key: str) -> str:
        """Why a task ended without a record."""
        return "its process ended without a record (killed?)"

    def finish(self) -> None:  # noqa: B027
        """Clean up after all tasks have ended."""

    @abstractmethod
    def cancel(self) -> None:
        """End all tasks."""


class LocalRunner(Runner):
    """Processes on this machine, each with its share of cores and GPUs."""

    def __init__(self, folder: StudyFolder, options: Executor) -> None:
        from submitit import LocalExecutor

        self.folder = folder
        self.gpus = [] if options.gpus == 0 else visible_gpus()
        if options.gpus is not None:
            if options.gpus > len(self.gpus):
                raise UserError(
                    f"expected at most {len(self.gpus)} GPUs, got {options.gpus} in "
                    "executor.local.gpus; lower it"
                )
            self.gpus = self.gpus[: options.gpus]
        self.slots = options.processes or max(1, len(self.gpus))
        self.executor = LocalExecutor(folder.path / "jobs")
        self.running: dict[int, tuple[str, Any]] = {}

    def room(self) -> int:
        self._clear()
        return self.slots - len(self.running)

    def submit(self, tasks: Sequence[Task]) -> set[str]:
        for task in tasks:
            slot = next(i for i in range(self.slots) if i not in self.running)
            self.executor.update_parameters(
                timeout_min=TEN_YEARS_MIN, **gpu_parameters(self.gpus, slot)
            )
            os.environ.setdefault("OMP_NUM_THREADS", str(self._threads()))
            job = self.executor.submit(TaskRun(str(self.folder.path), task.key))
            self.running[slot] = (task.key, job)
        return {task.key for task in tasks}

    def _threads(self) -> int:
        return max(1, (os.cpu_count() or 1) // self.slots)

    def active(self) -> set[str]:
        self._clear()
        return {key for key, _ in self.running.values()}

    def _clear(self) -> None:
        self.running = {
            slot: (key, job)
            for slot, (key, job) in self.running.items()
            if not job.done()
        }

    def finish(self) -> None:
        for _, job in self.running.values():
            job._process.wait()

    def cancel(self) -> None:
        for _, job in self.running.values():
            # submitit's own cancel sends SIGINT, which processes in the background of
            # a shell ignore
            job._process.terminate()
        self.finish()


def visible_gpus() -> list[int]:
    """Numbers of the GPUs of this machine that this process may use.

    Raises:
        UserError: as :func:`chosen_gpus`.
    """
    import torch

    return chosen_gpus(torch.cuda.device_count(), os.environ)


def chosen_gpus(count: int, environment: Mapping[str, str]) -> list[int]:
    """Numbers for ``CUDA_VISIBLE_DEVICES``, which submitit replaces in each task.

    Args:
        count: number of visible GPUs.
        environment: environment variables of this process.

    Raises:
        UserError: if ``CUDA_VISIBLE_DEVICES`` does not give numbers.
    """
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if not count or chosen is None:
        return list(range(count))
    try:
        return [int(number) for number in chosen.split(",")[:count]]
    except ValueError as error:
        raise UserError(
            f"expected numbers of GPUs in CUDA_VISIBLE_DEVICES, got {chosen!r}; use "
            "those that nvidia-smi lists"
        ) from error


def gpu_parameters(gpus: Sequence[int], slot: int) -> dict[str, Any]:
    """Parameters for submitit: the GPU of a slot, round robin."""
    if not gpus:
        return {"gpus_per_node": 0}
    return {"gpus_per_node": 1, "visible_gpus": [gpus[slot % len(gpus)]]}


class DebugRunner(Runner):
    """Runs one task after another in this process, where a debugger can follow.

    submitit's DebugExecutor is not used because it waits in pdb when a task fails.
    """

    poll_s = 0.0

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder

    def room(self) -> int:
        return 1

    def submit(self, tasks: Sequence[Task]) -> set[str]:
        if "CUDA_VISIBLE_DEVICES" not in os.environ:  # records have it
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, visible_gpus()))
        for task in tasks:
            TaskRun(str(self.folder.path), task.key)()
        return {task.key for task in tasks}

    def active(self) -> set[str]:
        return set()

    def cancel(self) -> None:
        """Nothing to do, since only this process runs."""


class SlurmRunner(Runner):
    """SLURM job arrays, which keep running without this process."""

    poll_s = 10.0
    survives = True

    def __init__(self, folder: StudyFolder, options: Executor) -> None:
        from submitit import SlurmExecutor

        self.folder = folder
        self.path = folder.path / "jobs" / "slurm.json"
        try:
            self.executor = SlurmExecutor(
                folder.path / "jobs", max_num_timeout=options.max_num_timeout
            )
            self.executor.update_parameters(
                **{"job_name": folder.path.name, **options.slurm}
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"cannot use SLURM: {one_line(error)}; check that sbatch is available "
                "and that executor.slurm is valid"
            ) from error
        delay_s = options.slurm.get("signal_delay_s", 90)
        self.patience_s = min(30.0, delay_s / 3)
        self.jobs: dict[str, str] = (
            json.loads(self.path.read_text()) if self.path.exists() else {}
        )
        # jobs of a study that was ended; gone at the first look, they are not ours
        self.missing = dict.fromkeys(self.jobs, 1)
        self.alive = 0  # jobs in the queue
        self.most_alive: int | None = None  # at which one more was refused
        self.array = LARGEST_ARRAY  # tasks to submit at once

    def room(self) -> int:
        full = self.most_alive is not None and self.alive >= self.most_alive
        return 0 if full else self.array

    def submit(self, tasks: Sequence[Task]) -> set[str]:
        """Submit an array, or as much of it as SLURM accepts.

        Clusters limit the size of an array and the jobs of a user. An array that is
        refused is halved; a single job that is refused waits until others have ended.
        """
        runs = [TaskRun(str(self.folder.path), t.key, self.patience_s) for t in tasks]
        try:
            jobs = (
                self.executor.submit_array(runs)
                if len(runs) > 1
                else [self.executor.submit(runs[0])]
            )
        except Exception as error:
            before = self.alive
            self.alive = len(queued_jobs().intersection(self.jobs.values()))
            if len(tasks) > 1:
                self.array = len(tasks) // 2
                return self.submit(tasks[: self.array])
            if self.alive or before:  # the others may have ended just now
                self.most_alive = max(1, self.alive)
                return set()
            raise UserError(
                f"sbatch refused a job: {one_line(error, 400)}; change executor.slurm "
                "and rerun the same command"
            ) from error
        self.array, self.most_alive = min(LARGEST_ARRAY, 2 * self.array), None
        for task, job in zip(tasks, jobs, strict=True):
            self.jobs[task.key] = str(job.job_id)
            self.missing.pop(task.key, None)
        write_atomic(self.path, json.dumps(self.jobs, indent=1))
        return {task.key for task in tasks}

    def active(self) -> set[str]:
        queued = queued_jobs()
        found = set()
        for key, job in self.jobs.items():
            # a job may be missing for a moment: between a requeue and the queue, or
            # until its record is seen through a network file system
            self.missing[key] = 0 if job in queued else self.missing.get(key, 0) + 1
            if self.missing[key] < 2:
                found.add(key)
        self.alive = len(queued.intersection(self.jobs.values()))
        return found

    def ending(self, key: str) -> str:
        job = self.jobs.get(key)
        try:
            words = " ".join(_lines("scontrol", "show", "job", "--oneliner", str(job)))
        except UnreachableError:
            words = ""
        state = next(
            (w.partition("=")[2] for w in words.split() if w.startswith("JobState=")),
            "unknown",
        )
        return f"SLURM job {job} ended without a record (state {state})"

    def cancel(self) -> None:
        """Leave jobs in the queue, where the next call finds them."""


def queued_jobs() -> set[str]:
    """Numbers of the user's pending and running jobs.

    Raises:
        UnreachableError: if SLURM does not answer.
    """
    return set(_lines("squeue", "--noheader", "--array", "--me", "--format=%i"))


def _lines(*command: str) -> list[str]:
    """Output of a SLURM command.

    Raises:
        UnreachableError: if it fails.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UnreachableError(f"{command[0]}: {one_line(error)}") from error
    return done.stdout.split("\n")


def make_runner(folder: StudyFolder, options: Executor) -> Runner:
    """The runner requested in ``study.yaml``.

    Raises:
        UserError: if it is not available.
    """
    if options.kind == "slurm":
        return SlurmRunner(folder, options)
    if options.kind == "debug":
        return DebugRunner(folder)
    return LocalRunner(folder, options)


def groups(tasks: Iterable[Task]) -> list[list[Task]]:
    """Tasks grouped by stage, one array each."""
    found: dict[str, list[Task]] = {}
    for task in tasks:
        found.setdefault(task.stage, []).append(task)
    return list(found.values())
