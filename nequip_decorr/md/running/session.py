"""Process settings of a run, and the description of the machine."""

from __future__ import annotations

import datetime
import os
import platform
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from nequip_decorr.md.running.pool import threads, use_threads


def machine(engine: str, device: str, processes: int) -> dict[str, Any]:
    """Host, versions and settings, for the reader of a result file."""
    packages = ("nequip-decorr", "nequip", "nequip-allegro", "torch", "ase", "numpy")
    return {
        "host": platform.node(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "engine": engine,
        "device": device,
        "processes": processes,
        "threads": threads(),
        "written": datetime.datetime.now(datetime.timezone.utc).isoformat(
            "T", "seconds"
        ),
    }


@contextmanager
def torch_threads() -> Iterator[None]:
    """Use as many torch threads as worker processes do, so that sums agree."""
    before = use_threads(threads())
    try:
        yield
    finally:
        use_threads(before)


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Turn the first SIGINT or SIGTERM into an entry of a list.

    Outside the main thread nothing is caught, because Python does not allow it.
    """
    caught: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def note(number: int, _: object) -> None:
        caught.append(number)
        for signum, handler in before.items():
            signal.signal(signum, handler)

    try:
        for signum in (signal.SIGINT, signal.SIGTERM):
            before[signum] = signal.signal(signum, note)
    except ValueError:
        before.clear()
    try:
        yield caught
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
