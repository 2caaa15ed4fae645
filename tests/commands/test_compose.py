"""What composes with the callback: one test for each row of the README's table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nequip_decorr.md import load_model
from tests.support.commands import (
    DATA,
    Run,
    config_with,
    package_model,
    train,
    train_fails,
)
from tests.support.reference import NEQUIP_GNN

pytestmark = pytest.mark.slow

FLAG = ("+nequip_decorr=constant", "nequip_decorr.schedule.coeff=0.5")


MONITOR = {
    "_target_": "nequip.train.callbacks.LossCoefficientMonitor",
    "interval": "batch",
    "frequency": 1,
}
SCHEDULERS = {
    "LossCoefficientScheduler": {
        "_target_": "nequip.train.callbacks.LossCoefficientScheduler",
        "schedule": {1: {"per_atom_energy_mse": 5.0, "forces_mse": 2.0}},
    },
    "LinearLossCoefficientScheduler": {
        "_target_": "nequip.train.callbacks.LinearLossCoefficientScheduler",
        "final_coeffs": {"per_atom_energy_mse": 5.0, "forces_mse": 2.0},
        "start_epoch": 0,
        "transition_epochs": 2,
    },
}


@pytest.fixture(scope="module", params=SCHEDULERS)
def scheduled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Run]:
    """A scheduler of NequIP's, and a training with it alone."""
    folder, theirs = tmp_path_factory.mktemp("scheduled"), SCHEDULERS[request.param]
    config = config_with(folder / "config", {"trainer.callbacks": [theirs, MONITOR]})
    return theirs, train(folder / "run", "trainer.max_epochs=3", config=config)


@pytest.mark.parametrize("order", ["before", "after"])
def test_loss_coefficient_schedulers(
    tmp_path: Path, scheduled: tuple[dict[str, Any], Run], order: str
) -> None:
    theirs, expected = scheduled
    ours = {
        "_target_": "nequip_decorr.EdgeDecorrelation",
        "schedule": {"kind": "linear"},
    }
    both = [ours, theirs, MONITOR] if order == "before" else [theirs, ours, MONITOR]
    config = config_with(tmp_path / "config", {"trainer.callbacks": both})
    got = train(tmp_path / "both", "trainer.max_epochs=3", config=config)
    for term in ("per_atom_energy_mse", "forces_mse"):
        column = f"loss_coeff/{term}"
        assert len(set(expected.column(column))) > 1
        assert got.column(column) == expected.column(column)
    assert sorted(set(got.column("loss_coeff/edge_correlation"))) == pytest.approx(
        [3 * (15 - step) / 15 for step in reversed(range(15))]
    )


@pytest.mark.parametrize(
    "change",
    [
        {"training_module._target_": "nequip.train.NequIPLightningModule"},
        {"training_module._target_": "nequip.train.EMALightningModule"},
        {
            "training_module._target_": "nequip.train.ScheduleFreeLightningModule",
            "training_module.optimizer": {
                "_target_": "schedulefree.AdamWScheduleFree",
                "lr": 0.01,
            },
        },
        {"trainer.gradient_clip_val": 0.5},
    ],
    ids=["NequIP", "EMA", "ScheduleFree", "gradient-clipping"],
)
def test_training_modules_and_clipping(
    tmp_path: Path, change: dict[str, object]
) -> None:
    config = config_with(tmp_path / "config", change)
    epochs = "trainer.max_epochs=6"
    watched = train(tmp_path / "m", "+nequip_decorr=monitor", epochs, config=config)
    lowered = train(tmp_path / "d", *FLAG, epochs, config=config)
    name = "val0_epoch/edge_correlation"
    assert lowered.column(name)[-1] < 0.8 * watched.column(name)[-1]
    plain = train(tmp_path / "p", epochs, config=config)
    assert plain.column("val0_epoch/weighted_sum") == watched.column(
        "val0_epoch/weighted_sum"
    )


def zbl_eV(first: int, second: int, distance_A: float, cutoff_A: float) -> float:
    """Ziegler-Biersack-Littmark (https://docs.lammps.org/pair_zbl.html), p = 6."""
    x = distance_A * (first**0.23 + second**0.23) / 0.46850
    terms = (
        (0.18175, 3.19980),
        (0.50986, 0.94229),
        (0.28022, 0.40290),
        (0.02817, 0.20162),
    )
    screened = sum(share * math.exp(-rate * x) for share, rate in terms)
    u = distance_A / cutoff_A
    cutoff = 1 - 28 * u**6 + 48 * u**7 - 21 * u**8
    return 14.399645 * first * second / distance_A * screened * cutoff


def test_zbl(tmp_path: Path) -> None:
    """With NequIP's ZBL the term lowers the correlation, and leaves ZBL as it is."""
    zbl = {
        "_target_": "nequip.nn.pair_potential.ZBL",
        "units": "metal",
        "chemical_species": ["Hf", "O"],
    }
    config = config_with(
        tmp_path / "config", {"training_module.model.pair_potential": zbl}
    )
    epochs = "trainer.max_epochs=6"
    watched = train(tmp_path / "m", "+nequip_decorr=monitor", epochs, config=config)
    lowered = train(tmp_path / "d", *FLAG, epochs, config=config)
    name = "val0_epoch/edge_correlation"
    assert lowered.column(name)[-1] < 0.8 * watched.column(name)[-1]
    calculator = load_model(lowered.folder / "last.ckpt").loaded
    energies = []
    for distance_A in (0.3, 0.4):
        pair = Atoms("HfO", [[0, 0, 0], [distance_A, 0, 0]])
        energies.append(calculator.get_potential_energy(pair))
    # thousands of eV, beside which the network's own part is small
    expected = [zbl_eV(72, 8, distance_A, 3.5) for distance_A in (0.3, 0.4)]
    assert energies[0] - energies[1] == pytest.approx(
        expected[0] - expected[1], rel=0.01
    )


def test_gradient_accumulation_keeps_the_coefficient_within_a_step(
    tmp_path: Path,
) -> None:
    lightly = train(
        tmp_path,
        "+nequip_decorr=cosine",
        "nequip_decorr.schedule.kind=linear",
        "+trainer.accumulate_grad_batches=2",
        "data.split_dataset.train=8",
        "data.split_dataset.test=18",
    )
    # 4 batches an epoch make 2 steps; 4 steps in all, each logged once
    assert lightly.column("loss_coeff/edge_correlation") == pytest.approx(
        [3.0, 2.25, 1.5, 0.75]
    )
    assert lightly.checkpoint()["global_step"] == 4


def test_compile_mode_compile(tmp_path: Path) -> None:
    # a draw of edges has a sparse gradient in one of them, a dense one in the other
    options = ("trainer.max_epochs=1", "nequip_decorr.sample.edges=100")
    eager = train(tmp_path / "eager", *FLAG, *options)
    compiled = train(
        tmp_path / "compiled",
        *FLAG,
        *options,
        "+training_module.model.compile_mode=compile",
    )
    for name in ("train_loss_step/edge_correlation", "val0_epoch/edge_correlation"):
        assert compiled.column(name) == pytest.approx(eager.column(name), rel=1e-3)


@pytest.fixture(scope="module")
def decorrelated(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("decorrelated"), *FLAG)


@pytest.mark.parametrize("source", ["checkpoint", "package"])
def test_fine_tuning(tmp_path: Path, decorrelated: Run, source: str) -> None:
    path = decorrelated.folder / "last.ckpt"
    model = {
        "_target_": "nequip.model.ModelFromCheckpoint",
        "checkpoint_path": str(path),
    }
    if source == "package":
        package = package_model(path, tmp_path / "model.nequip.zip")
        model = {
            "_target_": "nequip.model.ModelFromPackage",
            "package_path": str(package),
        }
    config = config_with(tmp_path / "config", {"training_module.model": model})
    tuned = train(tmp_path / "tuned", *FLAG, config=config)
    assert "`edge_features`, 2 layers of 8 channels" in tuned.output
    name = "train_loss_step/edge_correlation"
    assert tuned.column(name)[0] < decorrelated.column(name)[0]


def test_softadapt_is_refused(tmp_path: Path) -> None:
    softadapt = {
        "_target_": "nequip.train.callbacks.SoftAdapt",
        "beta": 1.1,
        "interval": "epoch",
        "frequency": 5,
    }
    config = config_with(tmp_path / "config", {"trainer.callbacks": [softadapt]})
    output = train_fails(tmp_path / "run", *FLAG, config=config)
    assert "cannot combine SoftAdapt with a decorrelation term" in output
    assert "use LossCoefficientScheduler instead" in output
    # measuring changes no coefficient, so it is allowed
    train(tmp_path / "monitor", "+nequip_decorr=monitor", config=config)


@pytest.mark.parametrize(
    "module", ["ConFIGLightningModule", "EMAConFIGLightningModule"]
)
def test_config_is_refused(tmp_path: Path, module: str) -> None:
    output = train_fails(
        tmp_path, *FLAG, f"training_module._target_=nequip.train.{module}"
    )
    assert f"cannot combine {module} with a decorrelation term" in output
    assert "use NequIPLightningModule or EMALightningModule" in output


def test_a_model_without_edge_features_names_its_fields(tmp_path: Path) -> None:
    gnn = {**NEQUIP_GNN, "r_max": 3.5}
    config = config_with(tmp_path / "config", {"training_module.model": gnn})
    edge = "nequip_decorr.features=edge"
    output = train_fails(tmp_path / "run", *FLAG, edge, config=config)
    assert "this model has no edge features such as Allegro's" in output
    assert "edge_embedding" in output


def test_a_missing_loss_is_named(tmp_path: Path) -> None:
    config = config_with(tmp_path / "config", {"training_module.loss": None})
    output = train_fails(tmp_path / "run", *FLAG, config=config)
    assert "decorrelation term to `training_module.loss`, which is null" in output


def test_the_term_works_by_hand(tmp_path: Path) -> None:
    term = {
        "name": "edge_correlation",
        "field": None,
        "coeff": 1.0,
        "metric": {"_target_": "nequip_decorr.EdgeCorrelation", "layer_dim": 8},
    }
    watch = {**term, "coeff": None}
    config = config_with(
        tmp_path / "config",
        {
            "training_module.loss.extra_metrics": [term],
            "training_module.val_metrics.extra_metrics": [watch],
        },
    )
    by_hand = train(tmp_path / "run", config=config)
    values = by_hand.column("train_loss_step/edge_correlation")
    # NequIP rescales all coefficients: (1 E + 3 F + 1 ours) / 5
    assert by_hand.column("train_loss_step/weighted_sum") == pytest.approx(
        [
            0.2 * energy + 0.6 * forces + 0.2 * value
            for energy, forces, value in zip(
                by_hand.column("train_loss_step/per_atom_energy_mse"),
                by_hand.column("train_loss_step/forces_mse"),
                values,
                strict=True,
            )
        ],
        rel=1e-5,
    )
    assert by_hand.column("val0_epoch/edge_correlation")
    clash = train_fails(tmp_path / "clash", *FLAG, config=config)
    assert "the config already has a metric called 'edge_correlation'" in clash


def test_tensorboard_gets_the_same(tmp_path: Path, decorrelated: Run) -> None:
    logger = {
        "_target_": "lightning.pytorch.loggers.TensorBoardLogger",
        "save_dir": str(tmp_path / "tb"),
        "name": None,
        "version": "",
    }
    config = config_with(tmp_path / "config", {"trainer.logger": logger})
    train(tmp_path / "run", *FLAG, config=config)
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    for name in (
        "loss_coeff/edge_correlation",
        "train_loss_step/edge_correlation",
        "val0_epoch/edge_correlation",
        "val0_epoch/edge_correlation_layer1_effective_rank",
    ):
        logged = [event.value for event in events.Scalars(name)]
        assert logged == pytest.approx(decorrelated.column(name), rel=1e-5), name


def test_several_validation_sets_are_all_watched(tmp_path: Path) -> None:
    run_ = train(
        tmp_path,
        *FLAG,
        f"+data.val_file_path={DATA}",
        "trainer.max_epochs=1",
    )
    assert run_.column("val0_epoch/edge_correlation")
    assert run_.column("val1_epoch/edge_correlation")


BROKEN = '''
import torch
from lightning.pytorch.callbacks import Callback


class Break(Callback):
    """Makes the second layer's features NaN from the fourth step on."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 3:
            model = pl_module.model["sole_model"]
            for name, weight in model.named_parameters():
                if "latents.0.mlp.2" in name:
                    weight.data.fill_(float("nan"))
'''


def test_features_that_are_not_finite_stop_the_training(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "breaker.py").write_text(BROKEN)
    config = config_with(
        tmp_path / "config", {"trainer.callbacks": [{"_target_": "breaker.Break"}]}
    )
    each_step = "nequip_decorr.sample.every=1"
    output = train_fails(folder, *FLAG, each_step, config=config)
    assert (
        "expected finite features in `edge_features`, got NaN or infinity in layer 1 "
        "of step 3, epoch 0"
    ) in output
    assert not list(folder.glob("*.ckpt"))
