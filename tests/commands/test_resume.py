"""Interrupted and resumed trainings equal uninterrupted ones."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.support.commands import (
    HUNG_S,
    Run,
    config_with,
    package_model,
    start,
    train,
    train_arguments,
)

pytestmark = pytest.mark.slow

EPOCHS = 5
STEPS = 5  # an epoch
COEFFICIENT = "loss_coeff/edge_correlation"
LOSS = "train_loss_step/weighted_sum"
PENALTY = "train_loss_step/edge_correlation"

SETTINGS = {
    "cosine-step": ("+nequip_decorr=cosine",),
    "linear-epoch": (
        "+nequip_decorr=cosine",
        "nequip_decorr.schedule.kind=linear",
        "nequip_decorr.schedule.unit=epoch",
        "nequip_decorr.schedule.delay=1",
    ),
    "subsampled-bump": (
        "+nequip_decorr=cosine",
        "nequip_decorr.schedule.direction=bump",
        "nequip_decorr.sample.edges=100",
    ),
    "every-third-step": (
        "+nequip_decorr=cosine",
        "nequip_decorr.sample.every=3",
    ),
    "relative": (
        "+nequip_decorr=constant",
        "nequip_decorr.schedule.relative=true",
        "nequip_decorr.schedule.coeff=1",
    ),
    "target": (
        "+nequip_decorr=target",
        "nequip_decorr.schedule.rate=0.5",
        "nequip_decorr.schedule.guard_band=0.0",
    ),
}


#: NequIP 0.19.1 restarts with another order of shuffled frames, with and without us.
IN_ORDER = "data.train_dataloader.shuffle=false"


def interrupt(folder: Path, *overrides: str, how: signal.Signals) -> None:
    """Start a training and send it a signal in the middle of its third epoch."""
    pause = {"_target_": "tests.support.pausing.Pause", "step": 2 * STEPS + 2}
    config = config_with(folder, {"trainer.callbacks": [pause]})
    arguments = train_arguments(folder, *overrides, config=config)
    log = folder / "nequip-train.log"
    process = start("nequip-train", arguments, folder, log)
    while not (folder / "paused").exists():
        assert process.is_alive(), log.read_text()
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, how)
    process.join(HUNG_S)
    assert process.exitcode is not None, "hangs"
    assert not (folder / "epoch2.ckpt").exists()


def flags_of(setting: str) -> tuple[str, ...]:
    return (*SETTINGS[setting], IN_ORDER, f"trainer.max_epochs={EPOCHS}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """The training of a setting that nothing happens to."""

    @cache
    def trained(setting: str) -> Run:
        return train(tmp_path_factory.mktemp("whole") / "run", *flags_of(setting))

    return trained


@pytest.mark.parametrize("setting", SETTINGS)
def test_resume_from_the_end_of_an_epoch(
    tmp_path: Path, whole: Callable[[str], Run], setting: str
) -> None:
    expected = whole(setting)
    checkpoint = f"++ckpt_path={expected.folder / 'epoch1.ckpt'}"
    check_rest(expected, train(tmp_path / "rest", *flags_of(setting), checkpoint))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=str)
def test_resume_of_an_interrupted_training(
    tmp_path: Path, whole: Callable[[str], Run], how: signal.Signals
) -> None:
    flags = flags_of("relative")
    interrupt(tmp_path / "first", *flags, how=how)
    checkpoint = f"++ckpt_path={tmp_path / 'first' / 'epoch1.ckpt'}"
    check_rest(whole("relative"), train(tmp_path / "rest", *flags, checkpoint))


def check_rest(whole: Run, rest: Run) -> None:
    """The last three epochs are those of the whole training, bit by bit."""
    assert "restarted at step 10, settings unchanged" in rest.output
    for name in (COEFFICIENT, LOSS):
        assert rest.column(name) == whole.column(name)[2 * STEPS :]
    assert rest.column(PENALTY)[-STEPS:] == whole.column(PENALTY)[-STEPS:]
    expected, got = whole.checkpoint()["state_dict"], rest.checkpoint()["state_dict"]
    for key, value in expected.items():
        if torch.is_tensor(value):
            assert torch.equal(got[key], value), key


@pytest.mark.parametrize("setting", ["cosine-step", "linear-epoch"])
def test_resume_from_the_middle_of_an_epoch_keeps_the_coefficients(
    tmp_path: Path, setting: str
) -> None:
    flags = flags_of(setting)
    every_step = {
        "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
        "dirpath": "${hydra:runtime.output_dir}",
        "filename": "step{step}",
        "auto_insert_metric_name": False,
        "save_top_k": -1,
        "every_n_train_steps": 1,
    }
    config = config_with(tmp_path / "config", {"trainer.callbacks": [every_step]})
    whole = train(tmp_path / "whole", *flags, config=config)
    checkpoint = tmp_path / "whole" / "step8.ckpt"
    assert checkpoint.exists()
    rest = train(tmp_path / "rest", *flags, f"++ckpt_path={checkpoint}")
    steps = dict(steps_and_values(whole))
    resumed = steps_and_values(rest)
    assert resumed[0][0] == 8
    assert len(resumed) > 2 * STEPS
    for step, coefficient in resumed:
        if step in steps:
            assert coefficient == steps[step], step


def steps_and_values(run_: Run) -> list[tuple[int, float]]:
    return [
        (int(row["step"]), float(row[COEFFICIENT]))
        for row in run_.metrics
        if row.get(COEFFICIENT)
    ]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("started")
    return {
        "off": train(folder / "off"),
        "on": train(folder / "on", *SETTINGS["cosine-step"]),
    }


def resume(run_: Run, folder: Path, *flags: str) -> Run:
    checkpoint = run_.folder / "epoch0.ckpt"
    return train(folder, *flags, f"++ckpt_path={checkpoint}", "trainer.max_epochs=3")


def curve(run_: Run) -> dict[Fraction, float]:
    """Coefficient of each optimizer step by progress, in epochs."""
    epochs = [int(row["epoch"]) for row in run_.metrics if row.get(COEFFICIENT)]
    values = run_.column(COEFFICIENT)
    return {
        epoch + Fraction(i - epochs.index(epoch), epochs.count(epoch)): value
        for i, (epoch, value) in enumerate(zip(epochs, values, strict=True))
    }


#: how the loader of a restart may differ, and the steps that its epochs then have
LOADERS = {
    "fewer-steps": (("data.train_dataloader.batch_size=5",), 2),
    "more-steps": (("data.train_dataloader.batch_size=1",), 10),
    "accumulation": (("+trainer.accumulate_grad_batches=2",), 3),
    "limited": (("+trainer.limit_train_batches=0.8",), 4),
}
UNITS = {
    "step": ("nequip_decorr.schedule.delay=1", "nequip_decorr.schedule.stop=13"),
    "epoch": (
        "nequip_decorr.schedule.unit=epoch",
        "nequip_decorr.schedule.delay=0.2",
        "nequip_decorr.schedule.stop=2.6",
    ),
}


def expected_coefficient(epochs: Fraction) -> float:
    """From 3 to 0 along half a cosine, from a fifth of an epoch to 2.6 epochs."""
    done = (float(epochs) - 0.2) / 2.4
    return 0.0 if done < 0 else 1.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@pytest.fixture(scope="module", params=UNITS)
def first(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[str, ...], Run]:
    """A training of one epoch with a schedule of three, and its options."""
    flags = ("+nequip_decorr=cosine", *UNITS[request.param])
    folder = tmp_path_factory.mktemp("first") / "run"
    return flags, train(folder, *flags, "trainer.max_epochs=1")


@pytest.mark.parametrize("loader", LOADERS)
def test_a_restart_with_another_loader_stays_on_the_curve(
    tmp_path: Path, loader: str, first: tuple[tuple[str, ...], Run]
) -> None:
    flags, begun = first
    changes, steps = LOADERS[loader]
    second = resume(begun, tmp_path / "second", *flags, *changes)
    assert "settings unchanged" in second.output
    found = {**curve(begun), **curve(second)}
    assert len(found) == STEPS + 2 * steps
    for epochs, coefficient in found.items():
        assert coefficient == pytest.approx(
            expected_coefficient(epochs), rel=1e-12, abs=1e-12
        )


def test_the_last_step_of_a_training_with_max_steps_is_that_of_its_schedule(
    tmp_path: Path,
) -> None:
    limits = ("+nequip_decorr=cosine", "trainer.max_epochs=-1")
    whole = train(tmp_path / "whole", *limits, "+trainer.max_steps=12")
    assert whole.column(COEFFICIENT) == pytest.approx(
        [1.5 * (1 + math.cos(math.pi * step / 12)) for step in range(12)]
    )
    # Lightning makes one more step of the epoch that is over, with 7 left, of which an
    # epoch now has 2; then 6 are left, and the training ends after 1 + 6/2 epochs
    second = train(
        tmp_path / "second",
        *limits,
        "+trainer.max_steps=12",
        f"++ckpt_path={whole.folder / 'epoch0.ckpt'}",
        "data.train_dataloader.batch_size=5",
    )
    first, *others = second.column(COEFFICIENT)
    assert first == pytest.approx(1.5 * (1 + math.cos(math.pi / 4.5)))
    assert others == pytest.approx(
        [1.5 * (1 + math.cos(math.pi * (1 + k / 2) / 4)) for k in range(6)]
    )


def test_turned_on_at_a_restart(tmp_path: Path, started: dict[str, Run]) -> None:
    rest = resume(started["off"], tmp_path, *SETTINGS["cosine-step"])
    assert "turned on at step 5 of a restarted training" in rest.output
    assert rest.column(COEFFICIENT)[0] < 3.0
    assert len(rest.column(PENALTY)) == 10


def test_turned_off_at_a_restart(tmp_path: Path, started: dict[str, Run]) -> None:
    rest = resume(started["on"], tmp_path)
    assert PENALTY not in rest.metrics[0]
    expected = resume(started["off"], tmp_path / "off").checkpoint()["state_dict"]
    got = rest.checkpoint()["state_dict"]
    assert got.keys() == expected.keys()
    key = "loss._extra_state"
    assert got[key]["coeff_dict"] == expected[key]["coeff_dict"]


def test_changed_at_a_restart(tmp_path: Path, started: dict[str, Run]) -> None:
    rest = resume(
        started["on"],
        tmp_path,
        "+nequip_decorr=constant",
        "nequip_decorr.schedule.coeff=0.7",
    )
    assert (
        "restarted at step 5, settings changed: schedule.kind cosine -> constant, "
        "schedule.coeff 3.0 -> 0.7, sample.every 1 -> 4"
    ) in rest.output
    assert set(rest.column(COEFFICIENT)) == {0.7}


def test_a_longer_training_says_that_the_schedule_is_stretched(
    tmp_path: Path, started: dict[str, Run]
) -> None:
    rest = resume(started["on"], tmp_path, *SETTINGS["cosine-step"])
    assert "settings changed: schedule.stop 10.0 -> 15.0" in rest.output
    # a third of the way along half a cosine from 3
    assert rest.column(COEFFICIENT)[0] == pytest.approx(3.0 * 0.75)


def test_fractions_of_a_longer_training_are_stretched(tmp_path: Path) -> None:
    flags = ("+nequip_decorr=cosine", "nequip_decorr.schedule.unit=fraction")
    flags = (*flags, "nequip_decorr.schedule.stop=1.0", "trainer.max_epochs=2")
    first = train(tmp_path / "first", *flags)
    checkpoint = f"++ckpt_path={first.folder / 'last.ckpt'}"
    rest = train(tmp_path / "rest", *flags, "trainer.max_epochs=3", checkpoint)
    assert "settings changed: schedule.epochs 2.0 -> 3.0" in rest.output
    # two thirds of the way along half a cosine from 3
    assert rest.column(COEFFICIENT)[0] == pytest.approx(3.0 * 0.25)


def test_a_decorrelated_training_can_end_without_the_package(
    started: dict[str, Run], tmp_path: Path
) -> None:
    checkpoint = started["on"].folder / "last.ckpt"
    package = package_model(checkpoint, tmp_path / "model.nequip.zip")
    for path in (checkpoint, package):
        assert b"nequip_decorr" not in path.read_bytes()
