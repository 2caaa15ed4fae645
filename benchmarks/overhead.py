"""Cost of the decorrelation term: ``make overhead``.

Trains real models with Lightning and the real callback, in one process, and turns the
term on and off from step to step in random order, so that all kinds of step see the
same machine. Reports, for each case, the median of the ratios of neighbouring steps
(with / without) with an interval; apart from that the peak of memory, and for the term
alone the number of instructions, which do not depend on what else the machine does.

A step is what Lightning does for one batch: hooks, forward, loss, backward, optimizer.
Each section replaces its own part of ``overhead.md``, so that one can be run alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from nequip.data import AtomicDataDict
from nequip.utils.global_state import set_global_state
from overhead_instructions import REPEATS
from overhead_instructions import run as count
from overhead_memory import peaks
from overhead_models import (
    EVERY_N_STEPS,
    FOURTH,
    MODELS,
    MONITOR,
    OFF,
    ON,
    Clock,
    Stop,
    Switched,
    batch_of,
    machine,
    ratio,
    trainer_for,
    training_module,
)
from rich.console import Console

from nequip_decorr import EdgeCorrelation
from nequip_decorr.training import nequip_internals
from nequip_decorr.training.features import find_features, tap

HERE = Path(__file__).parent
TITLE = "# Cost of the decorrelation term\n"
console = Console()


def train(name: str, mode: str, edges: int, args: argparse.Namespace) -> str:
    """Train one model on one batch again and again; a line of the table."""
    batch = batch_of(edges)
    ours = Switched({"kind": "constant", "coeff": 0.3}, monitor=False, **args.options)
    clock = Clock(ours, (ON, FOURTH, MONITOR, OFF), args.seconds)
    steps = 12_000
    loader = torch.utils.data.DataLoader([batch] * steps, batch_size=None)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(
            [clock, ours, Stop(clock)], steps, devices=1, default_root_dir=folder
        )
        trainer.fit(training_module(name, mode), loader)
    times = clock.times
    return (
        f"| {name} | {mode} | {AtomicDataDict.num_edges(batch)} "
        f"| {1e3 * np.median(times[OFF]):.1f} | {len(times[OFF])} "
        f"| {ratio(times[FOURTH], times[OFF])} | {ratio(times[ON], times[OFF])} "
        f"| {ratio(times[MONITOR], times[OFF])} |"
    )


def validate(name: str, edges: int, args: argparse.Namespace) -> str:
    """Validation steps with and without the monitor, in turns; a line of the table."""
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
    stop = time.perf_counter() + args.seconds
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
    return (
        f"| {name} | {AtomicDataDict.num_edges(batch)} "
        f"| {1e3 * np.median(times[False]):.1f} "
        f"| {ratio(times[True][2:], times[False][2:])} |"
    )


def steps_section(args: argparse.Namespace) -> list[str]:
    """Training and validation steps."""
    lines = [
        "Training steps; ratios over those without the extension: with the term in",
        "every fourth step (`+nequip_decorr=constant`), in each step (`cosine`,",
        "`target`), and with `monitor`. Medians over rounds of",
        f"{EVERY_N_STEPS} steps of each in turn [95 % interval]. "
        f"TF32 {'on' if args.tf32 else 'off'}. The hooks that take a GNN's features",
        "are there in all of them.",
        "",
        "| model | mode | edges | step (ms) | rounds | every fourth step | each step "
        "| monitor only |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = [name for name in MODELS if args.model.lower() in name.lower()]
    for mode in args.modes:
        for name in names:
            for edges in args.edges if mode == "eager" else args.compiled_edges:
                if edges > args.large_edges and "large" in name:
                    continue
                lines.append(train(name, mode, edges, args))
                console.print(lines[-1])
                torch._dynamo.reset()
                gc.collect()
    lines += [
        "",
        "Validation steps (all edges and channels, once an epoch), with the monitor:",
        "",
        "| model | edges | step (ms) | with the monitor |",
        "|---|---|---|---|",
    ]
    for name in names:
        lines.append(validate(name, args.compiled_edges[0], args))
        console.print(lines[-1])
    return lines


def memory_section(args: argparse.Namespace) -> list[str]:
    """Peak memory of steps."""
    lines = [
        "Peak memory of the tensors of a step, in MiB (on a CPU without weights and",
        "optimizer: what is allocated from the step's beginning on).",
        "",
        "| model | mode | edges | without | with the term | ratio |",
        "|---|---|---|---|---|---|",
    ]
    names = [name for name in MODELS if args.model.lower() in name.lower()]
    cases = [("eager", name, e) for name in names for e in (*args.edges, 64_000)]
    cases += [("compile", name, e) for name in names for e in args.compiled_edges]
    for mode, name, edges in cases:
        large = "large" in name and edges > args.large_edges
        if mode not in args.modes or large or (args.quick and edges > 4000):
            continue
        batch = batch_of(edges)
        with_, without = peaks(name, mode, batch, args.options)
        lines.append(
            f"| {name} | {mode} | {AtomicDataDict.num_edges(batch)} "
            f"| {without:.1f} | {with_:.1f} | {with_ / without:.4f} |"
        )
        console.print(lines[-1])
        torch._dynamo.reset()
        gc.collect()
    return lines


def instructions_section(args: argparse.Namespace) -> list[str]:
    """The term alone, and whole steps."""
    cases = [(c, 4000) for c in (32, 64, 256, 2048)]
    cases += [(32, edges) for edges in (16_000, 1_000_000)]
    if args.quick:
        cases = cases[:2]
    lines = [
        "Counted by callgrind, which has no AVX-512. The term alone, forward and",
        "backward, 3 layers (of an energy with the term less one without; mean of",
        f"{REPEATS} draws).",
        "",
        "| channels | edges | instructions (1e6) |",
        "|---|---|---|",
    ]
    for found in count("--term", *(f"{c},{e}" for c, e in cases)):
        millions = np.mean(found["term"]) / 1e6
        lines.append(f"| {found['channels']} | {found['edges']} | {millions:.2f} |")
        console.print(lines[-1])
    lines += [
        "",
        "Whole steps, Lightning's part included, eager; `constant` is the mean of a",
        "step with the term and three without.",
        "",
        "| model | edges | step (1e6) | with the term (1e6) | `constant` "
        "| each step | monitor only |",
        "|---|---|---|---|---|---|---|",
    ]
    # where the term counts most; the large model would take an hour
    small = [name for name in MODELS if "large" not in name]
    for name in small[:1] if args.quick else small:
        (found,) = count("--model", name, "--edges", "1000")
        without = np.median(found["without"])
        with_term, *others = found["with"]
        lines.append(
            f"| {name} | {found['edges']} | {without / 1e6:.1f} "
            f"| {with_term / 1e6:.1f} | {np.mean(found['with']) / without:.4f} "
            f"| {with_term / without:.4f} | {np.median(others) / without:.4f} |"
        )
        console.print(lines[-1])
    return lines


def ranks_section(args: argparse.Namespace) -> list[str]:
    """Data-parallel training by Lightning's DDP."""
    lines = [
        "Data-parallel (Lightning's `ddp`, gloo), the same batch on every rank; the",
        "collective alone, after a barrier, once in each step. With more ranks than",
        f"cores ({os.cpu_count()}) the ratio of steps says nothing, and is left out.",
        "",
        "| ranks | edges of each | with the term | collective (ms) [5, 95 %] | bytes |",
        "|---|---|---|---|---|",
    ]
    name = next(name for name in MODELS if "tutorial" in name)
    for ranks in (2,) if args.quick else (2, 4):
        for edges in (1000,) if args.quick else (1000, 4000):
            pairs = 12 if edges > 10_000 else 40
            done = subprocess.run(
                [
                    sys.executable,
                    str(HERE / "overhead_ranks.py"),
                    *("--model", name, "--ranks", str(ranks)),
                    *("--edges", str(edges), "--pairs", str(pairs)),
                ],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            found = json.loads(done.stdout.strip().splitlines()[-1])
            low, mid, high = 1e3 * np.quantile(found["collective"], [0.05, 0.5, 0.95])
            fits = ranks <= (os.cpu_count() or 1)
            steps = ratio(found["on"], found["off"]) if fits else ""
            lines.append(
                f"| {ranks} | {found['edges']} | {steps} "
                f"| {mid:.3f} [{low:.3f}, {high:.3f}] | {found['bytes']} |"
            )
            console.print(lines[-1])
    return lines


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


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS))
    parser.add_argument("--model", default="", help="only models with this in the name")
    parser.add_argument("--modes", nargs="+", default=["eager", "compile"])
    parser.add_argument("--edges", type=int, nargs="+", default=[1000, 4000, 16_000])
    parser.add_argument("--compiled-edges", type=int, nargs="+", default=[4000])
    parser.add_argument(
        "--large-edges", type=int, default=4000, help="of the large one"
    )
    parser.add_argument("--seconds", type=float, default=15.0, help="of each case")
    parser.add_argument("--max-edges", type=int, help="of steps, not the default")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a few minutes, eager")
    parser.add_argument("--out", type=Path, default=HERE / "overhead.md")
    args = parser.parse_args()
    if args.quick:
        args.modes, args.edges, args.seconds = ["eager"], [4000], 8.0
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    set_global_state(allow_tf32=args.tf32)
    args.options = (
        {} if args.max_edges is None else {"sample": {"edges": args.max_edges}}
    )
    for key in args.sections:
        title, section = SECTIONS[key]
        write_section(args.out, title, section(args))
    console.print(f"written to {args.out}")


if __name__ == "__main__":
    main()
