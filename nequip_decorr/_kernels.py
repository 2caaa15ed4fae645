"""The two differentiable steps of the loss term, with hand-written gradients.

Features to moments, moments to penalty. Autograd through the same formulas gives the
same gradients (a test compares them) at several times the cost: it multiplies each
matrix twice where symmetry needs once, and small tensors cost by the operator. Each
gradient is that of the formula in :mod:`.functional`, once differentiable.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

#: Float32 products of this many rows are summed in float64: 100000 rows in one product
#: can lose a digit or two.
_ROWS_AT_ONCE = 4096


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TF32: both would put an error of 1e-3 into R."""
    tf32_off = _without_tf32() if device.type == "cuda" else nullcontext()
    with torch.autocast(device.type, enabled=False), tf32_off:
        yield


@contextmanager
def _without_tf32() -> Iterator[None]:
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
        # an inherited setting must go on following the general one (TF32Scheduler)
        setattr(matmul, name, "none" if inherited else on)


def _refuse_second_derivative() -> None:
    # autograd would take these gradients for constants and leave out a part silently
    if torch.is_grad_enabled():
        raise RuntimeError(
            "expected a first derivative of the correlation, got create_graph=True; it "
            "is once differentiable: keep it out of second derivatives"
        )


class RawMoments(torch.autograd.Function):
    """Weighted sums of x and x x^T over rows (N, L, C), float64, about the origin.

    The product runs in the dtype of the features, after centring (uncentred, float32
    loses everything at a mean of 1000 standard deviations) and scaling by the largest
    deviation of the block (unscaled, 1e-20 underflows and 1e+20 overflows); the shift
    back to the origin in float64. The centre counts as a constant: the sums do not
    depend on it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        with _full_precision(x.device):
            centre = x.mean(dim=0)
            z = x - centre
            scale = z.abs().amax(dim=(0, 2))
            scale = torch.where(scale > 0, scale, torch.ones_like(scale))
            z = z / scale[:, None]
            grams = [
                torch.bmm(part.permute(1, 2, 0), part.transpose(0, 1)).double()
                for part in torch.split(z, _ROWS_AT_ONCE)
            ]
        wide, centre = scale.double()[:, None], centre.double()
        ctx.save_for_backward(z, scale, centre)
        ctx.weight = weight
        gram = grams[0] if len(grams) == 1 else torch.stack(grams).sum(dim=0)
        total = z.sum(dim=0).double() * wide
        # sum x x^T = gram + t c^T + c t^T + N c c^T with t the total about c: half and
        # its transpose. Float32 products are not quite symmetric, and a mean of 1000
        # standard deviations would bring that into the gradient.
        first = total + x.shape[0] * centre
        half = gram * (0.5 * wide * wide)[..., None]
        half = half + (0.5 * (total + first))[:, :, None] * centre[:, None, :]
        return first * weight, (half + half.transpose(1, 2)) * weight

    @staticmethod
    def backward(
        ctx: Any, grad_first: Tensor, grad_second: Tensor
    ) -> tuple[Tensor, None]:
        _refuse_second_derivative()
        z, scale, centre = ctx.saved_tensors
        wide = scale.double()[:, None] * ctx.weight
        symmetric = grad_second + grad_second.transpose(1, 2)
        constant = grad_first + (symmetric * centre[:, None, :]).sum(dim=2)
        matrix = symmetric * (wide * scale.double()[:, None])[..., None]
        with _full_precision(z.device):
            grad = torch.baddbmm(
                (constant * wide).to(z.dtype)[:, None, :],
                z.transpose(0, 1),
                matrix.to(z.dtype),
            )
        result: Tensor = grad.transpose(0, 1) / scale[:, None]
        return result, None


class MeanCorrelation(torch.autograd.Function):
    """Mean R^2 or |R| over pairs of live channels, (L,), of sums as above (symmetric).

    ``live`` is the function that tells live channels from variances and means.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd functions take positional arguments
        ctx: Any,
        weight: Tensor,
        first: Tensor,
        second: Tensor,
        square: bool,
        floor: float,
        live: Any,
    ) -> Tensor:
        weight = weight.clamp_min(torch.finfo(torch.float64).tiny)
        mean = first / weight
        r = second / weight - mean[:, :, None] * mean[:, None, :]
        diagonal = r.diagonal(dim1=1, dim2=2)
        mask = live(diagonal, mean)
        floored = diagonal + floor * diagonal.mean(dim=1, keepdim=True)
        inverse = torch.where(mask, floored, torch.inf).rsqrt()
        r = r * inverse[:, :, None] * inverse[:, None, :]
        r.diagonal(dim1=1, dim2=2).zero_()
        count = mask.sum(dim=1)
        pairs = (count * (count - 1)).clamp_min(1).double()
        ctx.save_for_backward(weight, mean, r, inverse, pairs)
        ctx.square, ctx.floor = square, floor
        total = (r * r).sum(dim=(1, 2)) if square else r.abs().sum(dim=(1, 2))
        value: Tensor = total / pairs
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        weight, mean, r, inverse, pairs = ctx.saved_tensors
        share = (grad / (pairs * weight))[:, None, None]
        slope = r * (2.0 * share) if ctx.square else r.sign() * share
        # by the floored variance of a channel, which normalises its row and column
        by_variance = -(slope * r).sum(dim=2) * inverse * inverse
        by_variance = by_variance + ctx.floor * by_variance.mean(dim=1, keepdim=True)
        matrix = slope * inverse[:, :, None] * inverse[:, None, :]
        matrix.diagonal(dim1=1, dim2=2).copy_(by_variance)
        by_first = -2.0 * (matrix * mean[:, None, :]).sum(dim=2)
        return None, by_first, matrix, None, None, None
