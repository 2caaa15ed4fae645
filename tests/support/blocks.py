"""Blocks of two fields, alike and different, and their loss by autograd."""

import torch

from nequip_decorr.correlation.channels import Block
from tests.support import reference

#: blocks alike and different, centred and not, of two fields: 5 layers
BLOCKS = [
    Block("a", 6, 0, "0"),
    Block("a", 6, 1, "1", start=6),
    Block("b", 4, 2, "2_1o", start=0, dim=3, step=3, centred=False),
    Block("b", 5, 2, "2_0e", start=12),
    Block("b", 9, 3, "3", start=17),
    Block("a", 12, 4, "4"),
]


def fields(seed, edges, dtype=torch.float64):
    return {
        "a": reference.mixed_features(seed, edges, 2, 6, dtype).requires_grad_(),
        "b": reference.mixed_features(seed + 1, edges, 1, 26, dtype).requires_grad_(),
    }


def value_and_gradient(metric, features):
    value = metric(features, {})
    grads = torch.autograd.grad(
        value, list(features.values()), allow_unused=True, materialize_grads=True
    )
    return value.item(), torch.cat([grad.flatten() for grad in grads])


def naive(features, weights, kind, floor=reference.VARIANCE_FLOOR):
    """The loss of :data:`BLOCKS`, block by block and column by column, by autograd."""
    weights = weights or [1] * 5
    total, pairs_of = 0.0, dict.fromkeys(range(5), 0.0)
    for block in BLOCKS:
        pairs_of[block.layer] += block.channels * (block.channels - 1)
    for block in BLOCKS:
        x = features[block.field]
        columns = [
            torch.cat(
                [x[:, block.start + c * block.step + m] for m in range(block.dim)]
            )
            for c in range(block.channels)
        ]
        z = torch.stack(columns, dim=1)
        z = z - z.mean(dim=0) if block.centred else z
        gram = z.T @ z
        variance = gram.diag() + floor * gram.diag().mean()
        r = gram / (variance[:, None] * variance[None, :]).sqrt()
        off = r[~torch.eye(block.channels, dtype=torch.bool)]
        value = (off**2 if kind == "square" else off.abs()).sum()
        total = total + weights[block.layer] * value / pairs_of[block.layer]
    return total / sum(weights)
