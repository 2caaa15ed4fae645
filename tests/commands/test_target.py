"""Schedule ``target`` through the real ``nequip-train``."""

from __future__ import annotations

from math import exp, inf
from pathlib import Path

import pytest

from tests.support.commands import config_with, train

pytestmark = pytest.mark.slow

#: Largest change of the logarithm of the coefficient in one step, as documented.
MAX_CHANGE = 0.05
COEFFICIENT = "loss_coeff/edge_correlation"
VALUE = "train_loss_step/edge_correlation"
TARGET = ("+nequip_decorr=target", "nequip_decorr.schedule.guard_band=100.0")
NO_EMA = "training_module._target_=nequip.train.NequIPLightningModule"
#: Far below what features ever reach, so that each measurement has the largest effect.
RISING = (
    "nequip_decorr.schedule.level=1.0e-4",
    "nequip_decorr.schedule.rate=1.0e+4",
    "nequip_decorr.schedule.max_coeff=1.0e+4",
)
START, STEPS = 0.3, 5


def test_it_drives_the_correlation_to_its_level(tmp_path: Path) -> None:
    run = train(
        tmp_path,
        "+nequip_decorr=target",
        "nequip_decorr.schedule.level=0.2",
        "nequip_decorr.schedule.rate=0.05",
        "nequip_decorr.schedule.guard_band=1.0",
        "trainer.max_epochs=30",
        "+trainer.check_val_every_n_epoch=5",
        NO_EMA,
    )
    coefficients = run.column(COEFFICIENT)
    assert len(set(coefficients)) > 10
    values = run.column(VALUE)
    untouched = train(
        tmp_path / "monitor",
        "+nequip_decorr=monitor",
        "trainer.max_epochs=30",
        "+trainer.check_val_every_n_epoch=30",
        NO_EMA,
    ).column("val0_epoch/edge_correlation")[-1]
    tail = sum(values[-30:]) / 30
    assert abs(tail - 0.2) < 0.5 * abs(untouched - 0.2)


def test_a_step_without_the_term_measures_nothing(tmp_path: Path) -> None:
    run = train(
        tmp_path,
        *TARGET,
        *RISING,
        "nequip_decorr.sample.every=3",
        "trainer.max_epochs=3",
    )
    measured, expected = 0, []
    for epoch in range(3):
        for step in range(STEPS):
            expected.append(START * exp(measured * MAX_CHANGE))
            measured += (step - epoch) % 3 == 0
    assert run.column(COEFFICIENT) == pytest.approx(expected)


def test_accumulated_batches_change_the_coefficient_once(tmp_path: Path) -> None:
    run = train(
        tmp_path,
        *TARGET,
        *RISING,
        "+trainer.accumulate_grad_batches=2",
        "data.split_dataset.train=8",
        "data.split_dataset.test=18",
    )
    # 4 batches an epoch make 2 steps; 4 steps in all, each logged once
    assert run.column(COEFFICIENT) == pytest.approx(
        [START * exp(k * MAX_CHANGE) for k in range(4)]
    )


def test_a_batch_with_too_few_edges_measures_nothing(tmp_path: Path) -> None:
    run = train(tmp_path, *TARGET, *RISING, "nequip_decorr.sample.edges=2")
    assert run.column(VALUE)
    assert set(run.column(COEFFICIENT)) == {START}


def test_the_guard_halves_the_coefficient_when_forces_get_worse(tmp_path: Path) -> None:
    """Of a metric of any name; the rate is so small that nothing else moves it."""
    metrics = {
        "_target_": "nequip.train.MetricsManager",
        "metrics": [
            {
                "name": "F_MAE",
                "field": "forces",
                "per_type": True,
                "coeff": 1.0,
                "metric": {"_target_": "nequip.train.MeanAbsoluteError"},
            },
        ],
    }
    config = config_with(tmp_path / "config", {"training_module.val_metrics": metrics})
    run = train(
        tmp_path / "run",
        "+nequip_decorr=target",
        "nequip_decorr.schedule.guard_monitor=val0_epoch/F_MAE_O",
        "nequip_decorr.schedule.guard_band=0.0",
        "nequip_decorr.schedule.rate=1.0e-9",
        "trainer.max_epochs=5",
        "training_module.optimizer.lr=0.3",
        NO_EMA,
        config=config,
    )
    expected, coeff, best = [], START, inf
    for error in run.column("val0_epoch/F_MAE_O"):
        expected += [coeff] * STEPS
        if error > best:
            coeff /= 2
        best = min(best, error)
    assert len(expected) == 5 * STEPS
    assert expected[-1] < START, "this training is too good to test the guard"
    assert run.column(COEFFICIENT) == pytest.approx(expected, rel=1e-5)
    assert f"coefficient halved to {START / 2:g}" in run.output
