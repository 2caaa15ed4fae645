"""The loss term: correlation of edge features as a torchmetrics metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from nequip_decorr._validation import as_list, check_options
from nequip_decorr.correlation.channels import Block, arrange, block_moments
from nequip_decorr.correlation.functional import (
    VARIANCE_FLOOR,
    Diagnosis,
    Moments,
    as_blocks,
    debias,
    diagnose,
    merge,
    moments,
    penalty,
    subsample_rows,
)
from nequip_decorr.correlation.rows import RowTaker, take_rows
from nequip_decorr.errors import UserError

_STATES = Moments._fields


class EdgeCorrelation(Metric):
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
        blocks: features that are not like that: of several fields, of layers that
            differ in width, of tensors, see
            :class:`nequip_decorr.correlation.channels.Block`. In place of ``field`` and
            ``layer_dim``. A layer of several blocks counts by the mean over all its
            pairs of channels.
        layers: which blocks to penalise (0 is Allegro's two-body embedding; negative
            indices count from the end); None means all.
        layer_weights: weight of each chosen block in the mean; None means equal.
        penalty: ``square`` (mean R^2) or ``abs`` (mean \|R\|).
        variance_floor: relative variance floor, see
            :data:`nequip_decorr.correlation.functional.VARIANCE_FLOOR`.
        max_edges: use at most this many edges of each rank's batch, drawn anew at each
            step; None uses all.
        seed: seed of that draw.

    Attributes:
        step: number of the step, which with ``seed`` determines the draw. The callback
            sets it to the trainer's ``global_step``; by hand it counts training calls.

    Raises:
        UserError: for options out of range, or features without ``field``.
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
        blocks: Sequence[Block] | None = None,
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
        self.layers = as_list("layers", layers)
        self.layer_weights = as_list("layer_weights", layer_weights)
        self.penalty = penalty
        self.variance_floor = variance_floor
        self.max_edges = max_edges
        self.seed = seed
        self.blocks = None if blocks is None else list(blocks)
        self._groups, self._shares = arrange(self.blocks)
        self._rows = RowTaker()
        self._of_mean: Tensor | None = None  # made once: a copy makes a device wait
        check_options(self)
        self.step = 0
        #: moments of the last batch over all ranks, one for each group of blocks that
        #: are alike, for whoever logs or steers by them
        self.last_batches: list[Moments] = []
        #: set by the callback, which looks at the value that NequIP has read already;
        #: without it the metric must look, at the price of one read of a scalar a step
        self.checked_by_callback = False
        #: set by the callback: the loss, of which this is a term, has the energy in it
        self.differentiated_with_energy = False
        for names in self._state_names():
            for name in names:
                self.add_state(
                    name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum"
                )

    def update(self, preds: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        """Add a batch to the pooled moments; ``target`` is not used."""
        self._accumulate(self._batch_moments(preds))

    def compute(self) -> Tensor:
        """Value of the pooled moments, float64, shape ``()``."""
        return self._value(self._pooled)

    def forward(
        self, preds: Mapping[str, Tensor], target: Mapping[str, Tensor]
    ) -> Tensor:
        """Value of this batch, with gradient; adds the batch to the pooled moments.

        torchmetrics' own forward would compute the moments twice when it synchronises
        on each step, as NequIP asks of loss terms.
        """
        value = self._add_batch(preds)
        self._update_count += 1
        self._computed = None
        if not self.checked_by_callback:
            self.check_finite(value.item(), f"step {self.step}")
        if torch.is_grad_enabled():
            self.step += 1
        return value

    def _add_batch(self, preds: Mapping[str, Tensor]) -> Tensor:
        batch = self._batch_moments(preds)
        self._accumulate(_detached(batch))
        if self.dist_sync_on_step and self.distributed_available_fn():
            batch = self._over_ranks(batch)
        self.last_batches = _detached(batch)
        return self._value(batch)

    @property
    def last_batch(self) -> Moments | None:
        """Moments of the last batch over all ranks, of the first group of blocks."""
        return self.last_batches[0] if self.last_batches else None

    @property
    def pooled(self) -> Moments:
        """Moments of all batches since the last reset, on this rank, of the first group
        of blocks.
        """
        return self._pooled[0]

    def last_mean_square(self) -> Tensor:
        """Debiased mean rho^2 of the last batch, shape ``()``.

        Of layers as they are penalised.

        Raises:
            UserError: before the first batch.
        """
        if not self.last_batches:
            raise UserError("expected a batch before its correlation, got none")
        mean = self._over_layers(
            [penalty(m, "square", floor=0.0) for m in self.last_batches]
        )
        return debias(mean, self.last_batches[0].rows)

    def diagnosis(self) -> Diagnosis:
        """Diagnosis of the pooled moments over all ranks, for every block.

        Raises:
            UserError: before the first batch.
        """
        with self.sync_context(should_sync=self._to_sync, should_unsync=True):
            pooled = self._pooled
        if pooled[0].second.dim() == 0:
            raise UserError("expected a batch before the diagnosis, got none")
        groups = [diagnose(m) for m in pooled]
        if self.blocks is None:
            return groups[0]
        back = torch.tensor([i for group in self._groups for i in group]).argsort()
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
        """Sum over ranks, of which some may not have seen a batch; see torchmetrics."""
        available = distributed_available or self.distributed_available_fn
        if should_sync and not self._is_synced and available():
            for names in self._state_names():
                self._agree_on_shape(names, process_group or self.process_group)
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)

    def check_finite(self, value: float, where: str) -> None:
        """Raise when ``value``, that of the last batch, is not finite.

        Raises:
            FloatingPointError: names the first layer at fault, and ``where``.
        """
        if isfinite(value):
            return
        field, layer = self.field, "?"
        for finite, group in zip(self._finite_blocks(), self._groups, strict=False):
            bad = (~finite).nonzero().flatten().tolist()
            if bad and layer == "?":
                layer = str(bad[0])
                if self.blocks is not None:
                    block = self.blocks[group[bad[0]]]
                    field, layer = block.field, block.name
        raise FloatingPointError(
            f"expected finite features in `{field}`, got NaN or infinity in layer "
            f"{layer} of {where}; this step has not touched the weights: lower the "
            f"learning rate, clip gradients, or look for a broken frame in that batch"
        )

    def _finite_blocks(self) -> list[Tensor]:
        """Whether each block of the last batch was finite, group by group."""
        return [m.second.isfinite().all(dim=2).all(dim=1) for m in self.last_batches]

    def _drawn(self, preds: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], float]:
        """Features of the edges that count, and how many edges each stands for."""
        fields = {block.field for block in self.blocks or []} or {self.field}
        for field in sorted(fields):
            if field not in preds:
                raise UserError(
                    f"expected the model to output `{field}`, got only "
                    f"{sorted(preds)}; name one of these as `field`"
                )
        features = {field: preds[field] for field in fields}
        total = next(iter(features.values())).shape[0]
        weight = 1.0
        if self.max_edges is not None and total > self.max_edges:
            device = preds[min(fields)].device
            rows = subsample_rows(total, self.max_edges, self._draw, device)
            take = self._rows.take if self.differentiated_with_energy else take_rows
            features = {field: take(preds, field, rows) for field in features}
            weight = total / self.max_edges
        return features, weight

    @property
    def _draw(self) -> int:
        """Seed of what this step draws."""
        # torch's generator on a CPU takes 32 bits; an odd factor keeps seeds apart
        return (self.seed * 0x9E3779B1 + self.step) % 2**32

    def _batch_moments(self, preds: Mapping[str, Tensor]) -> list[Moments]:
        features, weight = self._drawn(preds)
        if self.blocks is None:
            x = as_blocks(features[self.field], self.layer_dim)
            return [moments(x, weight)]
        return [
            block_moments(features, [self.blocks[index] for index in group], weight)
            for group in self._groups
        ]

    def _state_names(self) -> list[tuple[str, ...]]:
        """Names of the states of each group; the first has no suffix."""
        suffixes = ["", *(f"_{index}" for index in range(1, len(self._groups)))]
        return [tuple(name + suffix for name in _STATES) for suffix in suffixes]

    @property
    def _pooled(self) -> list[Moments]:
        return [
            Moments(*(getattr(self, name) for name in names))
            for names in self._state_names()
        ]

    def _accumulate(self, batch: list[Moments]) -> None:
        for names, old, new in zip(
            self._state_names(), self._pooled, batch, strict=True
        ):
            for name, part in zip(names, merge(old, new), strict=True):
                setattr(self, name, part)

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

    def _over_ranks(self, batch: list[Moments]) -> list[Moments]:
        # The sum over ranks enters as a constant, so that the gradient flows through
        # the local rows only: NequIP multiplies the loss by the number of ranks and
        # DDP averages over them, which adds up to the gradient of the whole.
        parts = [part for m in batch for part in m]
        flat = torch.cat([part.detach().flatten() for part in parts])
        torch.distributed.all_reduce(flat, group=self.process_group)
        summed = torch.split(flat, [part.numel() for part in parts])
        whole = [
            total.view_as(part) + (part - part.detach())
            for total, part in zip(summed, parts, strict=True)
        ]
        size = len(_STATES)
        return [Moments(*whole[i : i + size]) for i in range(0, len(whole), size)]

    def _of_layers(self, values: list[Tensor]) -> Tensor:
        """Values of layers, from those of the blocks of each group."""
        if self._shares is None:
            return values[0]
        together = torch.cat(values)
        self._shares = self._shares.to(together.device)
        return self._shares @ together

    def _value(self, groups: list[Moments]) -> Tensor:
        if groups[0].second.dim() == 0:
            return groups[0].second
        return self._over_layers(
            [penalty(m, self.penalty, self.variance_floor) for m in groups]
        )

    def _over_layers(self, groups: list[Tensor]) -> Tensor:
        """Weighted mean over layers, of the values of the blocks of each group."""
        values = self._of_layers(groups)
        if self.layers is None and self.layer_weights is None:
            return values.mean()
        if self._of_mean is None:
            self._of_mean = values.new_tensor(self._weights_of(len(values)))
        self._of_mean = self._of_mean.to(values.device)
        # a layer that is not finite shows, chosen or not: its gradient would be NaN
        return (values * self._of_mean).sum()

    def _weights_of(self, count: int) -> list[float]:
        """What each of ``count`` layers counts for in the mean; sums to 1."""
        chosen = list(range(count)) if self.layers is None else self.layers
        if any(not -count <= layer < count for layer in chosen):
            raise UserError(
                f"expected layers between 0 and {count - 1}, got {chosen}; "
                + (
                    f"`{self.field}` holds {count} layers"
                    if self.blocks is None
                    else f"the features have {count} layers"
                )
            )
        if len({layer % count for layer in chosen}) != len(chosen):
            raise UserError(
                f"expected `layers` to name different ones of {count} layers, got "
                f"{chosen}"
            )
        given = self.layer_weights
        if given is None:
            given = [1.0] * len(chosen)
        if len(given) != len(chosen):
            raise UserError(
                f"expected one of `layer_weights` for each of {len(chosen)} layers, "
                f"got {self.layer_weights}"
            )
        weights = [0.0] * count
        for layer, weight in zip(chosen, given, strict=True):
            weights[layer] = weight / sum(given)
        return weights


def _detached(groups: list[Moments]) -> list[Moments]:
    return [Moments(*(part.detach() for part in m)) for m in groups]
