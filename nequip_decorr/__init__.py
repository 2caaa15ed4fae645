"""Edge-feature decorrelation for NequIP and Allegro, and tests of MD stability.

Nothing here is imported by ``import nequip``; the names below load on first use.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0.dev0"

_PUBLIC = {
    "EdgeCorrelation": "nequip_decorr.correlation.pooled",
    "EdgeDecorrelation": "nequip_decorr.training.callback",
    "UserError": "nequip_decorr.errors",
}

__all__ = ["EdgeCorrelation", "EdgeDecorrelation", "UserError", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'nequip_decorr' has no attribute '{name}'")
