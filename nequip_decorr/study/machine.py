"""Where a task ran, and with which versions."""

from __future__ import annotations

import os
import platform
import socket
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nequip_decorr import __version__

PACKAGES = ("nequip", "nequip-allegro", "torch", "lightning", "ase", "numpy")


def machine() -> dict[str, Any]:
    """Description of the machine on which a task runs."""
    return {
        "host": socket.gethostname(),
        "system": platform.platform(terse=True),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "python": platform.python_version(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of the relevant packages."""
    found = {"nequip-decorr": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
