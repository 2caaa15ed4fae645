"""Models, batches, the switched callback and the clock of the overhead benchmark."""

from __future__ import annotations

import random
import time
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
from scipy import stats

from nequip_decorr import EdgeDecorrelation
from nequip_decorr.training import nequip_internals
from nequip_decorr.training.terms import LossTerm

from ..common import ROOT

FRAMES = ROOT / "configs" / "data" / "hfo2_train.extxyz"
TYPES = ["Hf", "O"]
COEFFICIENT = 0.3
R_MAX = 4.0

#: The schedule of all measurements.
SCHEDULE = {"kind": "constant", "coeff": COEFFICIENT}

#: What steps can be: without the callback, with it at coefficient 0, with the term in
#: each of them or, as `+nequip_decorr=constant` has it, in one of four.
OFF, MONITOR, ON, FOURTH = "off", "monitor", "on", "fourth"
EVERY_N_STEPS = 4


def allegro(scalars: int, tensors: int, l_max: int) -> dict[str, Any]:
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
    }


def gnn(features: int, l_max: int, layers: int) -> dict[str, Any]:
    """A NequIP GNN."""
    return {
        "_target_": "nequip.model.NequIPGNNModel",
        "num_layers": layers,
        "l_max": l_max,
        "num_features": features,
        "radial_mlp_depth": 2,
        "radial_mlp_width": 64,
    }


MODELS = {
    "Allegro, small (32 scalars)": allegro(32, 8, 1),
    "Allegro, tutorial (64 scalars)": allegro(64, 32, 1),
    "Allegro, large (256 scalars, l_max 2)": allegro(256, 64, 2),
    "NequIP GNN, small (16 features)": gnn(16, 1, 2),
    "NequIP GNN, S (32 features, 4 layers)": gnn(32, 1, 4),
}


def training_module(name: str, mode: str) -> NequIPLightningModule:
    """One of the models as NequIP trains it."""
    model = {
        **MODELS[name],
        "compile_mode": mode,
        "seed": 1,
        "model_dtype": "float32",
        "type_names": TYPES,
        "avg_num_neighbors": 30.0,
        "r_max": R_MAX,
    }
    return NequIPLightningModule(
        model=model,
        num_datasets={"train": 1, "val": 1, "test": 0, "predict": 0},
        optimizer={"_target_": "torch.optim.Adam", "lr": 1e-4},
        loss={"_target_": "nequip.train.EnergyForceLoss"},
        val_metrics={"_target_": "nequip.train.EnergyForceMetrics"},
        info_dict={},
    )


def batch_of(edges: int) -> AtomicDataDict.Type:
    """A batch of HfO2 frames with at least this many edges, two frames at the least."""
    transforms = (
        ChemicalSpeciesToAtomTypeMapper(model_type_names=TYPES),
        NeighborListTransform(r_max=R_MAX),
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
    """The callback, with hooks that can be switched off, or to monitoring only."""

    kind = ON
    in_loss: LossTerm | None = None

    def switch(self, kind: str, pl_module: Any) -> None:
        """Outside the timed part: a training does not switch from step to step."""
        self.in_loss = self.in_loss or self.term
        self.kind = kind
        if self.in_loss is not None:
            self.in_loss.every = EVERY_N_STEPS if kind == FOURTH else 1
        self.term = self.in_loss if kind in {ON, FOURTH} else None
        coeff = COEFFICIENT if kind in {ON, FOURTH} else 0.0
        nequip_internals.set_coefficient(pl_module.loss, self.name, coeff)

    def on_train_batch_start(self, *args: Any) -> None:
        if self.kind != OFF:
            super().on_train_batch_start(*args)

    def on_before_backward(self, *args: Any) -> None:
        if self.kind != OFF:
            super().on_before_backward(*args)

    def on_train_batch_end(self, *args: Any) -> None:
        if self.kind != OFF:
            super().on_train_batch_end(*args)


class Clock(Callback):
    """First of the callbacks: decides what the next four steps are and times them."""

    def __init__(
        self, switched: Switched, kinds: tuple[str, ...], seconds: float, warm: int = 2
    ) -> None:
        self.switched = switched
        self.kinds = kinds
        self.seconds = seconds
        self.warm = warm
        self.random = random.Random(0)
        self.block = EVERY_N_STEPS
        self.step = 0
        self.order: list[str] = []
        self.times: dict[str, list[float]] = {kind: [] for kind in kinds}
        self.until = float("inf")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if self.step % self.block:
            return
        if not self.order:
            self.order = list(self.kinds)
            self.random.shuffle(self.order)
        self.switched.switch(self.order.pop(), pl_module)
        synchronize()
        self.start = time.perf_counter()

    def finish(self, trainer: Any) -> None:
        """Called by :class:`Stop`, the last of the callbacks."""
        self.step += 1
        if self.step % self.block:
            return
        synchronize()
        now = time.perf_counter()
        warm = len(self.kinds) * self.warm * self.block
        if self.step == warm:
            self.until = now + self.seconds
        elif self.step > warm:
            self.times[self.switched.kind].append((now - self.start) / self.block)
        # whole rounds, eight at the least
        enough = len(self.times[OFF]) >= 8 and now > self.until
        if enough and not self.order and trainer.world_size == 1:
            trainer.should_stop = True


class Stop(Callback):
    """Last of the callbacks: stops what the first of them has started."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.clock.finish(trainer)


def trainer_for(callbacks: list[Callback], steps: int, **options: Any) -> Any:
    """A trainer of one epoch, with a logger as trainings have one."""
    return lightning.Trainer(
        accelerator="auto",
        max_steps=steps,
        limit_val_batches=0,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        **options,
    )


def synchronize() -> None:
    """Wait for the device, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(with_: list[float], without: list[float]) -> str:
    """Median of the ratios of neighbours, with its 95 % interval.

    Of order statistics: a bootstrap of so few would be too narrow.
    """
    count = min(len(with_), len(without))
    ratios = np.array(with_[:count]) / np.array(without[:count])
    median = float(np.median(ratios))
    low, high = stats.quantile_test(ratios, q=median, p=0.5).confidence_interval(0.95)
    return f"{median:.4f} [{low:.4f}, {high:.4f}]"
