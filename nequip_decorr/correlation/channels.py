r"""Which channels are correlated with each other.

A field of a model's output, shape (rows, channels, ...), is divided into blocks:
channels of the same kind. Invariant scalars have Pearson's correlation. The channels of
an irreducible representation (l, p) have 2l+1 components each and the correlation

.. math::

    \rho_{cc'} = \frac{\sum_{em} x_{ecm}\, x_{ec'm}}
                      {\sqrt{\sum_{em} x_{ecm}^2 \; \sum_{em} x_{ec'm}^2}}

over rows e and components m. Real Wigner D matrices are orthogonal, so it does not
change when frames, or even single edges, are rotated or inverted. Channels of different
(l, p) have no invariant correlation (Schur's lemma). Only 0e is centred, because the
mean of anything else rotates with the frame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nequip_decorr.checks import is_finite
from nequip_decorr.correlation.functional import Moments, as_blocks, moments
from nequip_decorr.errors import UserError


class Block(NamedTuple):
    """Channels of one field that are correlated with each other.

    Channel c has the components ``start + c * step + m`` for m in 0 .. ``dim`` - 1 of a
    row, all dimensions but the first flattened.

    Attributes:
        field: key of the features.
        channels: number of channels.
        layer: index of the layer, over whose blocks the penalty is averaged.
        name: name in logs: the layer, and the irrep where a layer has several blocks.
        start: component of a row at which the block starts.
        dim: components of a channel, 2l+1.
        step: components from one channel to the next.
        centred: whether the mean is subtracted; valid for 0e only.
    """

    field: str
    channels: int
    layer: int = 0
    name: str = "0"
    start: int = 0
    dim: int = 1
    step: int = 1
    centred: bool = True

    @property
    def pairs(self) -> int:
        """Number of pairs of channels."""
        return self.channels * (self.channels - 1) // 2


def scalar_blocks(field: str, channels: int, layers: int) -> list[Block]:
    """Layers of ``channels`` invariant scalars each, one after the other."""
    return [
        Block(field, channels, layer, str(layer), start=layer * channels)
        for layer in range(layers)
    ]


def irrep_blocks(
    field: str,
    irreps: Iterable[Any],
    layer: int = 0,
    name: str = "0",
    strided: int | None = None,
) -> list[Block]:
    """One block for each irreducible representation of one layer's features.

    Args:
        field: key of the features.
        irreps: e3nn's ``Irreps``; adjacent irreps of the same (l, p) form one block.
        layer: index of the layer.
        name: name of the layer; the blocks are called ``{name}_0e``, ``{name}_1o``, ...
        strided: number of channels of features in Allegro's layout (rows, channels,
            components of all ``irreps``); None for e3nn's layout, irrep by irrep.

    Returns:
        blocks of two channels or more; a single channel has no correlation.
    """
    merged: list[tuple[int, Any]] = []
    for mul, ir in irreps:
        if merged and merged[-1][1] == ir and strided is None:
            merged[-1] = (merged[-1][0] + mul, ir)
        else:
            merged.append((mul, ir))
    width = sum(mul * ir.dim for mul, ir in merged)
    count, seen = Counter(str(ir) for _, ir in merged), Counter[str]()
    blocks, start = [], 0
    for mul, ir in merged:
        label = str(ir)
        seen[label] += 1
        if count[label] > 1:
            label = f"{label}_{seen[label]}"
        block = Block(
            field,
            channels=mul if strided is None else strided,
            layer=layer,
            name=f"{name}_{label}",
            start=start,
            dim=ir.dim,
            step=ir.dim if strided is None else width,
            centred=(ir.l, ir.p) == (0, 1),
        )
        start += mul * ir.dim
        blocks.append(block)
    return [block for block in blocks if block.pairs]


def group_blocks(
    blocks: Sequence[Block], max_channels: int | None = None
) -> list[list[int]]:
    """Indices of blocks that fit into one batched product, in order of appearance.

    Blocks of more than ``max_channels`` count as having that many.
    """
    groups: dict[tuple[int, int, bool], list[int]] = {}
    for index, block in enumerate(blocks):
        channels = min(block.channels, max_channels or block.channels)
        key = (channels, block.dim, block.centred)
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def check_layer_weights(weights: Sequence[float] | None) -> None:
    """Raise UserError unless these are finite weights >= 0, not all 0, or None."""
    if weights is not None and not (
        all(is_finite(w) and w >= 0 for w in weights) and sum(weights) > 0
    ):
        raise UserError(
            f"expected finite `layer_weights` >= 0, not all 0, got {weights}"
        )


def block_weights(
    blocks: Sequence[Block], layer_weights: Sequence[float] | None = None
) -> list[float]:
    """Weight of each block in the mean over layers; they sum to 1.

    A layer's blocks count by their number of pairs, dead channels included, so that the
    penalty of a layer is the mean over all pairs of channels that can correlate.

    Args:
        blocks: all blocks of all layers.
        layer_weights: one weight a layer; None weights layers equally.

    Raises:
        UserError: when ``layer`` does not count from 0, a layer has no pairs, or there
            is not one weight a layer.
    """
    layers = sorted({block.layer for block in blocks})
    pairs = [sum(b.pairs for b in blocks if b.layer == layer) for layer in layers]
    if not layers or layers != list(range(len(layers))) or not all(pairs):
        raise UserError(
            f"expected layers 0, 1, ... with blocks of two channels or more, got "
            f"{[(block.layer, block.channels) for block in blocks]}"
        )
    given = [1.0] * len(layers) if layer_weights is None else layer_weights
    if len(given) != len(layers):
        raise UserError(
            f"expected one value in `layer_weights` for each of the {len(layers)} "
            f"layers, got {len(given)}"
        )
    total = sum(given)
    return [
        given[block.layer] / total * block.pairs / pairs[block.layer]
        for block in blocks
    ]


def block_moments(
    fields: Mapping[str, Tensor],
    blocks: Sequence[Block],
    weight: float = 1.0,
    chosen: Mapping[int, Tensor] | None = None,
) -> Moments:
    """Moments of blocks that :func:`group_blocks` put together, differentiably.

    Args:
        fields: features (rows, ...) of equal numbers of rows.
        blocks: alike in ``dim`` and ``centred``, and in the number of channels.
        weight: see :func:`.functional.moments`.
        chosen: which channels to take, see :func:`stack_blocks`.

    Returns:
        moments of L blocks. Rows count once, whatever ``dim`` is.

    Raises:
        UserError: when a field is not floating, or does not have the channels.
    """
    x = stack_blocks(fields, blocks, chosen)
    m = moments(x, weight, blocks[0].centred)
    dim = blocks[0].dim
    return m if dim == 1 else m._replace(rows=m.rows / dim, weight=m.weight / dim)


def stack_blocks(
    fields: Mapping[str, Tensor],
    blocks: Sequence[Block],
    chosen: Mapping[int, Tensor] | None = None,
) -> Tensor:
    """Blocks side by side, (rows * dim, L, channels).

    Args:
        fields: features (rows, ...) of equal numbers of rows.
        blocks: alike in ``dim`` and ``centred``, and in channels once these are chosen.
        chosen: number of channels of a block -> the channels to take; blocks of other
            widths are taken whole.

    Raises:
        UserError: when a field is not floating, or does not have the channels.
    """
    chosen = chosen or {}
    first = blocks[0]
    channels = first.channels
    one_after_the_other = [
        first._replace(layer=b.layer, name=b.name, start=first.start + i * channels)
        for i, b in enumerate(blocks)
    ]
    if first.dim == first.step == 1 and list(blocks) == one_after_the_other:
        x = _flat(fields, blocks[-1])
        # a view; narrowing to the full width would cost a copy in the backward pass
        width = len(blocks) * channels
        x = x if width == x.shape[1] else x.narrow(1, first.start, width)
        x = as_blocks(x, channels)
        return x.index_select(2, chosen[channels]) if channels in chosen else x
    parts = []
    for block in blocks:
        part = _select(_flat(fields, block), block)
        if block.channels in chosen:
            part = part.index_select(1, chosen[block.channels])
        parts.append(part)
    return torch.stack(parts, 1)


def _flat(fields: Mapping[str, Tensor], block: Block) -> Tensor:
    x = fields[block.field]
    x = x.flatten(1) if x.dim() > 2 else x
    needed = block.start + (block.channels - 1) * block.step + block.dim
    if x.dim() != 2 or not x.is_floating_point() or x.shape[1] < needed:
        raise UserError(
            f"expected floating features `{block.field}` of shape (rows, {needed} or "
            f"more), got {x.dtype} of shape {tuple(x.shape)}"
        )
    return x


def _select(x: Tensor, block: Block) -> Tensor:
    """One block as (rows * dim, channels)."""
    length = (block.channels - 1) * block.step + block.dim
    part = x.narrow(1, block.start, length).unfold(1, block.dim, block.step)
    return part.transpose(1, 2).reshape(-1, block.channels)
