"""Other forms of the loss term, to compare with; RESULTS.md says what they do.

Plain autograd, one group of blocks (Allegro's scalars), one process. The flag builds
the package's own callback, so these come by a Trainer factory of their own:

.. code-block:: yaml

    trainer:
      _target_: benchmarks.hfox.forms.with_other_form
      decorr_options: {form: envelope, schedule: {kind: constant, coeff: 0.3}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning
import torch
from nequip.data import AtomicDataDict
from torch import Tensor

from nequip_decorr import EdgeDecorrelation
from nequip_decorr.correlation.functional import subsample_rows
from nequip_decorr.correlation.sampled import SampledCorrelation


def of_ones(preds: Mapping[str, Tensor]) -> Tensor:
    """Nothing but the mean, (edges, 1)."""
    return torch.ones_like(preds[AtomicDataDict.EDGE_CUTOFF_KEY])


def of_envelope(preds: Mapping[str, Tensor]) -> Tensor:
    """The mean and the cutoff envelope by which all channels fade, (edges, 2)."""
    return torch.cat([of_ones(preds), preds[AtomicDataDict.EDGE_CUTOFF_KEY]], dim=1)


def of_pairs(preds: Mapping[str, Tensor]) -> Tensor:
    """A mean for each ordered pair of elements, (edges, pairs that there are)."""
    centre, neighbour = preds[AtomicDataDict.EDGE_TYPE_KEY]
    kinds = int(preds[AtomicDataDict.ATOM_TYPE_KEY].max()) + 1
    pair = torch.nn.functional.one_hot(centre * kinds + neighbour, kinds**2)
    return pair[:, pair.any(dim=0)].to(preds[AtomicDataDict.EDGE_CUTOFF_KEY])


def residual(x: Tensor, explaining: Tensor) -> Tensor:
    """What is left of rows (N, L, C) after least squares on regressors (N, K)."""
    basis, _ = torch.linalg.qr(explaining.to(x))
    return x - torch.einsum("nk,mk,mlc->nlc", basis, basis, x)


def mean_square(cov: Tensor) -> Tensor:
    """Mean rho^2 over pairs of channels, (L,), of covariances (L, C, C)."""
    variance = cov.diagonal(dim1=1, dim2=2)
    floored = variance + 1e-4 * variance.mean(dim=1, keepdim=True)
    rho = cov * (floored[:, :, None] * floored[:, None, :]).rsqrt()
    channels = cov.shape[1]
    diagonal = rho.diagonal(dim1=1, dim2=2).square().sum(dim=1)
    total = rho.square().sum(dim=(1, 2))
    return (total - diagonal) / (channels * (channels - 1))


def uneven(cov: Tensor) -> Tensor:
    """Distance of C/|C| from I/sqrt(C) (DeCorr, arXiv:2206.07743), (L,).

    Lower is less correlated and more even in variance.
    """
    flat = cov / torch.linalg.matrix_norm(cov)[:, None, None]
    channels = cov.shape[1]
    target = torch.eye(channels, dtype=cov.dtype) / channels**0.5
    return torch.linalg.matrix_norm(flat - target)


FORMS = {
    "plain": (of_ones, mean_square),
    "envelope": (of_envelope, mean_square),
    "pairs": (of_pairs, mean_square),
    "decorr": (of_ones, uneven),
}


class OtherForm(SampledCorrelation):
    """One of :data:`FORMS` of the edges that the package's term would draw."""

    def __init__(self, *args: Any, form: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.explaining, self.value = FORMS[form]

    def _add_batch(self, preds: Mapping[str, Tensor]) -> Tensor:
        features, weight = self._drawn(preds)
        explaining = self.explaining(preds)
        if weight > 1.0:  # a part was drawn: the same edges of these
            limit = self.max_edges or 0
            explaining = explaining[
                subsample_rows(len(explaining), limit, self._draw, explaining.device)
            ]
        ((x, _),) = self._stacked(features)
        z = residual(x, explaining)
        cov = torch.einsum("nlc,nld->lcd", z, z) / len(z)
        value = self._over_layers([self.value(cov.double())])
        edges = len(x) * weight
        self.value_sum = self.value_sum + edges * value.detach()
        self.edges = self.edges + edges
        return value


class OtherDecorrelation(EdgeDecorrelation):
    """The callback with :class:`OtherForm` for its term."""

    def __init__(self, form: str, **options: Any) -> None:
        super().__init__(**options)
        self.form = form

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Put the other form in the place of the term."""
        super().setup(trainer, pl_module, stage)
        if self._loss_term is None or isinstance(self._loss_term, OtherForm):
            return
        self._loss_term = OtherForm(
            form=self.form,
            blocks=self._loss_term.blocks,
            max_edges=self.options.sample.edges,
            max_channels=self.options.sample.channels,
        )
        self._loss_term.checked_by_callback = True
        pl_module.loss.update({self.name: self._loss_term})


def with_other_form(
    *, decorr_options: Mapping[str, Any], callbacks: Sequence[Any], **options: Any
) -> lightning.Trainer:
    """The config's Trainer with the callback added."""
    ours = OtherDecorrelation(
        **{str(key): value for key, value in decorr_options.items()}
    )
    return lightning.Trainer(callbacks=[*callbacks, ours], **options)
