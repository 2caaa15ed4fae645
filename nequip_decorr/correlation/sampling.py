"""Random draws of edges and channels, reproducible by a seed."""

from __future__ import annotations

import torch
from torch import Tensor

from nequip_decorr.errors import UserError


def step_seed(seed: int, step: int) -> int:
    """Seed of what one step draws, for the functions below.

    torch's generator on a CPU takes 32 bits; an odd factor keeps seeds apart.
    """
    return (seed * 0x9E3779B1 + step) % 2**32


def subsample_rows(
    total: int, keep: int, seed: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw ``keep`` of ``total`` rows without replacement, each equally likely.

    One row comes from each of ``keep`` consecutive strata, whose borders are shifted
    (cyclically) by a random number. Edges are sorted by frame and atom, so strata
    spread the draw over frames and atoms; the cost is O(keep), where a permutation
    would cost O(total). A correlation estimated from s rows has a standard deviation
    of about (1 - rho^2)/sqrt(s - 1).

    Args:
        total: number of rows, at least ``keep``.
        keep: number of rows to draw.
        seed: equal seeds draw equal rows on one kind of device; below 2^32, since the
            generator of a CPU ignores higher bits.
        device: where the indices are wanted.

    Returns:
        distinct indices, int64, shape ``(keep,)``.

    Raises:
        UserError: when ``keep`` is not between 1 and ``total``.
    """
    if not 1 <= keep <= total:
        raise UserError(
            f"expected to keep between 1 and all of {total} rows, got {keep}"
        )
    generator = torch.Generator(device=device)
    generator.manual_seed(seed)
    uniform = torch.rand(
        keep + 1, generator=generator, device=device, dtype=torch.float64
    )
    border = torch.arange(0, (keep + 1) * total, total, device=device) // keep
    first = border.narrow(0, 0, keep)
    size = border.narrow(0, 1, keep) - first
    within = (uniform.narrow(0, 0, keep) * size).long()
    shift = (uniform.select(0, keep) * total).long()
    return within.add_(first).add_(shift).remainder_(total)


def subsample_channels(
    total: int, keep: int, seed: int, device: torch.device | str = "cpu"
) -> Tensor:
    r"""Draw ``keep`` of ``total`` channels, each pair of them equally likely.

    So the mean over the pairs that were drawn is an unbiased estimate of that over all
    pairs, with a standard deviation of at most :math:`\sigma\sqrt{2/\mathrm{keep}}`,
    where :math:`\sigma` is that of the pairs' values (Hoeffding 1948, for draws with
    replacement; less without).

    Args:
        total: number of channels.
        keep: number of channels to draw, at most ``total``.
        seed: as for :func:`subsample_rows`.
        device: where the indices are wanted.

    Returns:
        distinct indices, int64, shape ``(keep,)``.
    """
    generator = torch.Generator(device=device)
    generator.manual_seed(seed)
    return torch.randperm(total, generator=generator, device=device)[:keep]
