"""What the pooled and the sampled metric share: the loss of one batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from nequip_decorr.checks import (
    as_list,
    check_choice,
    check_number,
    check_whole,
    is_whole,
)
from nequip_decorr.correlation.channels import (
    Block,
    block_moments,
    block_weights,
    check_layer_weights,
    group_blocks,
    scalar_blocks,
)
from nequip_decorr.correlation.functional import (
    PENALTIES,
    VARIANCE_FLOOR,
    Moments,
    as_blocks,
    debias,
    penalty,
)
from nequip_decorr.correlation.rows import RowTaker, take_rows
from nequip_decorr.correlation.sampling import (
    step_seed,
    subsample_channels,
    subsample_rows,
)
from nequip_decorr.errors import UserError

#: Field of the edge features in the output of an Allegro model.
FIELD = "edge_features"


class CorrelationMetric(Metric):
    """The correlation loss of a batch; a subclass says what an epoch's value is.

    See :class:`nequip_decorr.EdgeCorrelation` for the options.

    Attributes:
        step: with ``seed``, determines what is drawn. The callback sets it to the
            trainer's ``global_step``; by hand it counts training calls.
        blocks: the groups of channels; None before the first batch unless given.
        last_batches: moments of the last batch over all ranks, one for each group of
            blocks that go into one product.
        checked_by_callback: the callback checks the value that NequIP has read already;
            otherwise the metric reads one scalar a step itself.
        differentiated_with_energy: the loss also contains the energy.
    """

    is_differentiable = True
    higher_is_better = False
    full_state_update = False

    #: takes at most this many channels of each block, drawn anew at each step
    max_channels: int | None = None
    #: leaves out layers of weight 0; otherwise they are measured, but do not count
    skips_unweighted = False

    def __init__(
        self,
        field: str = FIELD,
        layer_dim: int | None = None,
        *,
        blocks: Sequence[Block] | None = None,
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
        self.layer_weights = as_list("layer_weights", layer_weights)
        self.penalty = penalty
        self.variance_floor = variance_floor
        self.max_edges = max_edges
        self.seed = seed
        self.step = 0
        self.last_batches: list[Moments] = []
        self.checked_by_callback = False
        self.differentiated_with_energy = False
        self._rows = RowTaker()
        self._check_options()
        self.blocks: list[Block] | None = None
        # blocks that go into one product; their indices and weights in this order
        self._groups: list[list[Block]] = []
        self._order: list[int] = []
        self._weights = torch.zeros(0, dtype=torch.float64)
        if blocks is not None:
            self._arrange(list(blocks))
        self._add_states()

    def forward(
        self, preds: Mapping[str, Tensor], target: Mapping[str, Tensor]
    ) -> Tensor:
        """Value of this batch, with gradient; adds the batch to the epoch.

        torchmetrics' own forward would compute the moments twice when it synchronises
        on each step, as NequIP asks of loss terms.
        """
        value = self._evaluate(preds)
        self._update_count += 1
        # setting an attribute of a module takes as long as a small operator
        if self._computed is not None:
            self._computed = None
        if self.checked_by_callback:
            return value
        self.check_finite(value.item(), f"step {self.step}")
        if torch.is_grad_enabled():
            self.step += 1
        return value

    def last_mean_square(self) -> Tensor:
        """Debiased mean rho^2 of the last batch, shape ``()``, weighted as penalised.

        Raises:
            UserError: before the first batch.
        """
        if not self.last_batches:
            raise UserError(
                "no batch has been seen yet; call the metric on a batch first"
            )
        mean = self._value(self.last_batches, "square", floor=0.0)
        return debias(mean, self.last_batches[0].rows)

    def check_finite(self, value: float, where: str) -> None:
        """Raise when ``value``, that of the last batch, is not finite.

        Raises:
            FloatingPointError: names the first layer at fault, and ``where``.
        """
        if isfinite(value):
            return
        field, layer = self.field, "?"
        blocks = [block for group in self._groups for block in group]
        finite = [
            each
            for m in self.last_batches
            for each in m.second.isfinite().all(dim=2).all(dim=1).tolist()
        ]
        if not all(finite):
            block = blocks[finite.index(False)]
            field, layer = block.field, block.name
        raise FloatingPointError(
            f"expected finite features in `{field}`, got NaN or infinity in layer "
            f"{layer} of {where}; the weights are unchanged by this step: lower the "
            f"learning rate, clip gradients, or look for a broken frame in that batch"
        )

    # --- a batch ---

    def _evaluate(self, preds: Mapping[str, Tensor]) -> Tensor:
        """Value of a batch over all ranks, which is added to the epoch."""
        batch = whole = self._batch_moments(preds)
        if self.dist_sync_on_step and self.distributed_available_fn():
            whole = self._over_ranks(batch)
        self.last_batches[:] = [_detached(m) for m in whole]
        value = self._value(whole, self.penalty, self.variance_floor)
        mine = self.last_batches if whole is batch else [_detached(m) for m in batch]
        self._accumulate(mine, value.detach())
        return value

    @abstractmethod
    def _add_states(self) -> None:
        """Add torchmetrics' states; called once, at the end of ``__init__``."""

    @abstractmethod
    def _accumulate(self, batch: list[Moments], value: Tensor) -> None:
        """Add a batch of this rank, and its value over all ranks, to the epoch."""

    def _batch_moments(self, preds: Mapping[str, Tensor]) -> list[Moments]:
        features, weight = self._draw_rows(preds)
        device = next(iter(features.values())).device
        chosen = self._draw_channels(device)
        return [
            block_moments(features, group, weight, chosen) for group in self._groups
        ]

    def _draw_rows(
        self, preds: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], float]:
        """Features of the edges that count, and how many edges each stands for."""
        fields = [self.field]
        if self.blocks is not None:
            fields = sorted({b.field for group in self._groups for b in group})
        for field in fields:
            if field not in preds:
                raise UserError(
                    f"expected the model to output `{field}`, got only "
                    f"{sorted(preds)}; name one of these as `field`"
                )
        if self.blocks is None:
            _, layers, channels = as_blocks(preds[self.field], self.layer_dim).shape
            self._arrange(scalar_blocks(self.field, channels, layers))
        first = preds[fields[0]]
        total = first.shape[0]
        if self.max_edges is None or total <= self.max_edges:
            return {field: preds[field] for field in fields}, 1.0
        seed = step_seed(self.seed, self.step)
        rows = subsample_rows(total, self.max_edges, seed, first.device)
        take = self._rows.take if self.differentiated_with_energy else take_rows
        features = {field: take(preds, field, rows) for field in fields}
        return features, total / self.max_edges

    def _draw_channels(self, device: torch.device) -> dict[int, Tensor]:
        """Channels to take of blocks that are wider than the limit, by width."""
        keep = self.max_channels
        widths = {block.channels for group in self._groups for block in group}
        seed = step_seed(self.seed, self.step)
        return {
            width: subsample_channels(width, keep, seed, device)
            for width in widths
            if keep is not None and width > keep
        }

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
        size = len(Moments._fields)
        return [Moments(*whole[i : i + size]) for i in range(0, len(whole), size)]

    def _value(self, groups: list[Moments], kind: str, floor: float) -> Tensor:
        """Weighted mean over layers."""
        values = [penalty(m, kind, floor) for m in groups]
        together = values[0] if len(values) == 1 else torch.cat(values)
        # a copy makes the host wait for the device: one copy only
        if self._weights.device != together.device:
            self._weights = self._weights.to(together.device)
        # a weight of 0 does not hide what is not finite: its gradient would be NaN
        return together.dot(self._weights)

    # --- options ---

    def _arrange(self, blocks: list[Block]) -> None:
        """Take up the groups of channels, which the first batch shows or are given."""
        weights = block_weights(blocks, self.layer_weights)
        chosen = [
            i for i, w in enumerate(weights) if w > 0 or not self.skips_unweighted
        ]
        groups = group_blocks([blocks[i] for i in chosen], self.max_channels)
        self.blocks = blocks
        self._order = [chosen[i] for group in groups for i in group]
        self._groups = [[blocks[chosen[i]] for i in group] for group in groups]
        self._weights = torch.tensor(
            [weights[i] for i in self._order], dtype=torch.float64
        )

    def _check_options(self) -> None:
        """Raise UserError for options out of range; shapes are known with the data."""
        check_whole("layer_dim", self.layer_dim, least=1, null=True)
        check_layer_weights(self.layer_weights)
        check_choice("penalty", self.penalty, PENALTIES)
        check_number("variance_floor", self.variance_floor, most=1)
        if not is_whole(self.seed):
            raise UserError(f"expected a whole `seed`, got {self.seed!r}")
        check_whole("max_edges", self.max_edges, least=2, null=True)


def _detached(m: Moments) -> Moments:
    return Moments(*(part.detach() for part in m))
