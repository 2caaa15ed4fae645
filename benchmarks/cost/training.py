"""What the decorrelation term costs a training.

Trains real models with Lightning and the real callback, in one process, and turns the
term on and off from step to step in random order, so that all kinds of step see the
same machine. Reports, for each case, the median of the ratios of neighbouring steps
(with / without) with an interval, the peak of memory, and the number of instructions,
which does not depend on what else the machine does.

A step is what Lightning does for one batch: hooks, forward, loss, backward, optimizer.
Each section replaces its own part of ``results/training.md``, so that one can be run
alone.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nequip.data import AtomicDataDict
from nequip.utils.global_state import set_global_state
from rich.console import Console

from nequip_decorr import EdgeCorrelation
from nequip_decorr.errors import UserError
from nequip_decorr.training import nequip_internals
from nequip_decorr.training.features import find_features, tap

from ..common import json_lines, machine, markdown
from .instructions import REPEATS
from .instructions import run as count
from .memory import peaks
from .models import (
    EVERY_N_STEPS,
    FOURTH,
    MODELS,
    MONITOR,
    OFF,
    ON,
    SCHEDULE,
    Clock,
    Stop,
    Switched,
    batch_of,
    ratio,
    trainer_for,
    training_module,
)

RESULT = Path(__file__).parent / "results" / "training.md"
#: Where a short measurement goes, which is no substitute for the long one.
QUICK_RESULT = Path("outputs") / "cost" / "training.md"
TITLE = "# Cost of the decorrelation term\n"
console = Console()

Row = list[str]


def train(
    name: str, mode: str, edges: int, seconds: float, options: dict[str, Any]
) -> Row:
    """Train one model on one batch again and again; a row of the table."""
    batch = batch_of(edges)
    ours = Switched(SCHEDULE, monitor=False, **options)
    clock = Clock(ours, (ON, FOURTH, MONITOR, OFF), seconds)
    steps = 12_000
    loader = torch.utils.data.DataLoader([batch] * steps, batch_size=None)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(
            [clock, ours, Stop(clock)], steps, devices=1, default_root_dir=folder
        )
        trainer.fit(training_module(name, mode), loader)
    times = clock.times
    return [
        name,
        mode,
        str(AtomicDataDict.num_edges(batch)),
        f"{1e3 * np.median(times[OFF]):.1f}",
        str(len(times[OFF])),
        *(ratio(times[kind], times[OFF]) for kind in (FOURTH, ON, MONITOR)),
    ]


def validate(name: str, edges: int, seconds: float) -> Row:
    """Validation steps with and without the monitor, in turns; a row of the table."""
    module = training_module(name, "eager")
    model = nequip_internals.sole_model(module)
    features = find_features(model)
    handles = tap(model, features)
    metric = EdgeCorrelation(blocks=features.blocks)
    metric.checked_by_callback = True
    (manager,) = module.val_metrics
    nequip_internals.add_metric(manager, "edge_correlation", metric)
    entry = manager.entries["edge_correlation"]
    batch = batch_of(edges)
    times: dict[bool, list[float]] = {True: [], False: []}
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(times[True]) < 12:
        for on in (True, False) if len(times[True]) % 2 else (False, True):
            manager.entries.pop("edge_correlation", None)
            if on:
                manager.entries["edge_correlation"] = entry
            start = time.perf_counter()
            module.validation_step(dict(batch), 0)
            times[on].append(time.perf_counter() - start)
    for handle in handles:
        handle.remove()
    return [
        name,
        str(AtomicDataDict.num_edges(batch)),
        f"{1e3 * np.median(times[False]):.1f}",
        ratio(times[True][2:], times[False][2:]),
    ]


def shown(row: Row) -> Row:
    """The same row, printed: a section can take an hour."""
    console.print(" | ".join(row), highlight=False)
    return row


def chosen(args: argparse.Namespace) -> list[str]:
    """Models whose name was asked for."""
    return [name for name in MODELS if args.model.lower() in name.lower()]


def steps_section(args: argparse.Namespace) -> list[str]:
    """Training and validation steps."""
    rows = []
    for mode in args.modes:
        for name in chosen(args):
            for edges in args.edges if mode == "eager" else args.compiled_edges:
                if edges > args.large_edges and "large" in name:
                    continue
                rows.append(shown(train(name, mode, edges, args.seconds, args.options)))
                torch._dynamo.reset()
                gc.collect()
    validated = [
        shown(validate(name, args.compiled_edges[0], args.seconds))
        for name in chosen(args)
    ]
    kinds = ["every fourth step", "each step", "monitor only"]
    return [
        "Training steps; ratios to those without the extension: with the term in",
        "every fourth step (`+nequip_decorr=constant`), in each step (`cosine`,",
        "`target`), and with `monitor`. Medians over rounds of",
        f"{EVERY_N_STEPS} steps of each in turn [95 % interval]. "
        f"TF32 {'on' if args.tf32 else 'off'}. The hooks that read a GNN's features",
        "are present in all of them.",
        "",
        *markdown(["model", "mode", "edges", "step (ms)", "rounds", *kinds], rows),
        "",
        "Validation steps (all edges and channels, once an epoch), with the monitor:",
        "",
        *markdown(["model", "edges", "step (ms)", "with the monitor"], validated),
    ]


def memory_section(args: argparse.Namespace) -> list[str]:
    """Peak memory of steps."""
    names = chosen(args)
    cases = [("eager", name, e) for name in names for e in (*args.edges, 64_000)]
    cases += [("compile", name, e) for name in names for e in args.compiled_edges]
    rows = []
    for mode, name, edges in cases:
        large = "large" in name and edges > args.large_edges
        if mode not in args.modes or large or (args.quick and edges > 4000):
            continue
        batch = batch_of(edges)
        with_, without = peaks(name, mode, batch, args.options)
        row = [name, mode, str(AtomicDataDict.num_edges(batch))]
        row += [f"{without:.1f}", f"{with_:.1f}", f"{with_ / without:.4f}"]
        rows.append(shown(row))
        torch._dynamo.reset()
        gc.collect()
    return [
        "Peak memory of the tensors of a step, in MiB (on a CPU without weights and",
        "optimizer: what is allocated from the beginning of the step).",
        "",
        *markdown(
            ["model", "mode", "edges", "without", "with the term", "ratio"], rows
        ),
    ]


def instructions_section(args: argparse.Namespace) -> list[str]:
    """The term alone, and whole steps."""
    cases = [(c, 4000) for c in (32, 64, 256, 2048)]
    cases += [(32, edges) for edges in (16_000, 1_000_000)]
    if args.quick:
        cases = cases[:2]
    alone = []
    for found in count("--term", *(f"{c},{e}" for c, e in cases)):
        millions = f"{np.mean(found['term']) / 1e6:.2f}"
        alone.append(shown([str(found["channels"]), str(found["edges"]), millions]))
    # where the term counts most; the large model would take an hour
    small = [name for name in MODELS if "large" not in name]
    whole = []
    for name in small[:1] if args.quick else small:
        (found,) = count("--model", name, "--edges", "1000")
        whole.append(shown([name, str(found["edges"]), *whole_step(found)]))
    return [
        "Counted by callgrind, which has no AVX-512. The term alone, forward and",
        "backward, 3 layers (an energy with the term less one without; mean of",
        f"{REPEATS} draws).",
        "",
        *markdown(["channels", "edges", "instructions (1e6)"], alone),
        "",
        "Whole steps, Lightning's part included, eager; `constant` is the mean of a",
        "step with the term and three without.",
        "",
        *markdown(
            [
                *("model", "edges", "step (1e6)", "with the term (1e6)"),
                *("`constant`", "each step", "monitor only"),
            ],
            whole,
        ),
    ]


def whole_step(found: dict[str, Any]) -> Row:
    """Instructions (1e6) of a step without and with the term, and ratios to without.

    Of four steps with the callback, the first has the term.
    """
    without = float(np.median(found["without"]))
    with_term, *others = found["with"]
    millions = [f"{value / 1e6:.1f}" for value in (without, with_term)]
    mean, monitor = np.mean(found["with"]), np.median(others)
    return [*millions, *(f"{v / without:.4f}" for v in (mean, with_term, monitor))]


def ranks_section(args: argparse.Namespace) -> list[str]:
    """Data-parallel training by Lightning's DDP."""
    name = next(name for name in MODELS if "tutorial" in name)
    rows = []
    for ranks in (2,) if args.quick else (2, 4):
        for edges in (1000,) if args.quick else (1000, 4000):
            options = {"model": name, "ranks": ranks, "edges": edges, "pairs": 40}
            arguments = [f"--{key}={value}" for key, value in options.items()]
            *_, found = json_lines(
                [sys.executable, "-m", "benchmarks.cost.ranks", *arguments]
            )
            low, mid, high = 1e3 * np.quantile(found["collective"], [0.05, 0.5, 0.95])
            fits = ranks <= (os.cpu_count() or 1)
            row = [str(ranks), str(found["edges"])]
            row += [ratio(found["on"], found["off"]) if fits else ""]
            row += [f"{mid:.3f} [{low:.3f}, {high:.3f}]", str(found["bytes"])]
            rows.append(shown(row))
    return [
        "Data-parallel (Lightning's `ddp`, gloo), the same batch on every rank; the",
        "collective alone, after a barrier, once in each step. With more ranks than",
        f"cores ({os.cpu_count()}) the ratio of steps is meaningless, and left out.",
        "",
        *markdown(
            [
                *("ranks", "edges of each", "with the term"),
                *("collective (ms) [5, 95 %]", "bytes"),
            ],
            rows,
        ),
    ]


SECTIONS: dict[str, tuple[str, Callable[[argparse.Namespace], list[str]]]] = {
    "steps": ("Steps", steps_section),
    "memory": ("Memory", memory_section),
    "instructions": ("Instructions", instructions_section),
    "ranks": ("Ranks", ranks_section),
}


def write_section(path: Path, title: str, lines: list[str]) -> None:
    """Replace one section of the result file, or add it at its end."""
    text = path.read_text() if path.exists() else TITLE
    section = "\n".join([f"## {title}", "", f"{machine()}.", "", *lines, ""])
    old = re.compile(rf"^## {title}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if old.search(text):
        text = old.sub(lambda _: section + "\n", text)
    else:
        text += "\n" + section
    path.write_text(text.rstrip() + "\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of ``python -m benchmarks.cost training``."""
    add = parser.add_argument
    add("--sections", nargs="+", default=list(SECTIONS), choices=list(SECTIONS))
    add("--model", default="", help="only models with this in the name")
    add("--modes", nargs="+", default=["eager", "compile"])
    add("--edges", type=int, nargs="+", default=[1000, 4000, 16_000])
    add("--compiled-edges", type=int, nargs="+", default=[4000])
    add("--large-edges", type=int, default=4000, help="at most, for the large model")
    add("--seconds", type=float, default=15.0, help="for each case")
    add("--max-edges", type=int, help="edges drawn in a step, if not the default")
    add("--tf32", action="store_true")
    add("--quick", action="store_true", help="a few minutes, eager")
    add(
        "--out",
        type=Path,
        help=f"(default: {RESULT.name} of the results; with --quick {QUICK_RESULT})",
    )


def measure(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    if args.quick:
        args.modes, args.edges, args.seconds = ["eager"], [4000], 8.0
    out = args.out or (QUICK_RESULT if args.quick else RESULT)
    out.parent.mkdir(parents=True, exist_ok=True)
    if "instructions" in args.sections and shutil.which("valgrind") is None:
        raise UserError(
            "expected valgrind, which counts instructions, got none; install it, or "
            "leave this out: --sections steps memory ranks"
        )
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    set_global_state(allow_tf32=args.tf32)
    args.options = (
        {} if args.max_edges is None else {"sample": {"edges": args.max_edges}}
    )
    for key in args.sections:
        title, section = SECTIONS[key]
        write_section(out, title, section(args))
    console.print(f"written: {out}")
