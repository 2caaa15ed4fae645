"""Correlation over all edges of an epoch, as a torchmetrics metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nequip_decorr.correlation.base import CorrelationMetric
from nequip_decorr.correlation.channels import scalar_blocks
from nequip_decorr.correlation.functional import Diagnosis, Moments, diagnose, merge
from nequip_decorr.errors import UserError

_STATES = Moments._fields


class EdgeCorrelation(CorrelationMetric):
    r"""Mean squared correlation between the channels of a model's edge features.

    Per layer, the mean over pairs of channels of the squared Pearson correlation over
    all edges (see :func:`nequip_decorr.correlation.functional.penalty`); then the
    weighted mean over layers. In [0, 1], dimensionless, lower is less redundant.
    Invariant to the scale, offset and sign of each layer's features.

    A batch gives the value of that batch's edges. An epoch (``compute()``) gives the
    value of the *pooled moments* of all its edges: the correlation of the whole data
    set, not the mean of its batches' values, and independent of batch size and of the
    number of ranks. Data-parallel values and gradients equal those of one process that
    holds all edges.

    The callback :class:`nequip_decorr.EdgeDecorrelation` adds the term to a training
    with a scheduled coefficient. To add it by hand, with a constant coefficient or as a
    validation metric:

    .. code-block:: yaml

        training_module:
          loss:
            _target_: nequip.train.EnergyForceLoss
            coeffs:
              total_energy: 1.0
              forces: 1.0
            extra_metrics:
              - name: edge_correlation
                field: null
                coeff: 0.3      # NequIP rescales all coefficients to sum 1
                metric:
                  _target_: nequip_decorr.EdgeCorrelation
                  layer_dim: 64 # num_scalar_features of the Allegro model

    Args:
        field: key of the features in the model's output, shape (edges, channels).
        layer_dim: number of channels of one layer's block (Allegro:
            ``num_scalar_features``); None makes the whole field one block.
        blocks: replaces ``field`` and ``layer_dim`` for other features: several fields,
            layers of different widths, tensors; see
            :class:`nequip_decorr.correlation.channels.Block`. A layer of several blocks
            counts by the mean over all its pairs of channels.
        layer_weights: weight of each layer in the mean (the first is Allegro's two-body
            embedding); 0 leaves a layer out; None weights layers equally.
        penalty: ``square`` (mean R^2) or ``abs`` (mean \|R\|).
        variance_floor: relative variance floor, see
            :data:`nequip_decorr.correlation.functional.VARIANCE_FLOOR`.
        max_edges: use at most this many edges of each rank's batch, drawn anew at each
            step; None uses all.
        seed: seed of that draw.

    Raises:
        UserError: for options out of range, features without ``field``, or a layer
            with a single channel.
        FloatingPointError: when the features of a batch are not finite, naming the
            layer, before the gradient can reach the weights.
    """

    def update(self, preds: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        """Add a batch to the pooled moments; ``target`` is not used."""
        self._merge(self._batch_moments(preds))

    def compute(self) -> Tensor:
        """Value of the pooled moments, float64, shape ``()``."""
        pooled = self._pooled
        if pooled[0].second.dim() == 0:
            return pooled[0].second
        self._take_layout(pooled)
        return self._value(pooled, self.penalty, self.variance_floor)

    def diagnosis(self) -> Diagnosis:
        """Diagnosis of the pooled moments over all ranks, for every block.

        Layers of weight 0 are included.

        Raises:
            UserError: before the first batch.
        """
        with self.sync_context(should_sync=self._to_sync, should_unsync=True):
            pooled = self._pooled
        if pooled[0].second.dim() == 0:
            raise UserError(
                "no batch has been seen yet; call the metric on a batch first"
            )
        self._take_layout(pooled)
        groups = [diagnose(m) for m in pooled]
        back = torch.tensor(self._order).argsort()
        return Diagnosis(
            *(torch.cat(parts)[back] for parts in zip(*groups, strict=True))
        )

    def sync(
        self,
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any = None,
        should_sync: bool = True,
        distributed_available: Callable[[], bool] | None = None,
    ) -> None:
        """Sum over ranks, some of which may not have seen a batch; see torchmetrics."""
        available = distributed_available or self.distributed_available_fn
        if should_sync and not self._is_synced and available():
            for names in self._state_names():
                self._agree_on_shape(names, process_group or self.process_group)
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)

    def _accumulate(self, batch: list[Moments], value: Tensor) -> None:
        self._merge(batch)

    def _merge(self, batch: list[Moments]) -> None:
        for names, old, new in zip(
            self._state_names(), self._pooled, batch, strict=True
        ):
            for name, part in zip(names, merge(old, new), strict=True):
                setattr(self, name, part)

    def _take_layout(self, pooled: list[Moments]) -> None:
        if self.blocks is None:  # batches of other ranks only
            layers, channels = pooled[0].first.shape
            self._arrange(scalar_blocks(self.field, channels, layers))

    def _add_states(self) -> None:
        for names in self._state_names():
            for name in names:
                zero = torch.zeros((), dtype=torch.float64)
                self.add_state(name, zero, dist_reduce_fx="sum")

    def _state_names(self) -> list[tuple[str, ...]]:
        """Names of the states of each group; the first has no suffix."""
        # a field of scalars, whose layers the first batch shows, is one group
        count = max(len(self._groups), 1)
        suffixes = ["", *(f"_{index}" for index in range(1, count))]
        return [tuple(name + suffix for name in _STATES) for suffix in suffixes]

    @property
    def _pooled(self) -> list[Moments]:
        return [
            Moments(*(getattr(self, name) for name in names))
            for names in self._state_names()
        ]

    def _agree_on_shape(self, names: Sequence[str], group: Any) -> None:
        # gathering a scalar on one rank and a matrix on another aborts or hangs
        first, second = getattr(self, names[2]), names[3]
        shape = first.shape or (0, 0)
        largest = torch.tensor(shape, device=first.device)
        torch.distributed.all_reduce(
            largest, op=torch.distributed.ReduceOp.MAX, group=group
        )
        layers, channels = largest.tolist()
        if first.dim() == 0 and channels > 0:
            setattr(self, names[2], first.new_zeros(layers, channels))
            setattr(self, second, first.new_zeros(layers, channels, channels))
