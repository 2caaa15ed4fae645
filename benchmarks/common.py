"""What the benchmarks share: running commands, naming the machine, Markdown tables."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

import torch

from nequip_decorr.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
#: Where the commands of the environment are.
BIN = Path(sys.executable).parent
PACKAGES = (
    *("nequip-decorr", "nequip", "nequip-allegro", "torch", "lightning", "ase"),
    *("numpy", "torch-sim-atomistic"),
)


class CommandError(RuntimeError):
    """A command failed; the message has its last lines."""


def environment() -> dict[str, str]:
    """Of a command: it finds the benchmarks, and runs on one thread."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **found}


def start(
    command: Sequence[str | Path], log: Path, **variables: str
) -> subprocess.Popen[bytes]:
    """Start a command in the repository's folder; its output is added to ``log``.

    ``variables`` are added to its environment.
    """
    with log.open("ab") as handle:
        return subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            stdout=handle,
            stderr=subprocess.STDOUT,
            env={**environment(), **variables},
        )


def finish(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a command.

    Raises:
        CommandError: when it failed.
    """
    if process.wait() != 0:
        shown = process.args if isinstance(process.args, list) else [process.args]
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise CommandError(f"{' '.join(map(str, shown))} failed, see {log}:\n{tail}")


def run(command: Sequence[str | Path], log: Path, **variables: str) -> float:
    """Run a command to its end as :func:`start` does; returns its CPU time in s.

    CPU time, because other processes share the machine.

    Raises:
        CommandError: when it failed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    finish(start(command, log, **variables), log)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def json_lines(command: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Run a command; returns what it prints, one JSON object a line.

    Its standard error is shown, and lines that are no JSON object are left out.

    Raises:
        CommandError: when it failed.
    """
    parts = [str(part) for part in command]
    done = subprocess.run(
        parts,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        check=False,
    )
    if done.returncode != 0:
        raise CommandError(f"{' '.join(parts)} failed:\n{done.stdout[-2000:]}")
    return [json.loads(x) for x in done.stdout.splitlines() if x.startswith("{")]


def machine() -> str:
    """Machine, versions and date, one line."""
    card = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{processor()}, {os.cpu_count()} cores{card}; {torch.get_num_threads()} "
        f"thread(s) a process; Python {platform.python_version()}, "
        f"{', '.join(_installed())}; {time.strftime('%Y-%m-%d')}"
    )


def processor() -> str:
    """Name of the processor, as far as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


def _installed() -> list[str]:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table; the first column to the left, numbers to the right."""
    line = "|---" + "|--:" * (len(columns) - 1) + "|"
    head, *body = [f"| {' | '.join(cells)} |" for cells in (columns, *rows)]
    return [head, line, *body]


def enter(main: Callable[[], int | None]) -> NoReturn:
    """Run a benchmark from the command line; what a user can mend is one message."""
    try:
        sys.exit(main())
    except (UserError, CommandError) as error:
        sys.exit(str(error))
