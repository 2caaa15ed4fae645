"""Sums over rows at full float32 precision: the one hand-written gradient.

Autograd would run the backward product in TF32 or under autocast where a training uses
these, and twice, because it does not know that the second moment is symmetric.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

#: Float32 products of this many rows are summed in float64: a single product over
#: 100000 rows can lose a digit or two.
_ROWS_AT_ONCE = 4096


class RowSums(torch.autograd.Function):
    """Weighted sums of x and x x^T over rows (N, L, C): float64 (L, C) and (L, C, C).

    The product runs in the dtype of the rows, after centring (uncentred float32 loses
    everything at a mean of 1000 standard deviations) and in units of each block's
    largest deviation (otherwise 1e-20 underflows and 1e+20 overflows). Only the shift
    back to the origin runs in float64. No sum depends on the centre and the unit, so
    they count as constants.

    With ``centred`` False, the rows are taken as they are and the first sum is 0.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: float, centred: bool
    ) -> tuple[Tensor, Tensor]:
        with full_precision(x.device):
            z, unit, centre, rest = _standardize(x, centred)
            parts = [
                torch.bmm(part.permute(1, 2, 0), part.transpose(0, 1)).double()
                for part in torch.split(z, _ROWS_AT_ONCE)
            ]
        gram = parts[0] if len(parts) == 1 else torch.stack(parts).sum(dim=0)
        # half and its transpose: float32 products are not quite symmetric, and a mean
        # of 1000 standard deviations would bring that into the gradient
        half = gram.mul_((unit * unit * (0.5 * weight)).unsqueeze(2))
        first = centre * (len(x) * weight)
        if centred:
            # the sums of z are not 0, since the centre is rounded
            rest = rest.mul_(len(x) * weight)
            across = centre.unsqueeze(1)
            half.addcmul_(rest.unsqueeze(2), across)
            half.addcmul_(first.unsqueeze(2), across, value=0.5)
            first = first.add_(rest)
        ctx.save_for_backward(z, unit, centre)
        ctx.weight, ctx.centred = weight, centred
        return first, half + half.transpose(1, 2)

    @staticmethod
    def backward(
        ctx: Any, by_first: Tensor, by_second: Tensor
    ) -> tuple[Tensor, None, None]:
        # autograd would take this gradient for a constant and leave out a part silently
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the correlation is differentiable only once, but create_graph=True "
                "asks for second derivatives; leave the term out of them"
            )
        z, unit, centre = ctx.saved_tensors
        matrix = (by_second + by_second.transpose(1, 2)).mul_(ctx.weight)
        in_units = (matrix * unit.unsqueeze(2)).to(z.dtype)
        rows = z.transpose(0, 1)
        # laid out as the features are: what goes back from here would copy it otherwise
        grad = torch.empty_like(z, memory_format=torch.contiguous_format)
        with full_precision(z.device):
            if ctx.centred:
                constant = (matrix * centre.unsqueeze(1)).sum(dim=2)
                constant = constant.add_(by_first, alpha=ctx.weight).to(z.dtype)
                torch.baddbmm(
                    constant.unsqueeze(1), rows, in_units, out=grad.transpose(0, 1)
                )
            else:
                torch.bmm(rows, in_units, out=grad.transpose(0, 1))
        return grad, None, None


def _standardize(x: Tensor, centred: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows (N, L, C) over their unit, (L, 1), about their centre, (L, C).

    The centre is the mean, rounded: at a mean of 1000 standard deviations, by 1e-4 of
    one. Last comes what the mean is more than the centre. All but the rows are float64.
    """
    if centred:
        mean = x.mean(dim=0)
        x = x - mean
        rest = x.mean(dim=0)
        # about their mean, no row is further below than all others together above
        largest = torch.maximum(x.amax(dim=0), rest.abs())
        centre = mean.double()
    else:
        centre = rest = x.new_zeros(x.shape[1:], dtype=torch.float64)
        largest = torch.maximum(x.amax(dim=0), x.amin(dim=0).neg_())
    unit = largest.amax(dim=1, keepdim=True)
    # its square must not vanish in float64
    unit = unit.clamp_min_(max(torch.finfo(x.dtype).tiny, 1e-100))
    # one number for each channel: broadcast over rows alone, which is quicker
    scale = unit.expand_as(centre).reciprocal()
    z = x.mul_(scale) if centred else x * scale
    return z, unit.double(), centre, rest.double()


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Neither autocast nor TF32: both would put an error of 1e-3 into R."""
    # entering a context takes as long as a small operator: only those that matter
    autocast = torch.is_autocast_enabled(device.type)
    if not autocast and device.type != "cuda":
        return nullcontext()
    return _full_precision(device, autocast)


@contextmanager
def _full_precision(device: torch.device, autocast: bool) -> Iterator[None]:
    outside = torch.autocast(device.type, enabled=False) if autocast else nullcontext()
    tf32_off = _without_tf32() if device.type == "cuda" else nullcontext()
    with outside, tf32_off:
        yield


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Run CUDA's float32 products in float32; the setting is restored afterwards."""
    # torch >= 2.9 raises where its old and new names for this are mixed, and NequIP
    # uses the new ones from there on
    matmul: Any = torch.backends.cuda.matmul
    new = hasattr(matmul, "fp32_precision")
    name, on, off = (
        ("fp32_precision", "tf32", "ieee") if new else ("allow_tf32", True, False)
    )
    if getattr(matmul, name) != on:
        yield
        return
    inherited = new and torch.backends.fp32_precision == on  # type: ignore[attr-defined]
    setattr(matmul, name, off)
    try:
        yield
    finally:
        # an inherited setting must keep following the general one (TF32Scheduler)
        setattr(matmul, name, "none" if inherited else on)
