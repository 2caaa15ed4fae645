"""Other forms of the loss term, to compare with (``studies/cpu/forms.yaml``).

Plain autograd on the scalars of Allegro's layers, in one process. NequIP takes each as
one more term of its loss. It rescales coefficients to a sum of 1, so 0.6 beside 1 for
energy and 1 for forces is what the package calls 0.3:

.. code-block:: yaml

    training_module:
      loss:
        extra_metrics:
          - name: edge_correlation
            coeff: 0.6
            metric:
              _target_: benchmarks.hfox.forms.OtherForm
              form: envelope
              layer_dim: ${num_scalar_features}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from nequip.data import AtomicDataDict
from torch import Tensor
from torchmetrics import Metric


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


class OtherForm(Metric):
    """One of :data:`FORMS`, of edges drawn anew for each batch.

    Args:
        form: a key of :data:`FORMS`.
        layer_dim: channels of one layer.
        max_edges: edges to draw; None takes all.
        seed: of the first draw; each later one has the next.
    """

    full_state_update = False
    value_sum: Tensor
    batches: Tensor

    def __init__(
        self,
        form: str,
        layer_dim: int,
        max_edges: int | None = 1024,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.explaining, self.value = FORMS[form]
        self.layer_dim = layer_dim
        self.max_edges = max_edges
        self.seed = seed
        for name in ("value_sum", "batches"):
            zero = torch.zeros((), dtype=torch.float64)
            self.add_state(name, zero, dist_reduce_fx="sum")

    def update(self, preds: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        """Add the value of a batch; ``target`` is not used."""
        features = preds[AtomicDataDict.EDGE_FEATURES_KEY]
        x = features.unflatten(1, (-1, self.layer_dim))
        explaining = self.explaining(preds)
        if self.max_edges is not None and len(x) > self.max_edges:
            generator = torch.Generator().manual_seed(self.seed)
            self.seed += 1
            drawn = torch.randperm(len(x), generator=generator)[: self.max_edges]
            x, explaining = x[drawn.to(x.device)], explaining[drawn.to(x.device)]
        z = residual(x, explaining)
        cov = torch.einsum("nlc,nld->lcd", z, z) / len(z)
        self.value_sum = self.value_sum + self.value(cov.double()).mean()
        self.batches = self.batches + 1

    def compute(self) -> Tensor:
        """Mean over batches, shape ``()``."""
        return self.value_sum / self.batches
