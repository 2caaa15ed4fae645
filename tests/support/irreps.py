"""Features of irreps in both layouts, and their penalty by loops."""

import numpy as np
import torch
from e3nn.o3 import Irreps

from nequip_decorr.correlation.channels import block_moments, group_blocks, irrep_blocks
from nequip_decorr.correlation.functional import penalty
from tests.support import reference

FLOOR = reference.VARIANCE_FLOOR


def correlated(seed, edges, irreps):
    """Features of each irrep, [(edges, mul, dim)], channels partly alike."""
    rng = np.random.default_rng(seed)
    parts = []
    for mul, ir in Irreps(irreps):
        mix = np.eye(mul) + 0.7 * rng.normal(size=(mul, mul))
        x = rng.normal(size=(edges, mul, ir.dim))
        offset = rng.normal(size=mul)[:, None] if (ir.l, ir.p) == (0, 1) else 0.0
        parts.append(np.einsum("cd,edm->ecm", mix, x) + offset)
    return parts


def concatenated(parts):
    """E3nn's layout (edges, width), written out component by component."""
    rows = []
    for edge in range(len(parts[0])):
        rows.append([value for x in parts for channel in x[edge] for value in channel])
    return torch.tensor(np.array(rows).reshape(len(rows), -1))


def interleaved(parts):
    """Allegro's layout (edges, channels, components of all irreps)."""
    edges, channels, _ = parts[0].shape
    x = np.zeros((edges, channels, sum(x.shape[2] for x in parts)))
    for edge in range(edges):
        for channel in range(channels):
            x[edge, channel] = [v for part in parts for v in part[edge, channel]]
    return torch.tensor(x)


def looped(x, centred, kind="square", floor=FLOOR):
    """Penalty of one irrep (edges, channels, components) by its formula."""
    if centred:
        return reference.penalty(x[:, :, 0], kind, floor)
    edges, channels, dim = x.shape
    gram = np.zeros((channels, channels))
    for i in range(channels):
        for j in range(channels):
            for e in range(edges):
                for m in range(dim):
                    gram[i, j] += x[e, i, m] * x[e, j, m]
    average = sum(gram[i, i] for i in range(channels)) / channels
    total, pairs = 0.0, 0
    for i in range(channels):
        for j in range(i):
            vi, vj = gram[i, i] + floor * average, gram[j, j] + floor * average
            rho = gram[i, j] / (vi * vj) ** 0.5
            total += rho**2 if kind == "square" else abs(rho)
            pairs += 1
    return total / pairs


def values(fields, blocks, kind="square", floor=FLOOR):
    """Penalty of each block, in the order of the blocks."""
    found = torch.zeros(len(blocks), dtype=torch.float64)
    for group in group_blocks(blocks):
        m = block_moments(fields, [blocks[i] for i in group])
        found[group] = penalty(m, kind, floor)
    return found


LAYERS = ("3x0e+2x1o", "4x0e", "3x0e+4x1o")


def layered():
    """Blocks of three layers; the first and the fourth go into one product."""
    blocks = []
    for layer, irreps in enumerate(LAYERS):
        blocks += irrep_blocks(f"f{layer}", Irreps(irreps), layer, f"{layer}_messages")
    return blocks


def layered_features(seed, edges):
    return {
        f"f{layer}": concatenated(correlated(seed + layer, edges, irreps))
        for layer, irreps in enumerate(LAYERS)
    }


def by_hand(seeds, edges, kind="square"):
    """Value of each layer, over all batches, by loops."""
    found = []
    for layer, irreps in enumerate(LAYERS):
        total, pairs = 0.0, 0
        batches = [correlated(s + layer, edges, irreps) for s in seeds]
        for x, (mul, ir) in zip(
            [np.concatenate(b) for b in zip(*batches, strict=True)],
            Irreps(irreps),
            strict=True,
        ):
            weight = mul * (mul - 1) // 2
            total += weight * looped(x, ir.l == 0, kind)
            pairs += weight
        found.append(total / pairs)
    return found
