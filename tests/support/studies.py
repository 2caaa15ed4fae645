"""Studies for the tests: real commands, and processes that are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import yaml

from nequip_decorr.study.records import RecordStore

from .commands import DATA, config_with

#: ``nequip-decorr``, from the code that is tested.
COMMAND = (
    sys.executable,
    "-c",
    "import sys; from nequip_decorr.cli.main import main; sys.exit(main())",
    "study",
)


#: A training that is long enough to be killed in; NequIP 0.19.1 restarts with another
#: order of shuffled frames.
FAST = ("trainer.max_epochs=12", "data.train_dataloader.shuffle=false")


def study_file(folder: Path, **changes: Any) -> Path:
    """A study of two learning rates of the tiny training, with MD of checkpoints."""
    config = config_with(folder, {})
    ase.io.write(folder / "start.extxyz", ase.io.read(DATA, "0:2"))
    md = {"structures": "start.extxyz", "timestep_fs": 2, "replicas": 1}
    study: dict[str, Any] = {
        "config": config.name,
        "seeds": [1],
        "variants": {
            "fast": list(FAST),
            "slow": ["training_module.optimizer.lr=0.002"],
        },
        "compile": False,
        "md": {"hot": {**md, "temperatures_K": [1200], "horizon_ps": 0.05}},
        "executor": {"local": {"processes": 2}},
    } | changes
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def environment() -> dict[str, str]:
    """One thread a process; the code that is tested."""
    paths = [
        str(Path(__file__).parents[2]),
        *os.environ.get("PYTHONPATH", "").split(":"),
    ]
    found = {"OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(filter(None, paths))}
    return {**os.environ, **found}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start ``nequip-decorr study``; its output is added to study.log."""
    with (folder / "study.log").open("a") as log:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder,
            env=environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``nequip-decorr study`` to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, and those that these have."""
    found = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def kill(process: subprocess.Popen[str], everything: bool) -> None:
    """``kill -9`` of a study's process, or of all that it has started as well."""
    victims = [process.pid, *(descendants(process.pid) if everything else [])]
    for victim in victims:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def kill_again_and_again(
    start: Callable[[], subprocess.Popen[str]],
    repeat: Callable[[], None],
    kills: int,
    longest_s: float,
    seed: int,
) -> None:
    """Start a study and kill it after a random time, as often as ``kills``.

    Half of the times at random the study is killed alone, and half of the times all
    that it has started. ``repeat`` is called if it is done before that.
    """
    rng = random.Random(seed)
    while kills:
        process = start()
        try:
            process.wait(rng.uniform(0.1, longest_s))
        except subprocess.TimeoutExpired:
            kill(process, everything=rng.random() < 0.5)
            kills -= 1
        else:
            assert process.returncode == 0
            repeat()


def results(folder: Path) -> dict[str, Any]:
    """What the records say, without times and what a machine adds."""
    store = RecordStore(folder)
    found = {path.stem: store.get(path.stem) for path in folder.glob("records/*.json")}
    found |= store.gathered()
    return {
        key: (record["status"], record["result"])
        for key, record in sorted(found.items())
    }
