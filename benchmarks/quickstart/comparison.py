"""``make quickstart``: Allegro on HfO2 with and without the flag, side by side.

Trains both models (each in a process of its own), compares their errors and the
correlation of their features, runs molecular dynamics with both on a composition that
neither has seen, and says where everything is. About four minutes of training and
setting up, and two of MD, on two cores.

One seed of one small model shows what the software does, not whether the method helps.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nequip_decorr.inspection.figure import correlation_figure
from nequip_decorr.inspection.measure import inspect_file
from nequip_decorr.inspection.result import Inspection
from nequip_decorr.plotting import save_figure

from ..common import BIN, ROOT, finish, run, start

CONFIGS = ROOT / "configs"
FLAGS = {"with": ("+nequip_decorr=constant",), "without": ()}
ERRORS = {
    "300-600 K: forces, RMSE (eV/A)": "test0_epoch/forces_rmse",
    "300-600 K: energy, RMSE (eV/atom)": "test0_epoch/per_atom_energy_rmse",
    "1200 K: forces, RMSE (eV/A)": "test1_epoch/forces_rmse",
    "1200 K: energy, RMSE (eV/atom)": "test1_epoch/per_atom_energy_rmse",
}

console = Console()


def last_epoch(folder: Path) -> int:
    """Last epoch in the CSV log of a training, 0 when there is none yet."""
    try:
        with (folder / "metrics.csv").open() as handle:
            return max((int(row["epoch"]) for row in csv.DictReader(handle)), default=0)
    except (FileNotFoundError, ValueError, KeyError):
        return 0  # not written yet, or being written


def train(out: Path, epochs: int) -> dict[str, Path]:
    """Train both models at once; returns their folders."""
    running = {}
    for name, flags in FLAGS.items():
        folder = out / name
        folder.mkdir(parents=True)
        command = [BIN / "nequip-train", "-cp", CONFIGS, "-cn", "quickstart", *flags]
        overrides = [f"hydra.run.dir={folder}", f"trainer.max_epochs={epochs}"]
        shown = " ".join(["$ nequip-train -cp $PWD/configs -cn quickstart", *flags])
        console.print(shown)
        log = folder / "output.log"
        running[name] = (folder, log, start([*command, *overrides], log))
    columns = (TextColumn("{task.description:>8}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        tasks = {name: progress.add_task(name, total=epochs) for name in running}
        while any(process.poll() is None for _, _, process in running.values()):
            for name, (folder, _, _) in running.items():
                progress.update(tasks[name], completed=last_epoch(folder))
            time.sleep(1)
        for name, (_, log, process) in running.items():
            finish(process, log)
            progress.update(tasks[name], completed=epochs)
    return {name: folder for name, (folder, _, _) in running.items()}


def errors_of(folder: Path) -> dict[str, float]:
    """Errors of the best model on the test sets."""
    with (folder / "metrics.csv").open() as handle:
        rows = [row for row in csv.DictReader(handle) if row["test0_epoch/forces_rmse"]]
    return {label: float(rows[-1][column]) for label, column in ERRORS.items()}


def print_table(
    errors: dict[str, dict[str, float]], inspections: dict[str, Inspection]
) -> None:
    """Errors and correlations side by side."""
    table = Table(title="Allegro on HfO2, one seed")
    table.add_column("")
    for name in FLAGS:
        table.add_column(f"{name} the flag", justify="right")
    for label in ERRORS:
        table.add_row(label, *(f"{errors[name][label]:.4f}" for name in FLAGS))
    table.add_section()
    for index in range(len(inspections["with"].layers)):
        layers = [inspections[name].layers[index] for name in FLAGS]
        label = f"layer {layers[0].name}"
        table.add_row(f"{label}: mean |rho|", *(f"{x.mean_abs:.3f}" for x in layers))
        table.add_row(
            f"{label}: effective rank of {layers[0].channels}",
            *(f"{x.effective_rank:.1f}" for x in layers),
        )
    console.print(table)


def run_md(folders: dict[str, Path], horizon_ps: float, replicas: int) -> list[Path]:
    """MD of both models at once; returns their result folders."""
    running = []
    for name, folder in folders.items():
        out = folder.parent / f"md-{name}-flag"
        command = [
            *(BIN / "nequip-decorr", "md", folder / "best.ckpt"),
            CONFIGS / "data" / "hfo1.1_start.extxyz",
            *("--temperature", "1200", "--timestep-fs", "2"),
            *("--horizon-ps", str(horizon_ps), "--replicas", str(replicas)),
            *("--out", out),
        ]
        shown = " ".join(
            str(part).replace(f"{ROOT}/", "")
            for part in ["nequip-decorr", *command[1:]]
        )
        console.print(f"$ {shown}")
        log = folder / "md.log"
        running.append((name, out, log, start(command, log)))
    with console.status("molecular dynamics of HfO1.1 at 1200 K ..."):
        for _, _, log, process in running:
            finish(process, log)
    return [out for _, out, _, _ in running]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run everything; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "quickstart")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--horizon-ps", type=float, default=1.0)
    parser.add_argument("--replicas", type=int, default=2)
    args = parser.parse_args(arguments)
    out = args.out.resolve() / time.strftime("%Y-%m-%d_%H-%M-%S")

    folders = train(out, args.epochs)
    inspections = {
        name: inspect_file(folder / "best.ckpt", CONFIGS / "data" / "hfo2_val.extxyz")
        for name, folder in folders.items()
    }
    print_table({name: errors_of(f) for name, f in folders.items()}, inspections)
    picture = out / "correlation.png"
    labelled = {f"{name} the flag": value for name, value in inspections.items()}
    save_figure(correlation_figure(labelled), picture)
    console.print(f"Correlations as a picture: {picture}\n")

    results = run_md(folders, args.horizon_ps, args.replicas)
    curves = out / "survival.png"
    compare = [BIN / "nequip-decorr", "compare", *results, "--plot", curves]
    log = out / "compare.log"
    run(compare, log)
    print(log.read_text())
    for name, result in zip(folders, results, strict=True):
        console.print(f"Report of the model {name} the flag: {result / 'report.html'}")
    console.print(f"Survival as a picture: {curves}")
