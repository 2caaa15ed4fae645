"""Which engines there are, and how each gets its model and is built.

The module of an engine has two functions:

- ``load(path, kind, device)`` opens a model file for it (a
  :data:`nequip_decorr.md.models.Loader`), with no element mapped to a type yet;
- ``build(model, protocol)`` makes a
  :class:`nequip_decorr.md.dynamics.contract.Engine` of what ``load`` gave.

Modules are imported on use: an engine may need packages that are not installed.
"""

from __future__ import annotations

import importlib
from typing import Any, cast

from nequip_decorr.errors import UserError
from nequip_decorr.md.dynamics.contract import Engine
from nequip_decorr.md.models import Loader
from nequip_decorr.md.protocol import Protocol, nearest_name

#: name -> module
ENGINES = {
    "ase": "nequip_decorr.md.dynamics.ase_engine",
    "torchsim": "nequip_decorr.md.dynamics.torchsim_engine",
}


def loader(engine: str) -> Loader:
    """What opens a model file for an engine.

    Raises:
        UserError: when there is no such engine, or its packages are missing.
    """
    return cast("Loader", _module(engine).load)


def build(engine: str, model: Any, protocol: Protocol) -> Engine:
    """An engine for one model and protocol.

    Raises:
        UserError: as :func:`loader`.
    """
    return cast("Engine", _module(engine).build(model, protocol))


def _module(engine: str) -> Any:
    if engine not in ENGINES:
        raise UserError(
            f"expected an engine of {', '.join(ENGINES)}, "
            f"got {engine!r}{nearest_name(engine, ENGINES)}"
        )
    try:
        return importlib.import_module(ENGINES[engine])
    except ModuleNotFoundError as error:
        raise UserError(
            f"expected the packages of engine {engine!r}, got none called "
            f"{error.name}; do `pip install 'nequip-decorr[{engine}]'`"
        ) from error
