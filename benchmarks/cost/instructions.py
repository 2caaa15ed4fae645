"""Instructions of the term, and of whole training steps: run under callgrind.

They do not depend on what else the machine does. ``training.py`` starts this module;
what a Python process does before the first step is not counted, which would take
longer than all else. Prints JSON, one line a case.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from nequip.data import AtomicDataDict
from nequip.utils.global_state import set_global_state

from nequip_decorr.correlation.channels import scalar_blocks
from nequip_decorr.correlation.sampled import SampledCorrelation

from ..common import json_lines
from .models import (
    EVERY_N_STEPS,
    FOURTH,
    OFF,
    SCHEDULE,
    Stop,
    Switched,
    batch_of,
    trainer_for,
    training_module,
)

#: Of whole steps, four each; the first of both kinds allocate what stays, and are not
#: counted.
KINDS = [*[OFF, FOURTH] * 2, OFF]
WARM = 2 * EVERY_N_STEPS
#: Layers of the term alone, and how often it is counted: each draws other edges.
LAYERS = 3
REPEATS = 5


def run(*arguments: str) -> list[dict[str, Any]]:
    """What this module prints under callgrind with these arguments."""
    with tempfile.TemporaryDirectory() as folder:
        counts = f"{folder}/counts"
        return json_lines(
            [
                *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet"),
                *(f"--callgrind-out-file={counts}", sys.executable, "-m", __name__),
                *("--counts", counts, *arguments),
            ]
        )


class Tally:
    """Instructions from one call of it to the next, without its own."""

    def __init__(self, counts: Path) -> None:
        subprocess.run(
            ["callgrind_control", "--instr=on", str(os.getpid())],
            check=True,
            capture_output=True,
        )
        self.counts = counts
        self.dumps = 0

    def __call__(self) -> int:
        torch._C._valgrind_toggle_and_dump_stats()
        self.dumps += 1
        dump = self.counts.with_name(f"{self.counts.name}.{self.dumps}")
        (line,) = (x for x in dump.read_text().splitlines() if x.startswith("totals:"))
        torch._C._valgrind_toggle()
        return int(line.split()[1])


class Count(Callback):
    """First of the callbacks: decides what a step is and counts its instructions."""

    def __init__(self, switched: Switched, counts: Path) -> None:
        self.switched = switched
        self.counts = counts
        self.step = 0
        self.found: dict[str, list[int]] = {OFF: [], FOURTH: []}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if self.step % EVERY_N_STEPS == 0:
            self.switched.switch(KINDS[self.step // EVERY_N_STEPS], pl_module)
        if self.step == WARM:
            self.tally = Tally(self.counts)
        if self.step >= WARM:
            self.tally()

    def finish(self, trainer: Any) -> None:
        """Called by :class:`Stop`, the last of the callbacks."""
        if self.step >= WARM:
            self.found[self.switched.kind].append(self.tally())
        self.step += 1


def whole_steps(model: str, edges: int, counts: Path) -> dict[str, Any]:
    """Of each step without the callback, and of each of the four with it.

    The first of the four has the term.
    """
    batch = batch_of(edges)
    ours = Switched(SCHEDULE, monitor=False)
    count = Count(ours, counts)
    # of the last kind one step is enough
    steps = (len(KINDS) - 1) * EVERY_N_STEPS + 1
    loader = torch.utils.data.DataLoader([batch] * steps, batch_size=None)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(
            [count, ours, Stop(count)], steps, devices=1, default_root_dir=folder
        )
        trainer.fit(training_module(model, "eager"), loader)
    return {
        "edges": AtomicDataDict.num_edges(batch),
        "without": count.found[OFF],
        "with": count.found[FOURTH],
    }


def term_alone(
    cases: Sequence[tuple[int, int]], counts: Path
) -> list[dict[str, int | list[int]]]:
    """Of an energy with the term less one without, forward and backward."""

    def step(with_term: bool) -> None:
        leaf.grad = None
        x = leaf * 1.0
        # the gradient of an energy is there too, as in a training
        energy = x.square().sum()
        if with_term:
            energy = energy + metric({"x": x, "total_energy": energy}, {})
        energy.backward()  # type: ignore[no-untyped-call]

    found: list[dict[str, int | list[int]]] = []
    tally: Tally | None = None
    for channels, edges in cases:
        metric = SampledCorrelation(blocks=scalar_blocks("x", channels, LAYERS))
        metric.checked_by_callback = metric.differentiated_with_energy = True
        # NequIP sets the default to float64
        leaf = torch.rand(edges, LAYERS * channels, dtype=torch.float32)
        leaf.requires_grad_()
        for with_term in (True, False):
            step(with_term)
        tally = tally or Tally(counts)
        both: list[int] = []
        for with_term in (True, False) * REPEATS:
            tally()
            step(with_term)
            both.append(tally())
        terms = [on - off for on, off in zip(both[::2], both[1::2], strict=True)]
        found.append({"channels": channels, "edges": edges, "term": terms})
    return found


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=Path, required=True)
    parser.add_argument("--model", help="whole steps of it")
    parser.add_argument("--edges", type=int)
    parser.add_argument("--term", nargs="+", default=[], metavar="CHANNELS,EDGES")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    set_global_state()
    torch.manual_seed(0)
    if args.model:
        print(json.dumps(whole_steps(args.model, args.edges, args.counts)))
    cases = [tuple(map(int, case.split(","))) for case in args.term]
    for found in term_alone([(c, e) for c, e in cases], args.counts):
        print(json.dumps(found))


if __name__ == "__main__":
    main()
