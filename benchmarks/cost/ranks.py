"""One data-parallel training by Lightning: the cost of the term and of its collective.

Started by ``training.py``; Lightning starts the other ranks with the same arguments.
Rank 0 prints JSON: times of steps with and without, times of the collective alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import warnings
from typing import Any

import torch
from nequip.data import AtomicDataDict
from nequip.utils.global_state import set_global_state

from .models import (
    OFF,
    ON,
    SCHEDULE,
    Clock,
    Stop,
    Switched,
    batch_of,
    trainer_for,
    training_module,
)


class Collective:
    """Stands before torch's ``all_reduce``, waits for all ranks, and times it."""

    def __init__(self) -> None:
        self.all_reduce: Any = torch.distributed.all_reduce
        self.times: list[float] = []
        self.bytes = 0

    def __call__(self, tensor: torch.Tensor, **options: Any) -> Any:
        # otherwise the time would be that of the slowest rank's forward pass
        torch.distributed.barrier()
        start = time.perf_counter()
        result = self.all_reduce(tensor, **options)
        self.times.append(time.perf_counter() - start)
        self.bytes = tensor.numel() * tensor.element_size()
        return result


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--edges", type=int, required=True)
    parser.add_argument("--pairs", type=int, required=True)
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    set_global_state()
    batch = batch_of(args.edges)
    ours = Switched(SCHEDULE, monitor=False)
    clock = Clock(ours, (ON, OFF), 0.0)
    steps = 2 * (args.pairs + clock.warm) * clock.block
    module = training_module(args.model, "eager")
    loader = torch.utils.data.DataLoader([batch] * steps * args.ranks, batch_size=None)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(
            [clock, ours, Stop(clock)],
            steps,
            strategy="ddp",
            devices=args.ranks,
            default_root_dir=folder,
        )
        collective = Collective()
        torch.distributed.all_reduce = collective
        trainer.fit(module, loader)
    if trainer.is_global_zero:
        print(
            json.dumps(
                {
                    "edges": AtomicDataDict.num_edges(batch),
                    "on": clock.times[ON],
                    "off": clock.times[OFF],
                    "collective": collective.times[clock.warm :],
                    "bytes": collective.bytes,
                }
            )
        )


if __name__ == "__main__":
    main()
