"""Progress of a training: exact, and independent of its data loader.

Epochs with the fraction of the current one mean the same at any batch size, number of
ranks or gradient accumulation. A single division of whole numbers gives each position,
so that a restart reproduces it bit by bit. No state, no torch.
"""

from __future__ import annotations

from math import ceil, inf, isfinite
from typing import Any, NamedTuple


class Progress(NamedTuple):
    """Position of a training at the start of a batch.

    Attributes:
        epoch: epochs completed.
        step: optimizer steps made in the current epoch.
        steps_per_epoch: optimizer steps in an epoch of the current loader, None for a
            loader without a length.
        global_step: optimizer steps of the whole training, with any loaders.
    """

    epoch: int
    step: int
    steps_per_epoch: int | None
    global_step: int

    def enters(self, every: int) -> bool:
        """Whether a term that enters every so many steps enters this one.

        Each epoch begins one step later than the one before, so that in ``every``
        consecutive epochs each batch of an unshuffled loader is met exactly once.
        """
        return (self.step - self.epoch) % every == 0


def read_progress(trainer: Any, batch_idx: int) -> Progress:
    """Progress of a Lightning Trainer in ``on_train_batch_start``.

    Not earlier: after a restart Lightning's counters are correct only from the first
    batch on.
    """
    batches = trainer.num_training_batches
    accumulate = trainer.accumulate_grad_batches
    length = ceil(batches / accumulate) if isfinite(batches) else None
    step = batch_idx // accumulate
    return Progress(
        epoch=trainer.current_epoch,
        # it may resume beyond the end of an epoch that has fewer batches now
        step=step if length is None else min(step, length),
        steps_per_epoch=length,
        global_step=trainer.global_step,
    )


class Scale(NamedTuple):
    """Unit of the positions of a schedule.

    Attributes:
        unit: ``epoch``, or ``step``: an optimizer step as it was when the training
            started.
        steps_per_epoch: optimizer steps in an epoch of the loader that the training
            started with, None for one without a length.
    """

    unit: str
    steps_per_epoch: int | None

    def position(self, now: Progress) -> float:
        """Position of a training.

        Without the length of a loader: whole epochs, or ``global_step``.
        """
        if self._counts_global_steps(now):
            return float(now.global_step)
        if now.steps_per_epoch is None:
            return float(now.epoch)
        return self._count(now.epoch, now.step, now.steps_per_epoch)

    def end(self, now: Progress, max_epochs: int, max_steps: int) -> float:
        """Position where the training will end; infinity when that cannot be known.

        Args:
            now: its current progress.
            max_epochs, max_steps: of the Trainer, -1 for no limit.
        """
        if self._counts_global_steps(now):
            return inf if max_steps == -1 else float(max_steps)
        ends = [] if max_epochs == -1 else [self._count(max_epochs, 0, 1)]
        if max_steps != -1 and now.steps_per_epoch is not None:
            left = max_steps - now.global_step
            ends.append(self._count(now.epoch, now.step + left, now.steps_per_epoch))
        return min(ends, default=inf)

    def _counts_global_steps(self, now: Progress) -> bool:
        unknown = self.steps_per_epoch is None or now.steps_per_epoch is None
        return self.unit == "step" and unknown

    def _count(self, epochs: int, steps: int, steps_per_epoch: int) -> float:
        """Epochs and optimizer steps in the unit, as the nearest float."""
        units = 1 if self.unit == "epoch" else self.steps_per_epoch or 1
        return (epochs * steps_per_epoch + steps) * units / steps_per_epoch


def latest_end(unit: str, max_epochs: int, max_steps: int) -> float | None:
    """Latest end of a new training, before its data are known.

    Infinity for one without an end, None if it depends on the length of its loader.
    """
    if max_epochs == max_steps == -1:
        return inf
    limit = max_epochs if unit == "epoch" else max_steps
    return None if limit == -1 else float(limit)
