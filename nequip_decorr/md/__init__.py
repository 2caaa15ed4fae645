"""MD stability: run replicas, detect failures, and analyse survival."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nequip_decorr.md.lammps.write import write_lammps
    from nequip_decorr.md.models import calculator_model, load_model
    from nequip_decorr.md.presets import PRESETS, preset, read_protocol
    from nequip_decorr.md.protocol import Criteria, Protocol
    from nequip_decorr.md.running.run import RunStoppedError, run_stability

#: public name -> the module that has it; imported on first use
_HOMES = {
    "PRESETS": "presets",
    "Criteria": "protocol",
    "Protocol": "protocol",
    "RunStoppedError": "running.run",
    "calculator_model": "models",
    "load_model": "models",
    "preset": "presets",
    "read_protocol": "presets",
    "run_stability": "running.run",
    "write_lammps": "lammps.write",
}

__all__ = [
    "PRESETS",
    "Criteria",
    "Protocol",
    "RunStoppedError",
    "calculator_model",
    "load_model",
    "preset",
    "read_protocol",
    "run_stability",
    "write_lammps",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
