r"""What a relative coefficient multiplies: a running average of the rest of the loss.

Of each optimizer step, the value of the loss without decorrelation terms: the mean over
its batches of :math:`\sum_k c_k L_k`, as NequIP weighs it and reads it from the device
for its logs. NequIP reduces these values over ranks, and the callback those of losses
by atom type, so that all ranks have the same.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

#: Weight of the past in the average: it looks back about 50 optimizer steps.
DECAY = 0.98
#: A step counts as at most this many times the average, so that one bad batch does not
#: dominate it.
LARGEST_RISE = 10.0


class RunningLoss:
    """Exponential average over optimizer steps; exact from the first of them.

    Its weights sum to 1 however few steps there were (as in Adam, arXiv:1412.6980). A
    step that is not finite does not count, and a negative one counts as 0.
    """

    def __init__(self) -> None:
        self._sum = 0.0
        self._weight = 0.0
        self._batches: list[float] = []

    @property
    def value(self) -> float:
        """The average; 0 before the first step."""
        return self._sum / self._weight if self._weight else 0.0

    def add(self, value: float, stepped: bool) -> None:
        """Take up a batch.

        Args:
            value: of the loss in it, without decorrelation terms.
            stepped: whether the optimizer stepped after it; gradients of several
                batches may be accumulated.
        """
        self._batches.append(value)
        if not stepped:
            return
        mean = sum(self._batches) / len(self._batches)
        self._batches.clear()
        if not isfinite(mean):
            return
        if self.value > 0:
            mean = min(mean, LARGEST_RISE * self.value)
        self._sum = DECAY * self._sum + (1 - DECAY) * max(mean, 0.0)
        self._weight = DECAY * self._weight + (1 - DECAY)

    def state(self) -> dict[str, Any]:
        """Sum and weight as Python numbers, for checkpoints.

        Without batches whose gradients wait for a step: a restart loses those as well.
        """
        return {"sum": self._sum, "weight": self._weight}

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self._sum, self._weight = state["sum"], state["weight"]
