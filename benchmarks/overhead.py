"""Cost of the decorrelation term: ``make overhead``.

Trains real models with Lightning and the real callback, in one process, and turns the
term on and off from step to step in random order, so that both kinds of step see the
same machine. Reports, for each case, the median of the ratios of neighbouring steps
(with / without) with a bootstrap interval, the ratio of peak memory, and for the term
alone the number of instructions, which does not depend on what else the machine does.

A step is what Lightning does for one batch: hooks, forward, loss, backward, optimizer.
"""

from __future__ import annotations

import argparse
import gc
import logging
import platform
import random
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from ase import Atoms
from ase.io import read
from lightning.pytorch.callbacks import Callback
from nequip.data import AtomicDataDict
from nequip.data.ase import from_ase
from nequip.data.transforms import (
    ChemicalSpeciesToAtomTypeMapper,
    NeighborListTransform,
)
from nequip.train import NequIPLightningModule
from nequip.utils.global_state import set_global_state
from rich.console import Console
from rich.table import Table

from nequip_decorr import EdgeDecorrelation, __version__, _host

HERE = Path(__file__).parent
FRAMES = HERE.parent / "configs" / "data" / "hfo2_train.extxyz"
TYPES = ["Hf", "O"]
COEFFICIENT = 0.3

console = Console()


def allegro(
    scalars: int, tensors: int, l_max: int, r_max: float = 4.0
) -> dict[str, Any]:
    """An Allegro model with the other settings of its tutorial."""
    return {
        "_target_": "allegro.model.AllegroModel",
        "radial_chemical_embed": {
            "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
            "num_bessels": 8,
        },
        "scalar_embed_mlp_hidden_layers_width": scalars,
        "l_max": l_max,
        "num_layers": 2,
        "num_scalar_features": scalars,
        "num_tensor_features": tensors,
        "allegro_mlp_hidden_layers_width": scalars,
        "readout_mlp_hidden_layers_width": scalars,
        "r_max": r_max,
    }


def gnn(features: int, l_max: int, layers: int, r_max: float = 4.0) -> dict[str, Any]:
    """A NequIP GNN."""
    return {
        "_target_": "nequip.model.NequIPGNNModel",
        "num_layers": layers,
        "l_max": l_max,
        "num_features": features,
        "radial_mlp_depth": 2,
        "radial_mlp_width": 64,
        "r_max": r_max,
    }


MODELS = {
    "Allegro, small (32 scalars)": allegro(32, 8, 1),
    "Allegro, tutorial (64 scalars)": allegro(64, 32, 1),
    "Allegro, large (256 scalars, l_max 2)": allegro(256, 64, 2),
    "NequIP GNN, small (16 features)": gnn(16, 1, 2),
    "NequIP GNN, S (32 features, 4 layers)": gnn(32, 1, 4),
}


@dataclass(frozen=True)
class Row:
    """One measured case: ratios are with over without."""

    model: str
    mode: str
    edges: int
    step_ms: float
    ratio: float
    low: float
    high: float
    memory_ratio: float


def batch_of(edges: int, r_max: float) -> AtomicDataDict.Type:
    """A batch of HfO2 frames with at least this many edges."""
    transforms = (
        ChemicalSpeciesToAtomTypeMapper(model_type_names=TYPES),
        NeighborListTransform(r_max=r_max),
    )
    graphs: list[AtomicDataDict.Type] = []
    frames: list[Atoms] = read(FRAMES, ":")
    count = 0
    while count < edges or len(graphs) < 2:
        graph = from_ase(frames[len(graphs) % len(frames)])
        for transform in transforms:
            graph = transform(graph)
        graphs.append(graph)
        count += AtomicDataDict.num_edges(graph)
    return AtomicDataDict.batched_from_list(graphs)


class Switched(EdgeDecorrelation):
    """The callback, with hooks that do nothing in the steps without it."""

    on = True

    def on_train_batch_start(self, *args: Any) -> None:
        if self.on:
            super().on_train_batch_start(*args)

    def on_before_backward(self, *args: Any) -> None:
        if self.on:
            super().on_before_backward(*args)

    def on_train_batch_end(self, *args: Any) -> None:
        if self.on:
            super().on_train_batch_end(*args)


class Clock(Callback):
    """First of the callbacks: decides what the next step is and times it."""

    def __init__(self, switched: Switched, warm: int, seed: int = 0) -> None:
        self.switched = switched
        self.warm = warm
        self.random = random.Random(seed)
        self.times: dict[bool, list[float]] = {True: [], False: []}
        self.memory: dict[bool, list[float]] = {True: [], False: []}
        self.order: list[bool] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if not self.order:
            self.order = [True, False]
            self.random.shuffle(self.order)
        self.switched.on = self.order.pop()
        # outside the timed part: a training does not switch from step to step
        coeff = COEFFICIENT if self.switched.on else 0.0
        _host.set_coefficient(pl_module.loss, self.switched.name, coeff)
        reset_peak()
        self.start = time.perf_counter()

    def finish(self, trainer: Any) -> None:
        """Called by :class:`Stop`, the last of the callbacks."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        elapsed = time.perf_counter() - self.start
        if trainer.global_step > 2 * self.warm:
            self.times[self.switched.on].append(elapsed)
            self.memory[self.switched.on].append(peak())


class Stop(Callback):
    """Last of the callbacks: stops the clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.clock.finish(trainer)


def reset_peak() -> None:
    """Forget the peak of memory so far."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Peak of memory since the reset, in MiB."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / 2**20)
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return float(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure(
    name: str, mode: str, edges: int, pairs: int, options: dict[str, Any]
) -> Row:
    """Train one model on one batch again and again, with and without the term."""
    model = {
        **MODELS[name],
        "compile_mode": mode,
        "seed": 1,
        "model_dtype": "float32",
        "type_names": TYPES,
        "avg_num_neighbors": 30.0,
    }
    batch = batch_of(edges, model["r_max"])
    module = NequIPLightningModule(
        model=model,
        num_datasets={"train": 1, "val": 0, "test": 0, "predict": 0},
        optimizer={"_target_": "torch.optim.Adam", "lr": 1e-4},
        loss={"_target_": "nequip.train.EnergyForceLoss"},
        info_dict={},
    )
    warm = max(3, pairs // 5)
    ours = Switched("constant", COEFFICIENT, monitor=False, **options)
    clock = Clock(ours, warm)
    steps = 2 * (pairs + warm)
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=1,
        max_steps=steps,
        callbacks=[clock, ours, Stop(clock)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
    )
    loader = torch.utils.data.DataLoader([batch] * steps, batch_size=None)
    trainer.fit(module, loader)
    return summarise(name, mode, AtomicDataDict.num_edges(batch), clock)


def summarise(name: str, mode: str, edges: int, clock: Clock) -> Row:
    """Median of the ratios of neighbours, with a 95 % bootstrap interval."""
    with_, without = (np.array(clock.times[on]) for on in (True, False))
    count = min(len(with_), len(without))
    ratios = with_[:count] / without[:count]
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (2000, count)), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    memory = np.median(clock.memory[True]) / np.median(clock.memory[False])
    step_ms = 1e3 * float(np.median(without))
    ratio = float(np.median(ratios))
    return Row(name, mode, edges, step_ms, ratio, low, high, float(memory))


def instructions(channels: int, layers: int, edges: int, **options: Any) -> int:
    """Instructions of the term alone, forward and backward, by callgrind."""
    from torch.utils.benchmark import Timer

    setup = (
        "import torch\n"
        "from nequip_decorr import EdgeCorrelation\n"
        f"metric = EdgeCorrelation(layer_dim={channels}, **{options!r})\n"
        "metric.dist_sync_on_step = True\n"
        "metric.checked_by_callback = True\n"
        f"x = torch.randn({edges}, {channels * layers}, requires_grad=True)\n"
        "metric({'edge_features': x}, {}).backward()"
    )
    statement = "metric({'edge_features': x}, {}).backward()"
    stats: Any = Timer(statement, setup=setup).collect_callgrind(number=10)
    return int(stats.counts() // 10)


def machine() -> str:
    """Machine and versions, one line."""
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{platform.processor() or platform.machine()} CPU, "
        f"{torch.get_num_threads()} thread(s)"
    )
    return (
        f"{device}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"lightning {lightning.__version__}, nequip-decorr {__version__}"
    )


def markdown(rows: list[Row], counts: dict[str, int]) -> str:
    """The result file."""
    lines = [
        "# Cost of the decorrelation term",
        "",
        f"{machine()}. Made by `make overhead` on {time.strftime('%Y-%m-%d')}.",
        "Ratios: median over interleaved pairs of training steps, with / without the",
        "term, with a 95 % bootstrap interval.",
        "",
        "| model | mode | edges | step (ms) | time ratio [95 %] | memory ratio |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r.model} | {r.mode} | {r.edges} | {r.step_ms:.1f} "
            f"| {r.ratio:.4f} [{r.low:.4f}, {r.high:.4f}] | {r.memory_ratio:.4f} |"
            for r in rows
        ),
        "",
        "Instructions of the term alone, forward and backward (callgrind):",
        "",
        "| case | instructions |",
        "|---|---|",
        *(f"| {case} | {count:,} |" for case, count in counts.items()),
        "",
    ]
    return "\n".join(lines)


def cases(args: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Models, modes and numbers of edges to measure."""
    for name in MODELS:
        if args.model.lower() in name.lower():
            for mode in args.modes:
                for edges in args.edges:
                    yield name, mode, edges


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="", help="only models with this in the name")
    parser.add_argument("--modes", nargs="+", default=["eager", "compile"])
    parser.add_argument("--edges", type=int, nargs="+", default=[1000, 4000, 20000])
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--max-edges", type=int, help="override the default row cap")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--no-callgrind", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "overhead.md")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    set_global_state(allow_tf32=args.tf32)
    options = {} if args.max_edges is None else {"max_edges": args.max_edges}

    rows = []
    table = Table(title=machine())
    for column in ("model", "mode", "edges", "step ms", "time ratio", "memory ratio"):
        table.add_column(column)
    for name, mode, edges in cases(args):
        row = measure(name, mode, edges, args.pairs, options)
        rows.append(row)
        table.add_row(
            row.model,
            row.mode,
            str(row.edges),
            f"{row.step_ms:.1f}",
            f"{row.ratio:.4f} [{row.low:.4f}, {row.high:.4f}]",
            f"{row.memory_ratio:.4f}",
        )
        gc.collect()
        torch._dynamo.reset()
        console.print(f"{name}, {mode}, {row.edges} edges: {row.ratio:.4f}")
    console.print(table)
    counts = {}
    if not args.no_callgrind:
        for channels in (32, 64, 256):
            for edges in (4000, 20000):
                case = f"3 layers of {channels} channels, {edges} edges"
                counts[case] = instructions(channels, 3, edges, **options)
    args.out.write_text(markdown(rows, counts))
    console.print(f"written to {args.out}")


if __name__ == "__main__":
    main()
