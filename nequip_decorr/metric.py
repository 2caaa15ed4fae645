"""The loss term: correlation of edge features as a torchmetrics metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from .functional import (
    PENALTIES,
    VARIANCE_FLOOR,
    Diagnosis,
    Moments,
    as_blocks,
    diagnose,
    merge,
    moments,
    penalty,
    subsample_rows,
)

_STATES = Moments._fields


class EdgeCorrelation(Metric):
    r"""Mean squared correlation between the channels of a model's edge features.

    Per layer, the mean over pairs of channels of the squared Pearson correlation over
    all edges (see :func:`nequip_decorr.functional.penalty`); then the weighted mean
    over layers. In [0, 1], dimensionless, lower is less redundant. Invariant to the
    scale, offset and sign of each layer's features.

    A batch gives the value of that batch's edges. An epoch (``compute()``) gives the
    value of the *pooled moments* of all its edges: the correlation of the whole data
    set, not the mean of its batches' values, and independent of batch size and of the
    number of ranks. Data-parallel values and gradients equal those of one process that
    holds all edges.

    The callback :class:`nequip_decorr.EdgeDecorrelation` adds it to a training by
    itself, with a scheduled coefficient. By hand, as a loss term with a constant
    coefficient, or as a validation metric:

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
        layers: which blocks to penalise (0 is Allegro's two-body embedding; negative
            indices count from the end); None means all.
        layer_weights: weight of each chosen block in the mean; None means equal.
        penalty: ``square`` (mean R^2) or ``abs`` (mean \|R\|).
        variance_floor: relative variance floor, see
            :data:`nequip_decorr.functional.VARIANCE_FLOOR`.
        max_edges: use at most this many edges of each rank's batch, drawn anew at each
            step; None uses all.
        seed: seed of that draw.

    Attributes:
        step: number of the step, which with ``seed`` determines the draw. The callback
            sets it to the trainer's ``global_step``; by hand it counts training calls.

    Raises:
        ValueError: for options out of range, or features without ``field``.
        FloatingPointError: when the features of a batch are not finite, naming the
            layer, before the gradient can reach the weights.
    """

    is_differentiable = True
    higher_is_better = False
    full_state_update = False

    rows: Tensor
    weight: Tensor
    first: Tensor
    second: Tensor

    def __init__(
        self,
        field: str = "edge_features",
        layer_dim: int | None = None,
        *,
        layers: Sequence[int] | None = None,
        layer_weights: Sequence[float] | None = None,
        penalty: str = "square",
        variance_floor: float = VARIANCE_FLOOR,
        max_edges: int | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.field = field
        self.layer_dim = layer_dim
        self.layers = _as_list("layers", layers)
        self.layer_weights = _as_list("layer_weights", layer_weights)
        self.penalty = penalty
        self.variance_floor = variance_floor
        self.max_edges = max_edges
        self.seed = seed
        self._check_options()
        self.step = 0
        #: moments of the last batch over all ranks, for whoever logs or steers by them
        self.last_batch: Moments | None = None
        #: set by the callback, which looks at the value that NequIP has read already;
        #: without it the metric must look, at the price of one read of a scalar a step
        self.checked_by_callback = False
        for name in _STATES:
            self.add_state(
                name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum"
            )

    def update(self, preds: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        """Add a batch to the pooled moments; ``target`` is not used."""
        self._accumulate(self._batch_moments(preds))

    def compute(self) -> Tensor:
        """Value of the pooled moments, float64, shape ``()``."""
        return self._value(self.pooled)

    def forward(
        self, preds: Mapping[str, Tensor], target: Mapping[str, Tensor]
    ) -> Tensor:
        """Value of this batch, with gradient; adds the batch to the pooled moments.

        torchmetrics' own forward would compute the moments twice when it synchronises
        on each step, as NequIP asks of loss terms.
        """
        batch = self._batch_moments(preds)
        self._accumulate(Moments(*(part.detach() for part in batch)))
        self._update_count += 1
        self._computed = None
        if self.dist_sync_on_step and self.distributed_available_fn():
            batch = self._over_ranks(batch)
        self.last_batch = Moments(*(part.detach() for part in batch))
        value = self._value(batch)
        if not self.checked_by_callback:
            self.check_finite(value.item(), f"step {self.step}")
        if torch.is_grad_enabled():
            self.step += 1
        return value

    @property
    def pooled(self) -> Moments:
        """Moments of all batches since the last reset, on this rank."""
        return Moments(*(getattr(self, name) for name in _STATES))

    def diagnosis(self) -> Diagnosis:
        """Diagnosis of the pooled moments over all ranks, for every layer.

        Raises:
            ValueError: before the first batch.
        """
        with self.sync_context(should_sync=self._to_sync, should_unsync=True):
            pooled = self.pooled
        if pooled.second.dim() == 0:
            raise ValueError("expected a batch before the diagnosis, got none")
        return diagnose(pooled)

    def sync(
        self,
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any = None,
        should_sync: bool = True,
        distributed_available: Callable[[], bool] | None = None,
    ) -> None:
        """Sum over ranks, of which some may not have seen a batch; see torchmetrics."""
        available = distributed_available or self.distributed_available_fn
        if should_sync and not self._is_synced and available():
            self._agree_on_shape(process_group or self.process_group)
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)

    def check_finite(self, value: float, where: str) -> None:
        """Raise when ``value``, that of the last batch, is not finite.

        Raises:
            FloatingPointError: names the first layer at fault, and ``where``.
        """
        if isfinite(value):
            return
        layer = "?"
        if self.last_batch is not None:
            finite = self.last_batch.second.isfinite().all(dim=2).all(dim=1)
            bad = (~finite).nonzero().flatten().tolist()
            layer = str(bad[0]) if bad else "?"
        raise FloatingPointError(
            f"expected finite features in `{self.field}`, got NaN or infinity in layer "
            f"{layer} of {where}; the weights of the last step are intact: lower the "
            f"learning rate, clip gradients, or look for a broken frame in that batch"
        )

    def _batch_moments(self, preds: Mapping[str, Tensor]) -> Moments:
        if self.field not in preds:
            raise ValueError(
                f"expected the model to output `{self.field}`, got only "
                f"{sorted(preds)}; name one of these as `field`"
            )
        blocks = as_blocks(preds[self.field], self.layer_dim)
        total = blocks.shape[0]
        if self.max_edges is None or total <= self.max_edges:
            return moments(blocks)
        # torch's generator on a CPU takes 32 bits; an odd factor keeps seeds far apart
        seed = (self.seed * 0x9E3779B1 + self.step) % 2**32
        rows = subsample_rows(total, self.max_edges, seed, blocks.device)
        return moments(blocks[rows], weight=total / self.max_edges)

    def _accumulate(self, batch: Moments) -> None:
        for name, part in zip(_STATES, merge(self.pooled, batch), strict=True):
            setattr(self, name, part)

    def _agree_on_shape(self, group: Any) -> None:
        # gathering a scalar on one rank and a matrix on another aborts or hangs
        shape = self.first.shape or (0, 0)
        largest = torch.tensor(shape, device=self.first.device)
        torch.distributed.all_reduce(
            largest, op=torch.distributed.ReduceOp.MAX, group=group
        )
        layers, channels = largest.tolist()
        if self.first.dim() == 0 and channels > 0:
            self.first = self.first.new_zeros(layers, channels)
            self.second = self.second.new_zeros(layers, channels, channels)

    def _over_ranks(self, batch: Moments) -> Moments:
        # The sum over ranks enters as a constant, so that the gradient flows through
        # the local rows only: NequIP multiplies the loss by the number of ranks and
        # DDP averages over them, which adds up to the gradient of the whole.
        flat = torch.cat([part.detach().flatten() for part in batch])
        torch.distributed.all_reduce(flat, group=self.process_group)
        sizes = [part.numel() for part in batch]
        summed = torch.split(flat, sizes)
        return Moments(
            *(
                whole.view_as(part) + (part - part.detach())
                for whole, part in zip(summed, batch, strict=True)
            )
        )

    def _value(self, m: Moments) -> Tensor:
        if m.second.dim() == 0:
            return m.second
        values = penalty(m, self.penalty, self.variance_floor)
        count = values.shape[0]
        if self.layers is None and self.layer_weights is None:
            return values.mean()
        chosen = list(range(count)) if self.layers is None else self.layers
        if any(not -count <= layer < count for layer in chosen):
            raise ValueError(
                f"expected layers between 0 and {count - 1}, got {chosen}; `"
                f"{self.field}` holds {count} layers of {m.first.shape[1]} channels"
            )
        if len({layer % count for layer in chosen}) != len(chosen):
            raise ValueError(
                f"expected `layers` to name different ones of {count} layers, got "
                f"{chosen}"
            )
        # a layer that is not finite shows, chosen or not: its gradient would be NaN
        values = values + 0.0 * values.sum()
        if self.layer_weights is None:
            return values[chosen].mean()
        if len(self.layer_weights) != len(chosen):
            raise ValueError(
                f"expected one of `layer_weights` for each of {len(chosen)} layers, "
                f"got {self.layer_weights}"
            )
        weights = values.new_tensor(self.layer_weights)
        return (values[chosen] * weights).sum() / weights.sum()

    def _check_options(self) -> None:
        if self.layer_dim is not None and not (
            _is_whole(self.layer_dim) and self.layer_dim >= 1
        ):
            raise ValueError(
                f"expected a positive `layer_dim` or null, got {self.layer_dim!r}"
            )
        if self.layers is not None and not all(map(_is_whole, self.layers)):
            raise ValueError(
                f"expected `layers` to be a list of whole numbers, got {self.layers}"
            )
        if self.layers is not None and len(set(self.layers)) != len(self.layers or [0]):
            raise ValueError(
                f"expected `layers` to name different layers, got {self.layers}; "
                f"leave it null for all"
            )
        weights = self.layer_weights
        if weights is not None and not (
            all(_is_finite(w) and w >= 0 for w in weights) and sum(weights) > 0
        ):
            raise ValueError(
                f"expected finite `layer_weights` >= 0, not all 0, got {weights}"
            )
        if self.penalty not in PENALTIES:
            raise ValueError(
                f"expected `penalty` to be one of {PENALTIES}, got '{self.penalty}'"
            )
        if not (_is_finite(self.variance_floor) and 0 <= self.variance_floor <= 1):
            raise ValueError(
                f"expected `variance_floor` between 0 and 1, got "
                f"{self.variance_floor!r}"
            )
        if self.max_edges is not None and not (
            _is_whole(self.max_edges) and self.max_edges >= 2
        ):
            raise ValueError(
                f"expected a whole `max_edges` of at least 2 or null, got "
                f"{self.max_edges!r}"
            )
        if not _is_whole(self.seed):
            raise ValueError(f"expected a whole `seed`, got {self.seed!r}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


def _as_list(name: str, value: Any) -> list[Any] | None:
    if value is None:
        return None
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    raise ValueError(f"expected `{name}` to be a list or null, got {value!r}")
