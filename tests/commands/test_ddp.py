"""Two gloo processes through the real ``nequip-train`` equal one process."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from tests.support.commands import DATA, HUNG_S, Run, train, train_arguments

pytestmark = pytest.mark.slow

#: Float32 sums over edges and atoms run in another order on two ranks; relative to the
#: largest weight of a layer, 8 steps of Adam make 7e-7 of that.
TOLERANCE = 1e-5

# Lightning shuffles the training frames of every data-parallel run by a seeded
# permutation, which two ranks share alternately: one rank with batches twice as large
# sees the same frames in each step.
COMMON = (
    "+nequip_decorr=constant",
    "nequip_decorr.schedule.coeff=1.0",
    # each rank draws from its own batch, so that ranks and one process draw differently
    "nequip_decorr.sample.edges=null",
    "training_module._target_=nequip.train.NequIPLightningModule",
    "trainer.max_epochs=2",
)


def one_process(folder: Path, *overrides: str) -> Run:
    batch = "data.train_dataloader.batch_size=4"
    return train(folder, *overrides, batch, "+trainer.devices=1")


def two_processes(folder: Path, *overrides: str) -> Run:
    folder.mkdir(parents=True)
    overrides = (*overrides, "data.train_dataloader.batch_size=2")
    script = Path(sys.executable).with_name("nequip-train")
    arguments = [*overrides, "+trainer.devices=2"]
    done = subprocess.run(
        [str(script), *train_arguments(folder, *arguments)],
        check=False,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=HUNG_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Run(folder, 0, done.stdout + done.stderr)


def compare(one: Run, two: Run) -> None:
    for name in ("edge_correlation", "weighted_sum"):
        column = f"train_loss_step/{name}"
        assert two.column(column) == pytest.approx(one.column(column), rel=TOLERANCE)
    for name in ("val0_epoch/edge_correlation", "train_loss_epoch/edge_correlation"):
        assert two.column(name) == pytest.approx(one.column(name), rel=TOLERANCE)
    layer = "val0_epoch/edge_correlation_layer1_mean_rho2_debiased"
    assert two.column(layer) == pytest.approx(one.column(layer), rel=TOLERANCE)
    expected, got = one.checkpoint()["state_dict"], two.checkpoint()["state_dict"]
    for key, value in expected.items():
        if torch.is_tensor(value) and value.is_floating_point() and value.numel():
            error = (got[key] - value).abs().max() / value.abs().max()
            assert error <= TOLERANCE, key


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """With NequIP's own strategy; the other tests have Lightning's."""
    split = ("data.split_dataset.train=16", "data.split_dataset.test=10")
    ddp = "+trainer.strategy={_target_: nequip.train.SimpleDDPStrategy}"
    one = one_process(tmp_path / "one", *COMMON, *split, ddp)
    two = two_processes(tmp_path / "two", *COMMON, *split, ddp)
    compare(one, two)


def test_two_processes_have_the_relative_coefficient_of_one(tmp_path: Path) -> None:
    split = ("data.split_dataset.train=16", "data.split_dataset.test=10")
    flags = (*COMMON, *split, "nequip_decorr.schedule.relative=true")
    one = one_process(tmp_path / "one", *flags, "+trainer.strategy=ddp")
    two = two_processes(tmp_path / "two", *flags, "+trainer.strategy=ddp")
    compare(one, two)
    column = "loss_coeff/edge_correlation"
    first, *others = two.column(column)
    assert first == 0
    assert others == pytest.approx(one.column(column)[1:], rel=TOLERANCE)
    assert min(others) > 0


def test_two_processes_have_the_target_coefficient_of_one(tmp_path: Path) -> None:
    flags = (
        "+nequip_decorr=target",
        "nequip_decorr.schedule.rate=0.2",
        "nequip_decorr.sample.edges=null",
        "training_module._target_=nequip.train.NequIPLightningModule",
        *("data.split_dataset.train=16", "data.split_dataset.test=10"),
        "+trainer.strategy=ddp",
    )
    one = one_process(tmp_path / "one", *flags)
    two = two_processes(tmp_path / "two", *flags)
    compare(one, two)
    column = "loss_coeff/edge_correlation"
    assert len(set(one.column(column))) == 8
    assert two.column(column) == pytest.approx(one.column(column), rel=TOLERANCE)


def test_losses_by_type_have_the_relative_coefficient_of_one(tmp_path: Path) -> None:
    """NequIP does not reduce their values over ranks; all frames have one formula."""
    flags = (
        *COMMON,
        *("data.split_dataset.train=16", "data.split_dataset.test=10"),
        "+training_module.loss.per_type_forces_coeffs={Hf: 1.0, O: 2.0}",
        "nequip_decorr.schedule.relative=true",
        "trainer.max_epochs=1",
    )
    one = one_process(tmp_path / "one", *flags, "+trainer.strategy=ddp")
    two = two_processes(tmp_path / "two", *flags, "+trainer.strategy=ddp")
    column = "loss_coeff/edge_correlation"
    assert min(one.column(column)[1:]) > 0
    assert two.column(column) == pytest.approx(one.column(column), rel=TOLERANCE)


def test_a_rank_without_edges_counts_for_nothing(tmp_path: Path) -> None:
    frames = read(DATA, ":16")
    # Lightning's order of the first epoch; every second frame of it goes to rank 1
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0)).tolist()
    for index in order[1::2]:
        apart = np.diag([0, 20, 40, 60])[:, 1:]
        lonely = Atoms("Hf2O2", positions=apart, cell=[80] * 3, pbc=True)
        lonely.calc = SinglePointCalculator(
            lonely, energy=-30.0, forces=np.zeros((4, 3)), stress=np.zeros(6)
        )
        frames[index] = lonely
    write(tmp_path / "frames.extxyz", frames)
    files = (
        "~data.split_dataset",
        f"+data.train_file_path={tmp_path / 'frames.extxyz'}",
        f"+data.val_file_path={DATA}",
        "trainer.max_epochs=1",
        "+trainer.strategy=ddp",
    )
    one = one_process(tmp_path / "one", *COMMON, *files)
    two = two_processes(tmp_path / "two", *COMMON, *files)
    compare(one, two)
    assert "had no effect" not in two.output


def test_a_restart_on_two_ranks_stays_on_the_curve(tmp_path: Path) -> None:
    flags = (
        "+nequip_decorr=cosine",
        "nequip_decorr.schedule.delay=1",
        "nequip_decorr.schedule.stop=13",
        "data.train_dataloader.batch_size=2",
    )
    first = train(tmp_path / "first", *flags, "trainer.max_epochs=1")
    checkpoint = first.folder / "last.ckpt"
    second = two_processes(
        tmp_path / "second",
        *flags,
        "trainer.max_epochs=2",
        "+trainer.strategy=ddp",
        f"++ckpt_path={checkpoint}",
    )
    # five steps of ten frames made the first epoch, three of the two ranks the second
    expected = [
        0.0,
        *(k / 12 for k in range(4)),
        *(4 / 12 + k * 5 / 36 for k in range(3)),
    ]
    column = "loss_coeff/edge_correlation"
    got = first.column(column) + second.column(column)
    assert got[0] == 0
    assert got[1:] == pytest.approx(
        [1.5 * (1 + math.cos(math.pi * done)) for done in expected[1:]]
    )
    assert "restarted at step 5, settings unchanged" in second.output
    back = train(
        tmp_path / "back",
        *flags,
        "trainer.max_epochs=3",
        f"++ckpt_path={second.folder / 'last.ckpt'}",
    )
    assert back.column(column) == pytest.approx(
        [1.5 * (1 + math.cos(math.pi * (9 + k) / 12)) for k in range(4)] + [0.0]
    )
