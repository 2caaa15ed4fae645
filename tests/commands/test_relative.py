"""A relative coefficient in real trainings: what it follows, and what it is free of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from tests.support.commands import DATA, Run, config_with, train

pytestmark = pytest.mark.slow

RELATIVE = ("+nequip_decorr=constant", "nequip_decorr.schedule.relative=true")
IN_ORDER = "data.train_dataloader.shuffle=false"
COEFFICIENT = "loss_coeff/edge_correlation"
#: kcal/mol in an eV
KCAL = 23.06
#: long enough for the correlation to settle
EPOCHS = 40
GNN = {
    "_target_": "nequip.model.NequIPGNNModel",
    "seed": 11,
    "model_dtype": "float32",
    "type_names": "${model_type_names}",
    "r_max": "${cutoff_radius}",
    "num_layers": 2,
    "l_max": 1,
    "num_features": 8,
    "radial_mlp_depth": 1,
    "radial_mlp_width": 16,
    "avg_num_neighbors": 12.0,
    "per_type_energy_shifts": "${training_data_stats:per_atom_energy_mean}",
    "per_type_energy_scales": 1.0,
}


def rest_of_loss(run_: Run) -> np.ndarray[Any, Any]:
    """Of each step, as NequIP logs and weighs it: energy 1, forces 3, sum to 1."""
    energy = run_.column("train_loss_step/per_atom_energy_mse")
    forces = run_.column("train_loss_step/forces_mse")
    return 0.25 * np.array(energy) + 0.75 * np.array(forces)


def averages(values: np.ndarray[Any, Any]) -> list[float]:
    """Of the values before each, with weights that fall by 2 % a step."""
    return [
        float(np.average(values[:n], weights=0.98 ** np.arange(n)[::-1]))
        for n in range(1, len(values))
    ]


def test_the_logged_coefficient_is_a_multiple_of_the_logged_losses(
    tmp_path: Path,
) -> None:
    done = train(tmp_path, *RELATIVE, "nequip_decorr.schedule.coeff=2")
    assert "coefficient 2 times the rest of the loss" in done.output
    first, *others = done.column(COEFFICIENT)
    assert first == 0
    expected = [2 * average for average in averages(rest_of_loss(done))]
    # losses are logged in float32
    assert others == pytest.approx(expected, rel=1e-5)


def test_other_terms_are_not_part_of_it(tmp_path: Path) -> None:
    term = {
        "_target_": "nequip_decorr.EdgeDecorrelation",
        "schedule": {"kind": "constant", "coeff": 1.0, "relative": True},
    }
    large = {**term, "name": "large", "schedule": {"kind": "constant", "coeff": 1e3}}
    config = config_with(tmp_path / "config", {"trainer.callbacks": [large, term]})
    done = train(tmp_path / "run", config=config)
    expected = averages(rest_of_loss(done))
    assert done.column(COEFFICIENT)[1:] == pytest.approx(expected, rel=1e-5)


def test_accumulated_batches_count_as_one_step(tmp_path: Path) -> None:
    # a term that is too small to change the training, whose batches differ
    flags = (*RELATIVE, "nequip_decorr.schedule.coeff=1e-6", IN_ORDER)
    split = ("data.split_dataset.train=8", "data.split_dataset.test=18")
    flags = (*flags, *split, "trainer.max_epochs=3")
    size = "data.train_dataloader.batch_size"
    whole = train(tmp_path / "whole", *flags, f"{size}=4")
    halves = train(
        tmp_path / "halves", *flags, f"{size}=2", "+trainer.accumulate_grad_batches=2"
    )
    expected = set(whole.column(COEFFICIENT))
    assert len(expected) == 6
    assert sorted(set(halves.column(COEFFICIENT))) == pytest.approx(
        sorted(expected), rel=1e-4
    )


# --- mean |rho| at equal progress ---


def mean_abs_rho(folder: Path, *overrides: str, config: Path | None = None) -> float:
    """Of the validation data after a training, over layers."""
    done = train(
        folder,
        *RELATIVE,
        "nequip_decorr.schedule.coeff=1",
        f"trainer.max_epochs={EPOCHS}",
        "+trainer.check_val_every_n_epoch=10",
        *overrides,
        config=config,
    )
    last = [row for row in done.metrics if row.get("val0_epoch/edge_correlation")][-1]
    values = [float(v) for name, v in last.items() if name.endswith("mean_abs_rho")]
    return float(np.mean(values))


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> float:
    """With the config of all tests: HfO2, Allegro, labels in eV."""
    return mean_abs_rho(tmp_path_factory.mktemp("usual"))


def test_labels_in_other_units_have_the_same_correlation(
    tmp_path: Path, usual: float
) -> None:
    frames = read(DATA, ":")
    for frame in frames:
        energy, forces = frame.get_potential_energy(), frame.get_forces()
        frame.calc = SinglePointCalculator(
            frame, energy=KCAL * energy, forces=KCAL * forces
        )
    write(tmp_path / "kcal.extxyz", frames)
    config = config_with(
        tmp_path / "config",
        {
            "data.split_dataset.file_path": str(tmp_path / "kcal.extxyz"),
            "training_module.model.per_type_energy_scales": KCAL,
        },
    )
    found = mean_abs_rho(tmp_path / "run", config=config)
    assert found == pytest.approx(usual, abs=0.02)


@pytest.mark.parametrize(("energy", "forces"), [(1, 10), (10, 1)])
def test_other_loss_coefficients_have_the_same_correlation(
    tmp_path: Path, usual: float, energy: int, forces: int
) -> None:
    found = mean_abs_rho(
        tmp_path,
        f"training_module.loss.coeffs.total_energy={energy}",
        f"training_module.loss.coeffs.forces={forces}",
    )
    assert found == pytest.approx(usual, abs=0.05)


def test_a_gnn_has_the_same_correlation(tmp_path: Path, usual: float) -> None:
    config = config_with(tmp_path / "config", {"training_module.model": GNN})
    found = mean_abs_rho(tmp_path / "run", config=config)
    assert found == pytest.approx(usual, abs=0.05)


def half_labelled(path: Path) -> Path:
    """Every other frame has neither an energy nor a stress."""
    frames = read(DATA, ":14")
    for number, atoms in enumerate(frames):
        missing = np.nan if number % 2 else 1.0
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=missing * atoms.get_potential_energy(),
            forces=atoms.get_forces(),
            stress=np.full(6, missing * 0.01),
        )
    write(path, frames)
    return path


def test_it_follows_what_labels_there_are(tmp_path: Path) -> None:
    """NequIP's value of a loss is NaN in a batch without the labels of a term."""
    data = half_labelled(tmp_path / "half.extxyz")
    loss = {
        "_target_": "nequip.train.EnergyForceStressLoss",
        "coeffs": {"total_energy": 1.0, "forces": 3.0, "stress": 1.0},
        "ignore_nan": {"total_energy": True, "stress": True},
    }
    config = config_with(
        tmp_path,
        {
            "data.split_dataset": {"file_path": str(data), "train": 10, "val": 4},
            "data.train_dataloader.batch_size": 1,
            "data.train_dataloader.shuffle": False,
            "training_module.loss": loss,
            "training_module.model.per_type_energy_shifts": {"Hf": -10.0, "O": -5.0},
            "trainer.callbacks": [],
        },
    )
    # few edges of each batch, whose gradient is sparse
    flags = (*RELATIVE, "nequip_decorr.sample.edges=64", "nequip_decorr.sample.every=1")
    # as accumulated batches, of which one has all labels and one has not
    done = train(
        tmp_path / "run", *flags, "+trainer.accumulate_grad_batches=2", config=config
    )
    found = done.column(COEFFICIENT)
    assert found[0] == 0.0
    assert min(found[1:]) > 0
    assert np.isfinite(found).all()
