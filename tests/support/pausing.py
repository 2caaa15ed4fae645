"""A training that waits to be killed, however slow the machine is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback


class Pause(Callback):
    """At a step, makes the file ``paused`` and waits for a signal.

    Args:
        step: the step.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            Path("paused").touch()
            while not trainer.received_sigterm:
                time.sleep(0.01)
