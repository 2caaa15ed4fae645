"""Features of any torch model, by the names of the modules that compute them.

For force fields outside NequIP and for custom training loops. NequIP and Allegro models
do not need it: ``+nequip_decorr=constant`` finds their features automatically.

A :class:`Tap` keeps what the named modules return, with its graph, until the next
forward call. :mod:`nequip_decorr.correlation.functional` turns that into a penalty to
add to the loss. The model and its ``state_dict`` stay unchanged:

.. code-block:: python

    import torch
    from ase.io import read
    from torch_geometric.nn.models import SchNet

    from nequip_decorr.correlation.functional import as_blocks, moments, penalty
    from nequip_decorr.hooks import Tap

    coefficient = 1.0
    frames = read("frames.extxyz", ":")
    mean = sum(frame.get_potential_energy() for frame in frames) / len(frames)


    def neighbors(pos, batch):
        near = torch.cdist(pos.detach(), pos.detach()).fill_diagonal_(9.0) < 4.0
        i, j = near.nonzero(as_tuple=True)
        return torch.stack([i, j]), (pos[i] - pos[j]).norm(dim=-1)


    torch.manual_seed(0)
    model = SchNet(32, 32, num_interactions=2, cutoff=4.0, interaction_graph=neighbors)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    # the filters of each interaction, (edges, filters): a NequIP GNN's radial weights
    with Tap(model, "interactions.*.mlp") as tap:
        for frame in frames:
            pos = torch.tensor(frame.positions, dtype=torch.float32, requires_grad=True)
            energy = model(torch.tensor(frame.numbers), pos).sum()
            (gradient,) = torch.autograd.grad(energy, pos, create_graph=True)
            loss = (energy - frame.get_potential_energy() + mean).square() / len(frame)
            loss = loss + (gradient + torch.tensor(frame.get_forces())).square().mean()
            layers = [penalty(moments(as_blocks(x))) for x in tap.features.values()]
            loss = loss + coefficient * torch.cat(layers).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

To find names, print ``[name for name, _ in model.named_modules()]`` and look for
modules that return one row of features for each edge. In MACE, for instance,
``interactions.*.conv_tp_weights`` returns the radial weights of each interaction and
``interactions.*.conv_tp`` its messages. Messages are equivariant, so use

.. code-block:: python

    from nequip_decorr.correlation.channels import (
        block_moments, group_blocks, irrep_blocks
    )

    blocks = irrep_blocks(name, module.irreps_out)  # e3nn's Irreps
    for group in group_blocks(blocks):
        alike = [blocks[index] for index in group]
        values = penalty(block_moments(tap.features, alike))  # one a block

A coefficient that changes during training can come from
:class:`nequip_decorr.training.schedules.Cosine`. With data parallelism each rank
penalises its own edges only, unless the moments are summed over ranks first, as
:class:`nequip_decorr.EdgeCorrelation` does.
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
                f"{type(features).__name__}; give `pick` to take the tensor from it"
            )
        store[key] = features

    return module.register_forward_hook(keep)


class Tap:
    """Keeps the features that named modules compute; see the example above.

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
