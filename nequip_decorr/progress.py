"""How far a training is: exact, and the same for whatever loader it runs with.

Epochs with the fraction of the present one are what an optimizer step means at any
batch size, number of ranks or gradient accumulation. Fractions, so that a restart finds
every position bit by bit; no state, no torch.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, inf, isfinite
from typing import Any, NamedTuple


class Progress(NamedTuple):
    """Where a training is, at the start of a batch.

    Attributes:
        epoch: epochs completed.
        step: optimizer steps made in the present epoch.
        steps_per_epoch: optimizer steps in an epoch of the present loader, None for a
            loader without a length.
        global_step: optimizer steps of the whole training, with whatever loaders.
    """

    epoch: int
    step: int
    steps_per_epoch: int | None
    global_step: int

    @property
    def epochs(self) -> Fraction:
        """Epochs completed and the fraction of the present one, if it has a length."""
        if self.steps_per_epoch is None:
            return Fraction(self.epoch)
        # Lightning may resume beyond the end of an epoch that has fewer batches now
        done = min(self.step, self.steps_per_epoch)
        return self.epoch + Fraction(done, self.steps_per_epoch)

    def enters(self, every: int) -> bool:
        """Whether a term that enters every so many steps does so in this one.

        Each epoch begins one step later than the one before, so that in ``every``
        consecutive epochs each batch of an unshuffled loader is met exactly once.
        """
        return (self.step - self.epoch) % every == 0


def read_progress(trainer: Any, batch_idx: int) -> Progress:
    """Progress of a Lightning Trainer in ``on_train_batch_start``.

    Not earlier: after a restart Lightning's counters are right from the first batch.
    """
    batches = trainer.num_training_batches
    accumulate = trainer.accumulate_grad_batches
    return Progress(
        epoch=trainer.current_epoch,
        step=batch_idx // accumulate,
        steps_per_epoch=ceil(batches / accumulate) if isfinite(batches) else None,
        global_step=trainer.global_step,
    )


class Scale(NamedTuple):
    """What positions of a schedule are counted in.

    Attributes:
        unit: ``epoch``, or ``step``: an optimizer step as it was when the training
            started.
        steps_per_epoch: optimizer steps in an epoch of the loader that the training
            started with, None for one without a length.
    """

    unit: str
    steps_per_epoch: int | None

    def position(self, now: Progress) -> float:
        """Where a training is.

        Without the length of a loader, whole epochs or ``global_step``.
        """
        if self._counts_global_steps(now):
            return float(now.global_step)
        return float(now.epochs * self._units_per_epoch)

    def end(self, now: Progress, max_epochs: int, max_steps: int) -> float:
        """Where the training will end; infinity when that cannot be known.

        Args:
            now: where it is.
            max_epochs, max_steps: of the Trainer, -1 for no limit.
        """
        if self._counts_global_steps(now):
            return inf if max_steps == -1 else float(max_steps)
        ends = [] if max_epochs == -1 else [Fraction(max_epochs)]
        if max_steps != -1 and now.steps_per_epoch is not None:
            left = Fraction(max_steps - now.global_step, now.steps_per_epoch)
            ends.append(now.epochs + left)
        return float(min(ends) * self._units_per_epoch) if ends else inf

    def _counts_global_steps(self, now: Progress) -> bool:
        unknown = self.steps_per_epoch is None or now.steps_per_epoch is None
        return self.unit == "step" and unknown

    @property
    def _units_per_epoch(self) -> int:
        return 1 if self.unit == "epoch" else self.steps_per_epoch or 1


def latest_end(unit: str, max_epochs: int, max_steps: int) -> float | None:
    """When a training that starts afresh ends at the latest, before its data are known.

    Infinity for one without an end, None where only the length of its loader can tell.
    """
    if max_epochs == max_steps == -1:
        return inf
    limit = max_epochs if unit == "epoch" else max_steps
    return None if limit == -1 else float(limit)
