"""Features of any torch model, by the names of the modules that compute them.

For force fields outside NequIP and for custom training loops. NequIP and Allegro models
do not need it: ``+nequip_decorr=constant`` finds their features automatically.

A :class:`Tap` keeps what the named modules return, with its graph, until the next
forward call. :mod:`nequip_decorr.correlation.functional` turns that into a penalty to
add to the loss. The model and its ``state_dict`` stay unchanged. A complete training
loop is in the documentation, under "Other force fields".
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nequip_decorr.errors import UserError

#: Takes the features from the positional inputs and the output of a module.
Pick = Callable[[tuple[Any, ...], Any], Tensor]


def output(inputs: tuple[Any, ...], result: Any) -> Tensor:
    """What a module returns."""
    features: Tensor = result
    return features


def listen(
    module: nn.Module, store: MutableMapping[str, Tensor], key: str, pick: Pick = output
) -> RemovableHandle:
    """Store the features of each call of a module in ``store[key]``."""

    def keep(_: nn.Module, inputs: tuple[Any, ...], result: Any) -> None:
        features = pick(inputs, result)
        if not isinstance(features, Tensor):
            raise UserError(
                f"expected module '{key}' to return a tensor of features, got "
                f"{type(features).__name__}; pass `pick` to select the tensor"
            )
        store[key] = features

    return module.register_forward_hook(keep)


class Tap:
    """Keeps the features that named modules compute.

    Use it as a context manager, or call :meth:`remove` when done.

    Args:
        model: any model.
        *patterns: names of modules as ``named_modules`` gives them, with shell-style
            wildcards; ``*`` also matches dots.
        pick: takes the features from the inputs and the output of a module.

    Attributes:
        features: name of the module -> what it returned last, in the order of calls. If
            a module is called several times in one forward call of the model, only the
            last output is kept.

    Raises:
        UserError: when a pattern matches no module.
    """

    def __init__(self, model: nn.Module, *patterns: str, pick: Pick = output) -> None:
        names = [name for name, _ in model.named_modules() if name]
        for pattern in patterns or ("",):
            if not any(fnmatchcase(name, pattern) for name in names):
                raise UserError(
                    f"expected a pattern that matches one of the model's modules, got "
                    f"'{pattern}'; the modules are {', '.join(names)}"
                )
        chosen = [n for n in names if any(fnmatchcase(n, p) for p in patterns)]
        self.features: dict[str, Tensor] = {}
        self._handles = [
            listen(model.get_submodule(name), self.features, name, pick)
            for name in chosen
        ]

    def remove(self) -> None:
        """Remove the hooks and release the features."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.features.clear()

    def __enter__(self) -> Tap:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()
