r"""Correlation of features: moments, penalty, debiasing and spectra. Torch only.

Notation: ``x`` holds N rows (edges) of L blocks (layers) of C channels. For one block,
:math:`\mathrm{Cov} = \langle (x-\mu)(x-\mu)^\top \rangle` and
:math:`R_{ij} = \mathrm{Cov}_{ij} / \sqrt{v'_i v'_j}` with the floored variance
:math:`v'_i = \mathrm{Cov}_{ii} + \varepsilon\,\overline{\mathrm{Cov}_{kk}}`. The floor
is relative to the block, so that every function here is invariant to the scale and
offset of the features, and the gradient of a fading channel fades instead of blowing
up. All features are dimensionless.

The penalty is the redundancy term of Barlow Twins (arXiv:2103.03230) on one set of
features instead of two views, with a mean over pairs, so that it lies in [0, 1] for
any number of channels. It is not the (unpublished) formula of arXiv:2502.12548.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nequip_decorr.checks import check_choice
from nequip_decorr.correlation.gradients import RowSums
from nequip_decorr.errors import UserError

#: Relative variance floor of the penalty: a channel's variance counts as at least this
#: fraction of the mean variance of its block.
VARIANCE_FLOOR = 1e-4

#: A channel is dead when its variance is below this fraction of its block's mean
#: variance (a standard deviation 1e-4 of the others') ...
DEAD_RELATIVE_TO_BLOCK = 1e-8
#: ... or of its own squared mean: float32 cannot tell such a channel from a constant.
DEAD_RELATIVE_TO_MEAN = 1e-12

_TINY = torch.finfo(torch.float64).tiny
#: Far more than float64 rounds a sum of squared correlations by.
_ROUNDING = 1e-12

#: The penalties of one pair of channels.
PENALTIES = ("square", "abs")


class Moments(NamedTuple):
    """Sums over rows that determine every correlation; they add over batches and ranks.

    All float64, about the origin, so that sums from anywhere can be added.

    Attributes:
        rows: number of rows that were summed, shape ``()``.
        weight: number of rows that they represent (larger than ``rows`` for a
            subsample of a batch), shape ``()``.
        first: weighted sum of ``x``, shape ``(L, C)``.
        second: weighted sum of ``x x^T``, shape ``(L, C, C)``.
    """

    rows: Tensor
    weight: Tensor
    first: Tensor
    second: Tensor


class Diagnosis(NamedTuple):
    """Statistics of each block's correlations; every field has shape ``(L,)``.

    Correlations are centred, over the live channels, and without the variance floor;
    0 where fewer than two channels are alive. ``mean_abs``, ``rms`` and ``maximum``
    depend on the basis of the channels; the spectrum of the correlation matrix, from
    which the rest comes, depends on it only through the normalisation. NaN for a block
    with features that are not finite.

    Attributes:
        mean_abs: mean |rho| over pairs of channels.
        rms: root of the mean rho^2.
        maximum: largest |rho|.
        mean_square_debiased: mean rho^2 minus the bias of finite sampling, see
            :func:`debias`.
        rankme: effective rank, see :func:`rankme`.
        participation_ratio: see :func:`participation_ratio`.
        dead_fraction: fraction of channels that are dead.
    """

    mean_abs: Tensor
    rms: Tensor
    maximum: Tensor
    mean_square_debiased: Tensor
    rankme: Tensor
    participation_ratio: Tensor
    dead_fraction: Tensor


def as_blocks(features: Tensor, layer_dim: int | None = None) -> Tensor:
    """View features ``(N, D)`` as ``(N, L, C)`` with ``C = layer_dim`` channels.

    Args:
        features: shape ``(N, D)``, a floating dtype.
        layer_dim: channels of one block; None makes all of D one block.

    Raises:
        UserError: when ``features`` is no floating matrix or D is no multiple of
            ``layer_dim``.
    """
    if features.dim() != 2 or not features.is_floating_point():
        raise UserError(
            f"expected floating features of shape (edges, channels), got "
            f"{features.dtype} of shape {tuple(features.shape)}"
        )
    width = features.shape[1]
    channels = width if layer_dim is None else layer_dim
    if channels < 1 or width % channels:
        raise UserError(
            f"expected `layer_dim` to divide the {width} channels of the features, got "
            f"{layer_dim}; give the number of channels of one layer"
        )
    return features.view(features.shape[0], width // channels, channels)


def moments(blocks: Tensor, weight: float = 1.0, centred: bool = True) -> Moments:
    """Sum rows to moments, differentiably (once).

    Args:
        blocks: features ``(N, L, C)``; half precision is raised to float32. N may be 0.
        weight: number of rows of the batch that each of these rows represents.
        centred: False sets the first moment to 0, so that every function below takes
            deviations from 0 instead of the mean.

    Returns:
        float64 moments; relative error 1e-6 for float32 features whatever their scale
        (1e-30 to 1e+30) and for means up to 1000 standard deviations.
    """
    count = blocks.shape[0]
    rows = torch.full((), float(count), dtype=torch.float64, device=blocks.device)
    if count == 0:
        # still part of the graph, so that backward works without edges
        nothing = blocks.sum(dim=0).double()
        return Moments(rows, rows, nothing, nothing[:, :, None] * nothing[:, None, :])
    half = blocks.dtype in (torch.float16, torch.bfloat16)
    first, second = RowSums.apply(  # type: ignore[no-untyped-call]
        blocks.float() if half else blocks, weight, centred
    )
    return Moments(rows, rows * weight, first, second)


def merge(first: Moments, *others: Moments) -> Moments:
    """Moments of all rows together: the sum, exact in any order of batches."""
    for other in others:
        first = Moments(*(a + b for a, b in zip(first, other, strict=True)))
    return first


def covariance(m: Moments) -> Tensor:
    """Centred second moment ``(L, C, C)``, divided by N; 0 where there are no rows."""
    return _comoment(m)[1] / m.weight.clamp_min(_TINY)


def live_channels(m: Moments) -> Tensor:
    """Which channels vary enough to have a correlation, boolean ``(L, C)``.

    See :data:`DEAD_RELATIVE_TO_BLOCK` and :data:`DEAD_RELATIVE_TO_MEAN`. A constant
    float32 channel has rounding noise for a variance, which would otherwise give it
    finite, meaningless correlations.
    """
    with torch.no_grad():
        return _with_variances(m, floor=0.0)[2]


def correlation(m: Moments, floor: float = VARIANCE_FLOOR) -> Tensor:
    """Correlation matrices ``(L, C, C)`` with floored variances.

    Rows and columns of dead channels are 0. With ``floor = 0`` this is Pearson's.
    """
    return _correlate(m, floor)[0]


def penalty(m: Moments, kind: str = "square", floor: float = VARIANCE_FLOOR) -> Tensor:
    """Mean off-diagonal R^2 (``square``) or |R| (``abs``) of each block, ``(L,)``.

    In [0, 1]; 0 where fewer than two channels are alive. The mean is over the pairs of
    live channels. Finite, with finite gradients, for any number of rows.

    Raises:
        UserError: for another ``kind``.
    """
    check_choice("penalty", kind, PENALTIES)
    cov, variance, live = _with_variances(m, floor)
    # R is not written out: a matrix-vector product takes half the operators each way
    cov = cov * _off_diagonal(cov)
    if kind == "square":
        matrix, scale = cov * cov, variance.reciprocal()
    else:
        matrix, scale = cov.abs(), variance.rsqrt()
    total = (torch.bmm(matrix, scale.unsqueeze(2)).squeeze(2) * scale).sum(dim=1)
    mean = total / _pairs(live)
    # rounding of duplicated channels may pass 1 by an ulp, but not below a floor
    return mean.clamp_max(1.0) if floor < _ROUNDING else mean


def _comoment(m: Moments) -> tuple[Tensor, Tensor]:
    """Mean (L, C), and N times the covariance (L, C, C)."""
    mean = m.first / m.weight.clamp_min(_TINY)
    # not addcmul, whose fused rounding would leave a constant channel a variance
    return mean, m.second - m.first.unsqueeze(2) * mean.unsqueeze(1)


def _with_variances(m: Moments, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Covariances (L, C, C), floored variances, and which channels are alive (L, C).

    Both are N times as large, which no correlation depends on. The variance of a dead
    channel is infinite, so that it has no correlation: 0 would have a NaN for its
    gradient.
    """
    mean, cov = _comoment(m)
    variance = cov.diagonal(dim1=1, dim2=2)
    average = variance.mean(dim=1, keepdim=True)
    with torch.no_grad():
        live = variance > torch.maximum(
            DEAD_RELATIVE_TO_BLOCK * average, DEAD_RELATIVE_TO_MEAN * mean * m.first
        )
    floored = torch.add(variance, average, alpha=floor).masked_fill(~live, torch.inf)
    return cov, floored, live


def _correlate(m: Moments, floor: float) -> tuple[Tensor, Tensor]:
    """Correlation matrices (L, C, C), and which channels are alive (L, C)."""
    cov, variance, live = _with_variances(m, floor)
    inverse = variance.rsqrt()
    return cov * (inverse[:, :, None] * inverse[:, None, :]), live


def _off_diagonal(matrix: Tensor) -> Tensor:
    """1 off the diagonal and 0 on it, float64 ``(C, C)``."""
    return matrix.new_ones(matrix.shape[1:]).fill_diagonal_(0.0)


def _pairs(live: Tensor) -> Tensor:
    """Ordered pairs of live channels, at least 1, float64 ``(L,)``."""
    count = live.sum(dim=1, dtype=torch.float64)
    return (count * (count - 1)).clamp_min(1)


def _mean_over_pairs(matrix: Tensor, live: Tensor) -> Tensor:
    """Mean of ``(L, C, C)`` off the diagonal over pairs of live channels, ``(L,)``."""
    total = (matrix * _off_diagonal(matrix)).sum(dim=(1, 2))
    return (total / _pairs(live)).clamp_max(1.0)


def debias(mean_square: Tensor, rows: Tensor) -> Tensor:
    r"""Mean rho^2 minus the bias of finite sampling.

    Independent channels show :math:`E[r^2] = 1/(n-1)`; this is the adjusted
    :math:`1 - (1 - r^2)(n-1)/(n-2)` (Ezekiel 1930), whose mean is 0 in that case; it
    can be negative. 0 for ``rows <= 2``. Edges of one frame are not independent, so
    the true bias is larger than this.

    Args:
        mean_square: any shape.
        rows: number of rows, shape ``()``.
    """
    adjusted = 1 - (1 - mean_square) * (rows - 1) / (rows - 2).clamp_min(1)
    return torch.where(rows > 2, adjusted, torch.zeros_like(mean_square))


def rankme(matrix: Tensor) -> Tensor:
    r"""Effective rank :math:`\exp(-\sum_k p_k \ln p_k)`, shape ``(L,)``.

    :math:`p_k` are the singular values of the features over their sum, that is the
    roots of the eigenvalues of ``matrix`` (RankMe, arXiv:2210.02885, there without
    centring). Between 1 and C; 0 for a zero matrix.

    Args:
        matrix: symmetric positive semi-definite ``(L, C, C)``: a covariance (the
            channels weighted by their variance) or a correlation (all alike).
    """
    singular = torch.linalg.eigvalsh(matrix.double()).clamp_min(0).sqrt()
    total = singular.sum(dim=1, keepdim=True)
    p = singular / total.clamp_min(_TINY)
    entropy = -torch.special.xlogy(p, p).sum(dim=1)
    return torch.where(total[:, 0] > 0, entropy.exp(), torch.zeros_like(entropy))


def participation_ratio(matrix: Tensor) -> Tensor:
    r"""Effective rank :math:`(\mathrm{tr} M)^2 / |M|_F^2`, shape ``(L,)``.

    For a correlation matrix it and the mean squared correlation are one number:
    :math:`C / (1 + (C-1)\,\overline{r^2})`. 0 for a zero matrix.
    """
    matrix = matrix.double()
    trace = matrix.diagonal(dim1=1, dim2=2).sum(dim=1)
    square = (matrix * matrix).sum(dim=(1, 2))
    return trace * trace / square.clamp_min(_TINY)


def diagnose(m: Moments) -> Diagnosis:
    """Diagnose each block; no gradient."""
    with torch.no_grad():
        r, live = _correlate(m, floor=0.0)
        # eigvalsh raises on NaN, and a diagnosis must not end a training
        sound = r.isfinite().all(dim=2).all(dim=1)
        r = torch.where(sound[:, None, None], r, torch.zeros_like(r))
        off = r - torch.diag_embed(r.diagonal(dim1=1, dim2=2))
        count = live.sum(dim=1, dtype=r.dtype)
        mean_square = _mean_over_pairs(r * r, live)
        debiased = debias(mean_square, m.rows)
        diagnosis = Diagnosis(
            mean_abs=_mean_over_pairs(r.abs(), live),
            rms=mean_square.sqrt(),
            maximum=off.abs().amax(dim=(1, 2)),
            mean_square_debiased=torch.where(
                count > 1, debiased, torch.zeros_like(debiased)
            ),
            rankme=rankme(r),
            participation_ratio=participation_ratio(r),
            dead_fraction=1 - count / r.shape[1],
        )
        return Diagnosis(*(torch.where(sound, part, torch.nan) for part in diagnosis))
