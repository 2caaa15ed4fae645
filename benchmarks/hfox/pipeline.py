"""One model of the benchmark, from training to its record.

Everything goes through what a user has: ``nequip-train``, ``nequip-compile`` and the
functions behind ``nequip-decorr md`` and ``inspect``. If interrupted, the same call
resumes at the stage that it was in.
"""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.io import read

from nequip_decorr.inspection.measure import inspect_file
from nequip_decorr.md.models import load_model
from nequip_decorr.md.protocol import Protocol
from nequip_decorr.md.results import RunResult, write_atomic
from nequip_decorr.md.running.run import run_stability
from nequip_decorr.md.statistics.drift import fit_drift
from nequip_decorr.md.statistics.fidelity import add_fidelity

from ..common import BIN, run
from .probe import barriers

HERE = Path(__file__).resolve().parent
TIMESTEP_FS = 2.0

#: What is measured out of distribution: name of the data and T / K.
CONDITIONS = {"hfo1.56_1200K": 1200.0, "hfo1.12_1200K": 1200.0, "hfo2_2400K": 2400.0}
TEST_SETS = ("hfo2_test", *CONDITIONS)
MACHINE = ("processor", "cores", "python", "versions", "device")
PAIR_ERRORS = ("error", "standard_error", "reference_error")


@dataclass(frozen=True)
class Scale:
    """How much is measured of each model.

    Attributes:
        structures: how many start structures of each composition.
        horizon_ps: of MD out of distribution.
        drift_ps: of NVE in distribution, four structures at 300 K.
    """

    structures: int
    horizon_ps: float
    drift_ps: float

    def start(self, data: Path, condition: str) -> list[Atoms]:
        """Start structures."""
        found: list[Atoms] = read(
            data / f"{condition}_start.extxyz", f":{self.structures}"
        )
        return found


def train(folder: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Train and test; returns errors in and out of distribution and the CPU time."""
    done = folder / "trained.json"
    if not done.exists():
        # Lightning would write best-v1.ckpt beside the best of a training that stopped
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [BIN / "nequip-train", "-cp", HERE, "-cn", "train"]
        seconds = run(
            [*command, f"hydra.run.dir={folder}", *overrides], folder / "output.log"
        )
        found = {"cpu_s": seconds, "errors": errors_of(folder / "metrics.csv")}
        write_atomic(done, json.dumps(found))
    return dict(json.loads(done.read_text()))


def errors_of(metrics: Path) -> dict[str, dict[str, float]]:
    """Errors of the best model, from the log of its training."""
    with metrics.open() as handle:
        last = [r for r in csv.DictReader(handle) if r["test0_epoch/forces_rmse"]][-1]
    return {
        name: {
            "forces_rmse": float(last[f"test{i}_epoch/forces_rmse"]),
            "per_atom_energy_rmse": float(last[f"test{i}_epoch/per_atom_energy_rmse"]),
        }
        for i, name in enumerate(TEST_SETS)
    }


def compile_model(folder: Path, device: str) -> Path:
    """The model as nequip-compile makes it for MD."""
    target = "batch" if device == "cuda" else "ase"
    compiled = folder / f"{target}.nequip.pt2"
    if not compiled.exists():
        partial = folder / f"partial_{target}.nequip.pt2"
        options = ["--device", device, "--mode", "aotinductor", "--target", target]
        command = [BIN / "nequip-compile", folder / "best.ckpt", partial, *options]
        # models of one graph overwrite each other's files in a cache that they share
        own = str(folder / "inductor")
        run(command, folder / "output.log", TORCHINDUCTOR_CACHE_DIR=own)
        partial.replace(compiled)
    return compiled


def stability(
    model: Path, folder: Path, data: Path, scale: Scale, device: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """For each condition a :func:`summary` of its MD; and the machine."""
    found, machine = {}, {}
    for name, temperature_K in CONDITIONS.items():
        protocol = Protocol(
            temperatures_K=(temperature_K,),
            timestep_fs=TIMESTEP_FS,
            horizon_ps=scale.horizon_ps,
            replicas=1,
            frame_interval_steps=10,
        )
        out = folder / f"md-{name}"
        result = run_stability(
            model,
            scale.start(data, name),
            protocol,
            output=out,
            device=device,
            engine="torchsim" if device == "cuda" else "ase",
        )
        result = add_fidelity(result, out / "result.json", data / f"{name}.extxyz")
        found[name] = summary(result)
        machine = {k: v for k, v in result.machine.items() if k in MACHINE}
    return found, machine


def summary(result: RunResult) -> dict[str, Any]:
    """What the record keeps of a run: one entry a replica, and the errors of g(r)."""
    replicas = result.replicas
    distributions = (result.fidelity or {}).get("distributions", [])
    return {
        "horizon_ps": result.horizon_ps,
        "structure": [r.structure for r in replicas],
        "time_ps": [round(r.time_ps, 4) for r in replicas],
        "cause": [r.failure.cause if r.failure else None for r in replicas],
        "rdf": {
            pair: {key: values[key] for key in PAIR_ERRORS}
            for distribution in distributions
            for pair, values in distribution["pairs"].items()
        },
    }


def drift(model: Path, folder: Path, data: Path, scale: Scale) -> list[float | None]:
    """NVE drift (meV/atom/ps) of four test structures at 300 K; None: it failed."""
    structures = read(data / "hfo2_test.extxyz", ":")[:20:5]
    protocol = Protocol(
        ensemble="nve",
        temperatures_K=(300.0,),
        timestep_fs=TIMESTEP_FS,
        horizon_ps=scale.drift_ps,
        replicas=1,
        record_interval_steps=5,
        frame_interval_steps=None,
    )
    result = run_stability(model, structures, protocol, output=folder / "nve")
    return [
        None
        if r.failed
        else fit_drift(
            r.trace.time_ps,
            r.trace.total_energy_eV,
            r.trace.potential_energy_eV,
            r.n_atoms,
        ).slope_meV_per_atom_ps
        for r in result.replicas
    ]


def correlation(checkpoint: Path, data: Path) -> list[dict[str, float]]:
    """Correlation of each layer's channels over the validation data."""
    layers = inspect_file(checkpoint, data / "hfo2_val.extxyz").layers
    names = ("mean_abs", "mean_square_debiased", "effective_rank", "channels")
    return [{name: float(getattr(layer, name)) for name in names} for layer in layers]


def measure(
    overrides: tuple[str, ...], folder: Path, data: Path, scale: Scale
) -> dict[str, Any]:
    """All stages for one model; returns the content of its record."""
    trained = train(folder, (f"data_dir={data}", *overrides))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = compile_model(folder, device)
    checkpoint = folder / "best.ckpt"
    simulated, machine = stability(model, folder, data, scale, device)
    handle = load_model(model if device == "cpu" else checkpoint)
    starts = {name: scale.start(data, name) for name in CONDITIONS}
    return {
        **trained,
        "scale": asdict(scale),
        "correlation": correlation(checkpoint, data),
        "md": simulated,
        "nve_drift": drift(
            model if device == "cpu" else checkpoint, folder, data, scale
        ),
        "barriers": {
            name: barriers(structures[:8], handle.loaded)
            for name, structures in starts.items()
        },
        "machine": machine,
    }
