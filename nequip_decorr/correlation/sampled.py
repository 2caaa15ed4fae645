"""Correlation of a sample of each batch: the loss term of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nequip_decorr.checks import check_whole
from nequip_decorr.correlation.base import CorrelationMetric
from nequip_decorr.correlation.functional import Moments

#: Edges of each rank's batch in a step. With so many, independent channels have a mean
#: rho^2 of 1/1023, a fiftieth of the target of 0.05 in the examples.
MAX_EDGES = 1024
#: Channels of each block in a step.
MAX_CHANNELS = 64


class SampledCorrelation(CorrelationMetric):
    r"""Correlation of a sample of edges and channels, drawn anew at each step.

    The callback adds it to the loss. Its cost does not grow with the number of edges or
    channels beyond two limits. Below these, the value and gradient of a batch are those
    of :class:`nequip_decorr.EdgeCorrelation`; above, they are estimates:

    - From s edges a correlation has a standard deviation of about
      :math:`(1-\rho^2)/\sqrt{s-1}`, and its square a bias of
      :math:`(1-\rho^2)^2/(s-1)`: at 1024 edges 0.03 and 0.001.
    - The mean over the pairs of c channels has no bias, and a standard deviation of at
      most :math:`\sigma\sqrt{2/c}`, with :math:`\sigma` that of the pairs' values.

    Each step draws afresh, so a training sees all edges and channels. An epoch's value
    (``compute()``) is the mean of its batches' values, weighted by their edges. To
    measure a model, use :class:`nequip_decorr.EdgeCorrelation` on validation data.
    Layers of weight 0 are not computed.

    Args:
        max_edges: use at most this many edges of each rank's batch; None uses all.
        max_channels: use at most this many channels of each block, the same on all
            ranks; None uses all.
        **options: see :class:`nequip_decorr.EdgeCorrelation`.

    Raises:
        UserError: for options out of range.
        FloatingPointError: when the drawn features of a batch are not finite.
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
        check_whole("max_channels", max_channels, least=2, null=True)
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
        """Why the batches since the last reset had nothing to correlate, if so.

        Over all ranks: ``edges`` if there were none, ``channels`` if no two channels of
        a layer varied, otherwise None. A collective of all ranks that waits for the
        device.
        """
        with self.sync_context(should_sync=self._to_sync, should_unsync=True):
            edges, value = float(self.edges), float(self.value_sum)
        if edges == 0:
            return "edges"
        # the correlation of channels that vary is never exactly 0
        return "channels" if value == 0 else None

    def _accumulate(self, batch: list[Moments], value: Tensor) -> None:
        edges = batch[0].weight
        self.value_sum.addcmul_(value, edges)
        self.edges.add_(edges)

    def _add_states(self) -> None:
        for name in ("value_sum", "edges"):
            zero = torch.zeros((), dtype=torch.float64)
            self.add_state(name, zero, dist_reduce_fx="sum")
