"""The loss term of a training: the same correlation, of a sample of each batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from nequip_decorr._validation import is_whole
from nequip_decorr.correlation.channels import arrange, stack_blocks
from nequip_decorr.correlation.functional import (
    are_live,
    as_blocks,
    debias,
    subsample_channels,
    widened,
)
from nequip_decorr.correlation.gradients import (
    Centred,
    RowCorrelation,
    centre_rows,
    score,
)
from nequip_decorr.correlation.pooled import EdgeCorrelation
from nequip_decorr.errors import UserError

#: Edges of each rank's batch in a step. Independent channels show r^2 = 1/1023 from so
#: many: a fiftieth of the level that ``target`` holds by default.
MAX_EDGES = 1024
#: Channels of each block in a step.
MAX_CHANNELS = 64


class SampledCorrelation(EdgeCorrelation):
    r"""Correlation of a sample of edges and channels, drawn anew at each step.

    What the callback adds to the loss. Its work does not grow with edges or channels
    beyond the two limits. With fewer edges and channels than these, the value and
    gradient of a batch are those of :class:`EdgeCorrelation`; else they are estimates:

    - From s edges a correlation has a standard deviation of about
      :math:`(1-\rho^2)/\sqrt{s-1}`, and its square a bias of
      :math:`(1-\rho^2)^2/(s-1)`: at 1024 edges 0.03 and 0.001.
    - The mean over the pairs of c channels has no bias, and a standard deviation of at
      most :math:`\sigma\sqrt{2/c}`, with :math:`\sigma` that of the pairs' values.

    Each step draws afresh, so a training sees all edges and channels. An epoch's value
    (``compute()``) is the mean of its batches' values, weighted by their edges. To
    measure a model, take :class:`EdgeCorrelation` on validation data.

    Args:
        max_edges: see :class:`EdgeCorrelation`.
        max_channels: use at most this many channels of each block, the same on all
            ranks; None uses all.
        **options: see :class:`EdgeCorrelation`.

    Raises:
        UserError: for options out of range.
        FloatingPointError: when what was drawn of a batch is not finite.
    """

    value_sum: Tensor
    edges: Tensor

    def __init__(
        self,
        *args: Any,
        max_edges: int | None = MAX_EDGES,
        max_channels: int | None = MAX_CHANNELS,
        **options: Any,
    ) -> None:
        super().__init__(*args, max_edges=max_edges, **options)
        if max_channels is not None and not (
            is_whole(max_channels) and max_channels >= 2
        ):
            raise UserError(
                f"expected a whole `max_channels` of at least 2 or null, got "
                f"{max_channels!r}"
            )
        self.max_channels = max_channels
        self._groups, self._shares = arrange(self.blocks, max_channels)
        self._last: Whole | None = None
        for name in ("value_sum", "edges"):
            zero = torch.zeros((), dtype=torch.float64)
            self.add_state(name, zero, dist_reduce_fx="sum")

    def update(self, preds: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        """Add a batch to the epoch's mean; ``target`` is not used."""
        with torch.no_grad():
            self._add_batch(preds)

    def compute(self) -> Tensor:
        """Mean of the batches' values, weighted by edges, float64, shape ``()``."""
        return self.value_sum / self.edges.clamp_min(1.0)

    def last_mean_square(self) -> Tensor:
        """Debiased mean rho^2 of what was drawn of the last batch, shape ``()``.

        Of layers as they are penalised.

        Raises:
            UserError: before the first batch.
        """
        if self._last is None:
            raise UserError("expected a batch before its correlation, got none")
        values = [
            score(part.cov, part.mean, square=True, floor=0.0, live=are_live)[0]
            for part in self._last.parts
        ]
        mean = self._over_layers(values)
        return debias(mean, torch.as_tensor(self._last.rows).to(mean))

    def idle(self) -> str | None:
        """What the batches since the last reset lacked, on all ranks together.

        ``edges`` where there were none, ``channels`` where no two channels of a layer
        varied, so that there was nothing to correlate; None where there was. A
        collective of all ranks, and the host waits for the device.
        """
        with self.sync_context(should_sync=self._to_sync, should_unsync=True):
            edges, value = float(self.edges), float(self.value_sum)
        if edges == 0:
            return "edges"
        # a correlation that is exactly 0 is none between channels that vary
        return "channels" if value == 0 else None

    def diagnosis(self) -> NoReturn:
        """Not of a sample.

        Raises:
            UserError: always.
        """
        raise UserError(
            "expected a metric that pools its batches, got one that samples them; take "
            "EdgeCorrelation on validation data"
        )

    def _state_names(self) -> list[tuple[str, ...]]:
        return []  # nothing is pooled: channels differ from batch to batch

    def _finite_blocks(self) -> list[Tensor]:
        parts = [] if self._last is None else self._last.parts
        return [part.cov.isfinite().all(dim=2).all(dim=1) for part in parts]

    def _add_batch(self, preds: Mapping[str, Tensor]) -> Tensor:
        features, weight = self._drawn(preds)
        drawn = next(iter(features.values())).shape[0]
        groups = self._stacked(features)
        del features  # memory, where the groups are copies
        square = self.penalty == "square"
        with torch.no_grad():
            parts = [centre_rows(x, centred) for x, centred in groups]
            if self.dist_sync_on_step and self.distributed_available_fn():
                self._last = _together(parts, drawn, weight, self.process_group)
            else:
                self._last = Whole([_alone(part) for part in parts], float(drawn))
        value = self._over_layers(
            [
                RowCorrelation.apply(  # type: ignore[no-untyped-call]
                    x, part, *whole, square, self.variance_floor, are_live
                )
                for (x, _), part, whole in zip(
                    groups, parts, self._last.parts, strict=True
                )
            ]
        )
        edges = drawn * weight
        self.value_sum = torch.add(self.value_sum, value.detach(), alpha=edges)
        self.edges = self.edges + edges
        return value

    def _stacked(self, features: dict[str, Tensor]) -> list[tuple[Tensor, bool]]:
        """Rows (N, L, C) of each group of blocks, and whether these are centred."""
        if self.blocks is None:
            x = widened(as_blocks(features[self.field], self.layer_dim))
            for channels in self._draw_channels({x.shape[2]}, x.device).values():
                x = x.index_select(2, channels)
            return [(x, True)]
        groups = [[self.blocks[i] for i in group] for group in self._groups]
        device = next(iter(features.values())).device
        chosen = self._draw_channels({block.channels for block in self.blocks}, device)
        return [
            (widened(stack_blocks(features, group, chosen)), group[0].centred)
            for group in groups
        ]

    def _draw_channels(
        self, widths: set[int], device: torch.device
    ) -> dict[int, Tensor]:
        """Channels of blocks that are wider than the limit, by width."""
        keep = self.max_channels
        return {
            width: subsample_channels(width, keep, self._draw, device)
            for width in widths
            if keep is not None and width > keep
        }


class Part(NamedTuple):
    """What the rows of a group belong to, in units of theirs, see RowCorrelation."""

    cov: Tensor
    mean: Tensor
    shift: Tensor | None
    share: Tensor | float


class Whole(NamedTuple):
    """A batch: a part for each group, and the number of edges that were drawn."""

    parts: list[Part]
    rows: Tensor | float


def _alone(rows: Centred) -> Part:
    share = 1.0 / max(len(rows.z), 1)
    return Part(rows.gram * share, rows.centre / rows.unit[:, None], None, share)


def _together(parts: list[Centred], drawn: int, weight: float, group: Any) -> Whole:
    """The same over all ranks: sums about the origin, added in one collective."""
    sums = [part.about_origin() for part in parts]
    counts = [drawn, *(len(part.z) * weight for part in parts)]
    # filled on the device: a copy to it would make the host wait
    flat = torch.cat(
        [
            *(sums[0][0].new_full((1,), count) for count in counts),
            *(x.flatten() * weight for pair in sums for x in pair),
        ]
    )
    torch.distributed.all_reduce(flat, group=group)
    sizes = [1, *[1] * len(parts), *(x.numel() for pair in sums for x in pair)]
    rows, *rest = torch.split(flat, sizes)
    wholes = []
    for i, part in enumerate(parts):
        total = rest[i].clamp_min(1.0)
        first, second = rest[len(parts) + 2 * i :][:2]
        unit = part.unit.double()[:, None]
        absolute = first.view_as(part.centre) / total
        cov = second.view_as(part.gram) / total
        cov = cov - absolute[:, :, None] * absolute[:, None, :]
        mean = absolute / unit
        cov = cov / (unit * unit)[..., None]
        shift = part.centre / unit - mean
        wholes.append(Part(cov, mean, shift, weight / total))
    return Whole(wholes, rows[0])
