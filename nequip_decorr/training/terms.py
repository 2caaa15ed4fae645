"""The metrics that the callback adds to the loss and to the validation metrics."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from nequip_decorr.correlation.pooled import EdgeCorrelation
from nequip_decorr.correlation.sampled import SampledCorrelation
from nequip_decorr.training import nequip_internals
from nequip_decorr.training.features import Features
from nequip_decorr.training.options import Options
from nequip_decorr.training.progress import Progress

#: Two rows correlate perfectly, whatever they are.
FEWEST_ROWS = 3


class LossTerm:
    """The correlation of a sample of each batch, as a term of a loss.

    Args:
        options: of the callback.
        found: features of the model.
        loss: NequIP's ``MetricsManager``, see :meth:`attach`.
        names: names of all decorrelation terms.

    Attributes:
        metric: the term's value.
    """

    def __init__(
        self, options: Options, found: Features, loss: Any, names: Collection[str]
    ) -> None:
        self.name, self.every = options.name, options.sample.every
        self.metric = SampledCorrelation(
            blocks=found.blocks,
            dist_sync_on_step=True,
            max_edges=options.sample.edges,
            max_channels=options.sample.channels,
            **_common(options),
        )
        self.metric.checked_by_callback = True
        self._loss, self._names = loss, names
        self._step, self._average = 0, 0.0
        self._said_idle = False

    def attach(self) -> None:
        """Add the term to the loss; it enters with the first coefficient above 0."""
        nequip_internals.add_metric(self._loss, self.name, self.metric)
        self.enter(0.0)

    def detach(self) -> None:
        """Remove the term from the loss, if it is there."""
        nequip_internals.remove_metric(self._loss, self.name, self.metric)

    @property
    def has_values(self) -> bool:
        """Whether a batch of this epoch had the term in its loss."""
        return bool(self.metric.update_called)

    def enter(self, coeff: float) -> None:
        """Set the coefficient of the next batch, whatever others have set."""
        nequip_internals.set_coefficient(self._loss, self.name, coeff, self._names)

    def start_batch(self, now: Progress, average: float) -> None:
        """Let the term enter, or not, with a coefficient that has this average."""
        self._average, self._step = average, now.global_step
        if not now.enters(self.every):
            self.enter(0.0)
            return
        self.enter(average * self.every)
        self.metric.step = now.global_step
        # schedules of NequIP's coefficients may turn it off and on
        energy = nequip_internals.has_energy_term(self._loss)
        # setting an attribute of a module takes as long as a small operator
        if energy != self.metric.differentiated_with_energy:
            self.metric.differentiated_with_energy = energy

    def check_finite(self, where: str) -> None:
        """Raise FloatingPointError unless the last value was finite."""
        value = nequip_internals.last_value(self._loss, self.name)
        if value is not None:
            self.metric.check_finite(value, where)

    def has_stepped(self, global_step: int) -> bool:
        """Whether the optimizer stepped after the last batch."""
        return global_step > self._step

    def measured(self) -> float | None:
        """Debiased mean rho^2 of the last batch.

        None if the term was not in it, or it had too few edges to tell.
        """
        if not (self.has_values and self.name in self._loss.entries):
            return None
        rows = self.metric.last_batches[0].rows
        # one wait for the device
        value, n_rows = torch.stack([self.metric.last_mean_square(), rows]).tolist()
        return None if n_rows < FEWEST_ROWS else float(value)

    @property
    def differs_by_rank(self) -> bool:
        """Whether :meth:`rest` is that of each rank's own batch."""
        return nequip_internals.differs_by_rank(self._loss)

    def rest(self) -> float:
        """Value of the loss in the last batch, without decorrelation terms."""
        return nequip_internals.value_without(self._loss, self._names)

    def end_epoch(self) -> str | None:
        """Let NequIP log the epoch's value even if the last step was without the term.

        Returns:
            why the term had no effect in the epoch, once in a training; see
            :meth:`nequip_decorr.correlation.sampled.SampledCorrelation.idle`.
        """
        if not self.has_values:
            return None
        self.enter(self._average)
        lacked = None if self._said_idle else self.metric.idle()
        self._said_idle = self._said_idle or lacked is not None
        return lacked


def new_monitor(options: Options, found: Features) -> EdgeCorrelation:
    """The validation metric: correlation of all validation data."""
    metric = EdgeCorrelation(blocks=found.blocks, **_common(options))
    metric.checked_by_callback = True
    return metric


def _common(options: Options) -> dict[str, Any]:
    return {
        "layer_weights": options.layer_weights,
        "penalty": options.penalty.kind,
        "variance_floor": options.penalty.floor,
        "seed": options.sample.seed,
    }
