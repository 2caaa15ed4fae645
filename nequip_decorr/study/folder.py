"""The folder of a study.

::

    plan.json        what is studied, the questions, and when seeds became part of it
    records.jsonl    results of all tasks, once none is left to run: one line each
    records/KEY.json result of a finished task, until then
    tasks.json       every command, and the input files of this machine
    protocols/       protocols of MD
    models/NONE_1/   output of a model's commands, one folder per stage
    logs/KEY.log     its output
    attempts/KEY.json when it was started
    locks/KEY.lock   held while it runs, by the command itself
    study.lock       held by the command that runs the study
    jobs/, cache/    of the executor, and of compilers while they run

``plan.json`` and ``records.jsonl`` are all that a report needs. They have no paths of
the machine in them, so that a study can be copied, moved and archived.

Each file is written under another name and then moved into place, so the process can be
killed at any moment.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from nequip_decorr.errors import UserError
from nequip_decorr.md.files import file_sha256, write_atomic
from nequip_decorr.nested import differences
from nequip_decorr.study.config import Simulation
from nequip_decorr.study.plan import Plan, checksum
from nequip_decorr.study.records import RecordStore
from nequip_decorr.study.tasks import Task, protocol_path

SCHEMA = "nequip_decorr.study/1"

FOLDERS = (
    "protocols",
    "models",
    "records",
    "logs",
    "attempts",
    "locks",
    "jobs",
    "cache",
)


@dataclass(frozen=True)
class Registered:
    """The plan stored in the folder.

    Attributes:
        identity: what is studied.
        waves: seeds and the time at which they were added to the study.
        questions: fixed before the first training, in plain types.
        files: SHA-256, size and modification time of each input file; empty in a copy
            without ``tasks.json``.
        cwd: where commands run.
        tasks: every command; in a copy without ``tasks.json``, every task that has a
            record.
    """

    identity: dict[str, Any]
    waves: tuple[dict[str, Any], ...]
    questions: dict[str, Any]
    files: dict[str, dict[str, Any]]
    cwd: str
    tasks: tuple[Task, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """All training seeds."""
        return tuple(seed for wave in self.waves for seed in wave["seeds"])

    @property
    def checksum(self) -> str:
        """SHA-256 of the identity."""
        return checksum(self.identity)


class StudyFolder:
    """Reads and writes the folder of one study; records are in its ``store``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.store = RecordStore(self.path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder, so that no other process uses it.

        Raises:
            UserError: if another process runs a study here, the folder is used for
                something else, or it is not writable.
        """
        self._make()
        lock = FileLock(self.path / "study.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(
                f"another process is running the study in {self.path}; wait for it, or "
                f"look at it: nequip-decorr study status {self.path}"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _make(self) -> None:
        try:
            there = (
                {p.name for p in self.path.iterdir()} if self.path.exists() else set()
            )
            # what a study leaves that was killed before its plan was there
            ours = {*FOLDERS, "study.lock"}
            ours |= {"tasks.json", "tasks.json.part", "plan.json.part"}
            if "plan.json" not in there and there - ours:
                raise UserError(
                    f"expected a new folder or one of a study, got {self.path} with "
                    "other files in it; choose another --out"
                )
            for name in FOLDERS:
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"expected a writable folder for the study, got {self.path} "
                f"({error.strerror or error}); choose another --out"
            ) from error

    def digest(self, path: Path) -> str:
        """SHA-256 of a file; not read again while its size and time are the same."""
        known = self._read("tasks.json").get("files", {}).get(str(path))
        if known is not None and _stat(path) == {k: known[k] for k in _stat(path)}:
            return str(known["sha256"])
        return file_sha256(path)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            text = (self.path / name).read_text(encoding="utf-8")
        except OSError:
            return {}
        data: dict[str, Any] = json.loads(text)
        return data

    def register(
        self,
        plan: Plan,
        questions: Mapping[str, Any],
        simulations: tuple[Simulation, ...],
    ) -> Registered:
        """Store a plan, or compare it with the stored one; seeds may be added.

        Raises:
            UserError: if another study is stored here; the message says what differs.
        """
        data = self._read("plan.json")
        if data:
            self._compare(data, plan)
            known = [seed for wave in data["waves"] for seed in wave["seeds"]]
            new = [seed for seed in plan.seeds if seed not in known]
        else:
            data = {
                "schema": SCHEMA,
                "checksum": plan.checksum,
                "identity": plan.identity,
                "waves": [],
                "questions": dict(questions),
            }
            new = list(plan.seeds)
        if new:
            data["waves"].append({"seeds": new, "registered": time.strftime("%F %T%z")})
        local = {
            "cwd": str(Path.cwd()),
            "files": {
                path: {"sha256": digest, **_stat(Path(path))}
                for path, digest in plan.files.items()
            },
            "tasks": [asdict(task) for task in plan.tasks],
        }
        for simulation in simulations:
            protocol = {**simulation.protocol.to_dict(), "structures": None}
            text = yaml.safe_dump(protocol, sort_keys=False)
            write_atomic(protocol_path(self.path, simulation.name), text)
        write_atomic(self.path / "tasks.json", json.dumps(local, indent=1))
        write_atomic(self.path / "plan.json", json.dumps(data, indent=1))
        return self.registered()

    def _compare(self, data: Mapping[str, Any], plan: Plan) -> None:
        changes = differences(data["identity"], plan.identity)
        known = [seed for wave in data["waves"] for seed in wave["seeds"]]
        gone = [seed for seed in known if seed not in plan.seeds]
        if gone:
            changes.append(f"seeds {gone} are missing")
        if changes:
            shown = "; ".join(changes[:4]) + ("; ..." if len(changes) > 4 else "")
            raise UserError(
                f"{self.path} contains another study ({shown}); choose another --out, "
                "or restore that study (only seeds may be added)"
            )

    def registered(self) -> Registered:
        """The stored plan.

        Raises:
            UserError: if there is none, it is from another version, or this is a copy
            of only a part of an unfinished study.
        """
        data = self._read("plan.json")
        if data.get("schema") != SCHEMA:
            raise UserError(
                f"expected the folder of a study (plan.json with schema '{SCHEMA}'), "
                f"got {self.path}; check the path"
            )
        local = self._read("tasks.json")
        if local:
            tasks = [_task(each) for each in local["tasks"]]
        else:
            tasks = self._tasks_of_copy(data)
        return Registered(
            identity=data["identity"],
            waves=tuple(data["waves"]),
            questions=data["questions"],
            files=local.get("files", {}),
            cwd=local.get("cwd", ""),
            tasks=tuple(tasks),
        )

    def _tasks_of_copy(self, data: Mapping[str, Any]) -> list[Task]:
        records = self.store.gathered().values()
        seeds = [seed for wave in data["waves"] for seed in wave["seeds"]]
        expected = {(v, s) for v in data["identity"]["variants"] for s in seeds}
        if {(each["variant"], each["seed"]) for each in records} != expected:
            raise UserError(
                f"expected tasks.json or the records of all models in {self.path}, got "
                "a part of an unfinished study; copy tasks.json and records/ as well"
            )
        return [_task_of(record) for record in records]

    def changed_file(self, registered: Registered) -> str | None:
        """An input file that has changed since planning, if any."""
        for name, known in registered.files.items():
            path = Path(name)
            if not path.is_file():
                return name
            now = _stat(path)
            if (
                now != {k: known[k] for k in now}
                and file_sha256(path) != known["sha256"]
            ):
                return name
        return None

    def record(self, key: str) -> dict[str, Any] | None:
        """What is known of a task that has ended."""
        return self.store.get(key)

    def records(self, registered: Registered) -> dict[str, dict[str, Any]]:
        """All records, by task key."""
        found = {task.key: self.store.get(task.key) for task in registered.tasks}
        return {key: record for key, record in found.items() if record is not None}

    def lock(self, key: str) -> FileLock:
        """Lock of a task, held while it runs."""
        return FileLock(self.path / "locks" / f"{key}.lock")

    def is_running(self, key: str) -> bool:
        """Whether a process on this machine, or one sharing the disk, runs the task."""
        lock = self.lock(key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def log(self, key: str) -> Path:
        """Log file of a task."""
        return self.path / "logs" / f"{key}.log"

    def begin(self, key: str) -> list[dict[str, Any]]:
        """Record the start of a task; returns its attempts, this one last."""
        path = self.path / "attempts" / f"{key}.json"
        found = self.attempts(key)
        found.append({"began": time.time(), "ended": None})
        write_atomic(path, json.dumps(found), durable=False)
        return found

    def end(self, key: str, attempts: list[dict[str, Any]]) -> None:
        """Record that an attempt ended by itself."""
        attempts[-1]["ended"] = time.time()
        path = self.path / "attempts" / f"{key}.json"
        write_atomic(path, json.dumps(attempts), durable=False)

    def attempts(self, key: str) -> list[dict[str, Any]]:
        """Start and end of each attempt; the end is None if it was killed."""
        try:
            path = self.path / "attempts" / f"{key}.json"
            found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return found


def _task(data: Mapping[str, Any]) -> Task:
    lists = ("command", "needs", "test_sets")
    return Task(**{**data, **{name: tuple(data[name]) for name in lists}})


def _task_of(record: Mapping[str, Any]) -> Task:
    """Enough of a task for a report."""
    return Task(record["stage"], record["variant"], record["seed"], (), "")


def _stat(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
