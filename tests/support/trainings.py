"""Training modules as NequIP builds them, their losses, and a batch of labels."""

import torch
from hydra.utils import instantiate
from lightning import Trainer
from nequip.data import AtomicDataDict
from nequip.train import NequIPLightningModule

from tests.support import reference

LOSS = {
    "_target_": "nequip.train.EnergyForceLoss",
    "coeffs": {"total_energy": 1.0, "forces": 3.0},
}


METRICS = {
    "_target_": "nequip.train.EnergyForceMetrics",
    "coeffs": {"total_energy_rmse": 1.0, "forces_rmse": 1.0},
}


def training_module(cls=NequIPLightningModule, **options):
    reference.build(reference.NEQUIP_GNN)  # sets NequIP's global state
    return cls(
        model=reference.ALLEGRO,
        num_datasets={"train": 1, "val": 1, "test": 0, "predict": 0},
        optimizer={"_target_": "torch.optim.Adam"},
        loss=LOSS,
        val_metrics=METRICS,
        **options,
    )


def new_loss():
    return instantiate(LOSS, type_names=reference.TYPE_NAMES)


def coefficients(loss):
    return {name: entry.coeff for name, entry in loss.entries.items()}


def labels():
    return {
        AtomicDataDict.TOTAL_ENERGY_KEY: torch.zeros(1, 1),
        AtomicDataDict.FORCE_KEY: torch.zeros(5, 3),
        AtomicDataDict.NUM_NODES_KEY: torch.tensor([5]),
    }


def trainer_with(**options):
    quiet = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    return Trainer(**{"max_epochs": 4, **quiet, **options})
