"""Where a task ran, and with which versions."""

from __future__ import annotations

import os
import platform
import socket
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nequip_decorr import __version__

PACKAGES = ("nequip", "nequip-allegro", "torch", "lightning", "ase", "numpy")


def machine(trained: bool) -> dict[str, Any]:
    """Description of the machine on which a task ran, which may be a training."""
    return {
        "host": socket.gethostname(),
        "system": platform.platform(terse=True),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "gpus": gpus() if trained else os.environ.get("CUDA_VISIBLE_DEVICES"),
        "python": platform.python_version(),
        "versions": versions(),
    }


def gpus() -> str | None:
    """GPUs that a training could take: those given to it, or how many there are."""
    import torch

    found = torch.cuda.device_count()
    if not found and torch.backends.mps.is_available():
        return "mps"
    return os.environ.get("CUDA_VISIBLE_DEVICES", str(found) if found else None)


def versions() -> dict[str, str]:
    """Versions of the relevant packages."""
    found = {"nequip-decorr": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
