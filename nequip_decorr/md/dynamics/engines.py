"""The available engines, and how each loads its model and is built.

The module of an engine has two functions:

- ``load(path, kind, device)`` opens a model file for it (a
  :data:`nequip_decorr.md.models.Loader`), with no element mapped to a type yet;
- ``build(model, protocol)`` makes a
  :class:`nequip_decorr.md.dynamics.contract.Engine` of what ``load`` gave.

Modules are imported on use: an engine may need packages that are not installed.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple, cast

from nequip_decorr.checks import check_choice
from nequip_decorr.errors import UserError
from nequip_decorr.md.dynamics.contract import Engine
from nequip_decorr.md.models import Loader
from nequip_decorr.md.protocol import Protocol


class Kind(NamedTuple):
    """An engine's module, and whether one model call serves many replicas."""

    module: str
    batched: bool


#: name -> engine
ENGINES = {
    "ase": Kind("nequip_decorr.md.dynamics.ase_forces", batched=False),
    "torchsim": Kind("nequip_decorr.md.dynamics.torchsim_forces", batched=True),
}


def loader(engine: str) -> Loader:
    """The function that opens a model file for an engine.

    Raises:
        UserError: if there is no such engine, or its packages are missing.
    """
    return cast("Loader", _module(engine).load)


def build(engine: str, model: Any, protocol: Protocol) -> Engine:
    """An engine for one model and protocol.

    Raises:
        UserError: as :func:`loader`.
    """
    return cast("Engine", _module(engine).build(model, protocol))


def batched(engine: str) -> bool:
    """Whether an engine works best with many replicas at once.

    Raises:
        UserError: if there is no such engine.
    """
    return _kind(engine).batched


def _kind(engine: str) -> Kind:
    check_choice("engine", engine, ENGINES)
    return ENGINES[engine]


def _module(engine: str) -> Any:
    try:
        return importlib.import_module(_kind(engine).module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"engine {engine!r} needs {error.name}; run "
            f"`pip install 'nequip-decorr[{engine}]'`"
        ) from error
