"""Correlation of a sample of each batch: the loss term of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nequip_decorr.correlation.base import CorrelationMetric, check_limit
from nequip_decorr.correlation.functional import Moments

#: Edges of each rank's batch in a step. Independent channels show r^2 = 1/1023 from so
#: many: a fiftieth of the level that ``target`` holds by default.
MAX_EDGES = 1024
#: Channels of each block in a step.
MAX_CHANNELS = 64


class SampledCorrelation(CorrelationMetric):
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

    skips_unweighted = True
    value_sum: Tensor
    edges: Tensor

    def __init__(
        self,
        *args: Any,
        max_edges: int | None = MAX_EDGES,
        max_channels: int | None = MAX_CHANNELS,
        **options: Any,
    ) -> None:
        check_limit("max_channels", max_channels)
        # first: it decides which channels go into one product
        self.max_channels = max_channels
        super().__init__(*args, max_edges=max_edges, **options)

    def update(self, preds: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        """Add a batch to the epoch's mean; ``target`` is not used."""
        with torch.no_grad():
            self._evaluate(preds)

    def compute(self) -> Tensor:
        """Mean of the batches' values, weighted by edges, float64, shape ``()``."""
        return self.value_sum / self.edges.clamp_min(1.0)

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

    def _accumulate(self, batch: list[Moments], value: Tensor) -> None:
        edges = batch[0].weight
        self.value_sum = self.value_sum + value * edges
        self.edges = self.edges + edges

    def _add_states(self) -> None:
        for name in ("value_sum", "edges"):
            zero = torch.zeros((), dtype=torch.float64)
            self.add_state(name, zero, dist_reduce_fx="sum")
