"""Runs the real NequIP commands, each in a process of its own.

The processes are forked from a server that has imported the heavy libraries once, so
that a training takes the time of the training. What runs in them is the entry point of
the command with the user's arguments.
"""

from __future__ import annotations

import atexit
import csv
import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import traceback
import zipfile
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import yaml

HERE = Path(__file__).parent
DATA = HERE.parent / "data" / "hfo2.extxyz"

ENTRY_POINTS = {
    "nequip-train": "nequip.scripts.train",
    "nequip-package": "nequip.scripts.package",
    "nequip-compile": "nequip.scripts.compile",
    "nequip-decorr": "nequip_decorr.cli.main",
}

#: How long to wait for what takes a minute on an idle machine before it counts as hung.
HUNG_S = 3600.0

_CONTEXT = multiprocessing.get_context("forkserver")
# what the commands import of other packages; nothing of ours
_CONTEXT.set_forkserver_preload(
    [
        "nequip.scripts.train",
        "nequip.data.datamodule",
        "nequip.data.dataset",
        "nequip.integrations.ase",
        "nequip.model.saved_models.load_utils",
        "nequip.nn",
        "nequip.train.callbacks",
        "nequip.utils.xpu",
        "allegro.model",
        "lightning",
        "pytorch_lightning",
        "torch._inductor.codecache",
        "ase.build",
        "ase.io.extxyz",
        "matplotlib.figure",
        "matscipy.neighbours",
        "scipy.stats",
        "filelock",
        "jinja2",
        "rich.console",
        "rich.live",
        "rich.table",
    ]
)


def _enter(command: str, arguments: list[str], cwd: str, log: str) -> None:
    """In the child: become the command."""
    atexit._clear()  # what the server has registered is for the server to do
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.chdir(cwd)
    sys.path.insert(0, cwd)
    sys.argv = [command, *arguments]
    torch.set_num_threads(1)
    try:
        status = importlib.import_module(ENTRY_POINTS[command]).main()
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
        status = 1
    # as at the end of any interpreter; multiprocessing leaves them out before 3.14, and
    # loggers write their last lines there
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)


def start(command: str, arguments: list[str], cwd: Path, log: Path) -> BaseProcess:
    """Start a command; its output goes to ``log``."""
    process = _CONTEXT.Process(
        target=_enter, args=(command, arguments, str(cwd), str(log))
    )
    process.start()
    return process


@dataclass(frozen=True)
class Run:
    """A finished command: its folder, exit status and output."""

    folder: Path
    status: int
    output: str

    @property
    def metrics(self) -> list[dict[str, str]]:
        """Rows of Lightning's CSV log."""
        with (self.folder / "metrics.csv").open() as handle:
            return list(csv.DictReader(handle))

    @property
    def refusal(self) -> str:
        """The one line of a command that refuses what it was given."""
        lines = self.output.strip().splitlines()
        assert self.status == 2, self.output
        assert len(lines) == 1, self.output
        return lines[0]

    def column(self, name: str) -> list[float]:
        """Logged values of one metric in order."""
        return [float(row[name]) for row in self.metrics if row.get(name)]

    def checkpoint(self, name: str = "last.ckpt") -> dict[str, Any]:
        """A checkpoint's content."""
        loaded: dict[str, Any] = torch.load(
            self.folder / name, map_location="cpu", weights_only=False
        )
        return loaded


def run(command: str, arguments: list[str], folder: Path) -> Run:
    """Run a command to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{command}.log"
    log.unlink(missing_ok=True)
    process = start(command, arguments, folder, log)
    process.join(HUNG_S)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"{command} ran past {HUNG_S} s:\n{log.read_text()}")
    assert process.exitcode is not None
    return Run(folder, process.exitcode, log.read_text())


def md(folder: Path, *arguments: object) -> Run:
    """Run ``nequip-decorr md``."""
    return run("nequip-decorr", ["md", *map(str, arguments)], folder)


def train_arguments(
    folder: Path, *overrides: str, config: Path | None = None
) -> list[str]:
    """Arguments of ``nequip-train`` for the tiny training."""
    config = HERE / "tiny.yaml" if config is None else config
    arguments = ["-cp", str(config.parent), "-cn", config.stem]
    if config.stem == "tiny":
        arguments.append(f"data.split_dataset.file_path={DATA}")
    return [*arguments, f"hydra.run.dir={folder}", *overrides]


def train(folder: Path, *overrides: str, config: Path | None = None) -> Run:
    """Run the tiny training to its end, with success."""
    result = run(
        "nequip-train", train_arguments(folder, *overrides, config=config), folder
    )
    assert result.status == 0, result.output
    return result


def train_fails(folder: Path, *overrides: str, config: Path | None = None) -> str:
    """Run a training that must fail; returns its output."""
    result = run(
        "nequip-train", train_arguments(folder, *overrides, config=config), folder
    )
    assert result.status != 0, result.output
    return result.output


def config_with(folder: Path, change: dict[str, object], name: str = "mine") -> Path:
    """The tiny config with some of its dotted keys replaced."""
    config = yaml.safe_load((HERE / "tiny.yaml").read_text())
    config["data"]["split_dataset"]["file_path"] = str(DATA)
    for dotted, value in change.items():
        *parents, last = dotted.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        longer = isinstance(value, list) and isinstance(node.get(last), list)
        node[last] = node[last] + value if longer else value
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def compile_options(target: str) -> list[str]:
    """Options of ``nequip-compile``, beside the files."""
    return ["--device", "cpu", "--mode", "aotinductor", "--target", target]


def compile_model(checkpoint: Path, target: str, path: Path) -> Path:
    """Compile a checkpoint as a user does for ``target``; returns ``path``."""
    arguments = [str(checkpoint), str(path), *compile_options(target)]
    made = run("nequip-compile", arguments, path.parent)
    assert made.status == 0, made.output
    return path


def package_model(checkpoint: Path, path: Path) -> Path:
    """Package a checkpoint; returns ``path``."""
    arguments = ["build", str(checkpoint), str(path)]
    made = run("nequip-package", arguments, path.parent)
    assert made.status == 0, made.output
    return path


def script_model(checkpoint: Path, path: Path) -> Path:
    """Write a checkpoint as TorchScript; returns ``path``."""
    done = subprocess.run(
        [sys.executable, HERE / "torchscript.py", checkpoint, path],
        check=False,
        capture_output=True,
        text=True,
        timeout=HUNG_S,
    )
    assert done.returncode == 0, done.stderr
    return path


def with_metadata(model: Path, path: Path, **changes: str) -> Path:
    """A copy of a compiled model in whose metadata some values are others."""
    with zipfile.ZipFile(model) as old, zipfile.ZipFile(path, "w") as new:
        for item in old.infolist():
            content = old.read(item)
            if item.filename.endswith("_metadata.json"):
                metadata = json.loads(content)
                assert metadata.keys() >= changes.keys()
                content = json.dumps({**metadata, **changes}).encode()
            new.writestr(item, content)
    return path
