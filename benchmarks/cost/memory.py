"""Peak memory of the tensors of a training step, with and without the term."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch.profiler import ProfilerActivity, profile

from .models import (
    OFF,
    ON,
    SCHEDULE,
    Stop,
    Switched,
    trainer_for,
    training_module,
)

#: Steps of each kind; the first of them allocate what stays.
STEPS = 3


class Weigh(Callback):
    """First of the callbacks: weighs steps with and without the term in turns."""

    def __init__(self, switched: Switched) -> None:
        self.switched = switched
        self.step = 0
        self.peaks: dict[str, float] = {}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.switched.switch((OFF, ON)[self.step % 2], pl_module)
        self.scale = Scale()

    def finish(self, trainer: Any) -> None:
        """Called by :class:`Stop`, the last of the callbacks."""
        self.peaks[self.switched.kind] = self.scale.peak_mib()
        self.step += 1


class Scale:
    """Peak of memory since it was made; on a CPU of what was allocated since then.

    Counted, not sampled: the resident set of a process varies by more than the term
    takes, and includes the libraries.
    """

    def __init__(self) -> None:
        self.cuda = torch.cuda.is_available()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            self.profile = profile(
                activities=[ProfilerActivity.CPU], profile_memory=True
            )
            self.profile.__enter__()

    def peak_mib(self) -> float:
        """In MiB."""
        if self.cuda:
            return float(torch.cuda.max_memory_allocated() / 2**20)
        self.profile.__exit__(None, None, None)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            self.profile.export_chrome_trace(str(path))
            events = json.loads(path.read_text())["traceEvents"]
        changes = [
            (event["ts"], event["args"]["Bytes"])
            for event in events
            if event.get("name") == "[memory]"
        ]
        total = peak = 0
        for _, change in sorted(changes, key=lambda item: item[0]):
            total += change
            peak = max(peak, total)
        return peak / 2**20


def peaks(name: str, mode: str, batch: Any, options: dict[str, Any]) -> list[float]:
    """Peaks (MiB) of a step with the term and of one without."""
    ours = Switched(SCHEDULE, monitor=False, **options)
    weigh = Weigh(ours)
    loader = torch.utils.data.DataLoader([batch] * (2 * STEPS), batch_size=None)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(
            [weigh, ours, Stop(weigh)], 2 * STEPS, devices=1, default_root_dir=folder
        )
        trainer.fit(training_module(name, mode), loader)
    return [weigh.peaks[ON], weigh.peaks[OFF]]
