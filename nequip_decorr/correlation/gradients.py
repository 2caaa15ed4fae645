"""The differentiable steps of the loss term, with hand-written gradients.

Features to moments, moments to penalty, and both in one. Autograd through the same
formulas gives the same gradients (a test compares them) at several times the cost: it
multiplies each matrix twice where symmetry needs once, and small tensors cost by the
operator. Each gradient is that of the formula in :mod:`.functional`, once
differentiable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Float32 products of this many rows are summed in float64: 100000 rows in one product
#: can lose a digit or two.
_ROWS_AT_ONCE = 4096


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TF32: both would put an error of 1e-3 into R."""
    # entering a context takes as long as a small operator: only those that matter
    autocast = torch.is_autocast_enabled(device.type)
    outside = torch.autocast(device.type, enabled=False) if autocast else nullcontext()
    tf32_off = _without_tf32() if device.type == "cuda" else nullcontext()
    with outside, tf32_off:
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


class Centred(NamedTuple):
    """Rows (N, L, C) about their mean, in a unit of their own for each block.

    Attributes:
        z: deviations over the unit, in the dtype of the rows.
        unit: largest deviation of each block, (L,), in that dtype.
        centre: what was taken out, (L, C), float64: the mean, or 0.
        gram: sum of z z^T, (L, C, C), float64.
    """

    z: Tensor
    unit: Tensor
    centre: Tensor
    gram: Tensor

    def about_origin(self) -> tuple[Tensor, Tensor]:
        """Sums of x and x x^T, float64; the former is 0 where the mean was left in."""
        unit = self.unit.double()[:, None]
        # half and its transpose: float32 products are not quite symmetric, and a mean
        # of 1000 standard deviations would bring that into the gradient
        first = self.centre * self.z.shape[0]
        half = self.gram * (0.5 * unit * unit)[..., None]
        half = half + (0.5 * first)[:, :, None] * self.centre[:, None, :]
        return first, half + half.transpose(1, 2)


def centre_rows(x: Tensor, centred: bool = True) -> Centred:
    """Sums of rows (N, L, C) in one product; deviations are from 0 unless ``centred``.

    The product runs in the dtype of the features, after centring (uncentred, float32
    loses everything at a mean of 1000 standard deviations) and in units of the largest
    deviation of the block (otherwise 1e-20 underflows and 1e+20 overflows).
    """
    if len(x) == 0:
        none = x.sum(dim=0).double()
        empty = none[:, :, None] * none[:, None, :]
        return Centred(x, x.new_ones(x.shape[1]), none, empty)
    with _full_precision(x.device):
        z, centre = (
            _about_mean(x)
            if centred
            else (x, x.new_zeros(x.shape[1:], dtype=torch.float64))
        )
        # over rows first: the quick way through memory, which |z| would double
        unit = torch.maximum(z.amax(dim=0), z.amin(dim=0).neg_()).amax(dim=1)
        # its square must not vanish in float64
        unit = unit.clamp_min_(max(torch.finfo(x.dtype).tiny, 1e-100))
        scale = unit.reciprocal()[:, None]
        z = z.mul_(scale) if centred else z * scale
        grams = [
            torch.bmm(part.permute(1, 2, 0), part.transpose(0, 1)).double()
            for part in torch.split(z, _ROWS_AT_ONCE)
        ]
    gram = grams[0] if len(grams) == 1 else torch.stack(grams).sum(dim=0)
    return Centred(z, unit, centre, gram)


def _about_mean(x: Tensor) -> tuple[Tensor, Tensor]:
    """Deviations of rows (N, L, C), and their mean, float64."""
    mean = x.mean(dim=0)
    z = x - mean
    # the mean is rounded: at 1000 standard deviations, by 1e-4 of one in float32
    rest = z.mean(dim=0)
    return z.sub_(rest), mean.double() + rest


class Correlated(NamedTuple):
    """What the gradient of a mean correlation takes.

    Attributes:
        r: R off the diagonal, (L, C, C).
        outer: what it is over the covariances: one over the product of the floored
            standard deviations, 0 for dead channels, (L, C, C).
        rows: sum over each row of R^2 or |R|, (L, C).
        pairs: number of pairs of live channels, both ways, (L,).
    """

    r: Tensor
    outer: Tensor
    rows: Tensor
    pairs: Tensor


def score(
    cov: Tensor, mean: Tensor, square: bool, floor: float, live: Callable[..., Tensor]
) -> tuple[Tensor, Correlated]:
    """Mean R^2 or |R| over pairs of live channels, (L,), of covariances (L, C, C).

    All float64. ``live`` is the function that tells live channels from variances and
    means.
    """
    variance = cov.diagonal(dim1=1, dim2=2)
    average = variance.mean(dim=1, keepdim=True)
    mask = live(variance, mean, average)
    floored = torch.add(variance, average, alpha=floor)
    inverse = floored.masked_fill_(mask.logical_not(), torch.inf).rsqrt_()
    outer = inverse[:, :, None] * inverse[:, None, :]
    r = cov * outer
    r.diagonal(dim1=1, dim2=2).zero_()
    count = mask.sum(dim=1, dtype=variance.dtype)
    pairs = (count * (count - 1)).clamp_min_(1)
    rows = (r * r if square else r.abs()).sum(dim=2)
    # rounding of duplicated channels may pass 1 by an ulp
    value = (rows.sum(dim=1) / pairs).clamp_max_(1.0)
    return value, Correlated(r, outer, rows, pairs)


def slope(of: Correlated, factor: Tensor, square: bool, floor: float) -> Tensor:
    """Gradient of ``factor`` (L,) times the value by the covariances, symmetric."""
    share = (factor / of.pairs)[:, None]
    share = 2.0 * share if square else share
    matrix = ((of.r if square else of.r.sign()) * of.outer).mul_(share[:, :, None])
    # by the floored variance of a channel, which normalises its row and column
    inverse_square = of.outer.diagonal(dim1=1, dim2=2)
    by_variance = of.rows * share * inverse_square
    by_variance = torch.add(
        by_variance, by_variance.mean(dim=1, keepdim=True), alpha=floor
    )
    matrix.diagonal(dim1=1, dim2=2).copy_(by_variance.neg_())
    return matrix


class RawMoments(torch.autograd.Function):
    """Weighted sums of x and x x^T over rows (N, L, C), float64, about the origin.

    The shift back to the origin runs in float64. The centre counts as a constant: the
    sums do not depend on it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        rows = centre_rows(x)
        ctx.save_for_backward(rows.z, rows.unit, rows.centre)
        ctx.weight = weight
        first, second = rows.about_origin()
        return first * weight, second * weight

    @staticmethod
    def backward(
        ctx: Any, grad_first: Tensor, grad_second: Tensor
    ) -> tuple[Tensor, None]:
        _refuse_second_derivative()
        z, unit, centre = ctx.saved_tensors
        symmetric = grad_second + grad_second.transpose(1, 2)
        constant = grad_first + (symmetric * centre[:, None, :]).sum(dim=2)
        matrix = symmetric * (unit.double() * ctx.weight)[:, None, None]
        return _by_rows(z, matrix, constant[:, None, :] * ctx.weight), None


def _by_rows(z: Tensor, matrix: Tensor, constant: Tensor | None) -> Tensor:
    """Rows z @ matrix + constant, (N, L, C), of float64 (L, C, C) and (L, 1, C)."""
    rows, matrix = z.transpose(0, 1), matrix.to(z.dtype)
    with _full_precision(z.device):
        if constant is None:
            # into rows as they lie: autograd would copy any others
            grad = torch.empty_like(z)
            torch.bmm(rows, matrix, out=grad.transpose(0, 1))
            return grad
        by_rows = torch.baddbmm(constant.to(z.dtype), rows, matrix)
    return by_rows.transpose(0, 1)


class MeanCorrelation(torch.autograd.Function):
    """Mean R^2 or |R| over pairs of live channels, (L,), of sums as above (symmetric).

    ``live`` as for :func:`score`.
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
        cov = second / weight - mean[:, :, None] * mean[:, None, :]
        value, correlated = score(cov, mean, square, floor, live)
        ctx.save_for_backward(weight, mean, *correlated)
        ctx.square, ctx.floor = square, floor
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        weight, mean, *saved = ctx.saved_tensors
        matrix = slope(Correlated(*saved), grad / weight, ctx.square, ctx.floor)
        by_first = -2.0 * (matrix * mean[:, None, :]).sum(dim=2)
        return None, by_first, matrix, None, None, None


class RowCorrelation(torch.autograd.Function):
    """The same of rows (N, L, C), in one step.

    The covariances may be those of more rows than these (of other ranks), which are
    constants here.

    Args:
        x: the rows, for the gradient.
        rows: the same, centred. In their unit:
        cov: covariances, (L, C, C).
        mean: means, (L, C).
        shift: centre of the rows less the mean, (L, C); None where that is 0.
        share: what each row counts for in the covariances.
        square, floor, live: as for :func:`score`.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd functions take positional arguments
        ctx: Any,
        x: Tensor,
        rows: Centred,
        cov: Tensor,
        mean: Tensor,
        shift: Tensor | None,
        share: Any,
        square: bool,
        floor: float,
        live: Any,
    ) -> Tensor:
        value, correlated = score(cov, mean, square, floor, live)
        ctx.save_for_backward(rows.z, rows.unit, shift, *correlated)
        ctx.share, ctx.square, ctx.floor = share, square, floor
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        z, unit, shift, *saved = ctx.saved_tensors
        # twice: by the row and by the column of the covariance
        factor = grad * (2.0 * ctx.share) / unit
        matrix = slope(Correlated(*saved), factor, ctx.square, ctx.floor)
        constant = None if shift is None else torch.bmm(shift[:, None, :], matrix)
        return _by_rows(z, matrix, constant), *(None,) * 8
