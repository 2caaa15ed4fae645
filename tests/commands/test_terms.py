"""Several decorrelation terms at once, and terms that enter or find nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from tests.support.commands import DATA, Run, config_with, train, train_fails

pytestmark = pytest.mark.slow

OURS = "nequip_decorr.EdgeDecorrelation"
IN_ORDER = "data.train_dataloader.shuffle=false"
#: of float32 losses over ten steps of Adam, whose terms are summed in another order
TOLERANCE = 1e-4


def term(
    name: str = "edge_correlation",
    kind: str = "constant",
    schedule: dict[str, object] | None = None,
    **options: object,
) -> dict[str, object]:
    schedule = {"kind": kind, **(schedule or {})}
    return {"_target_": OURS, "name": name, "schedule": schedule, **options}


def with_terms(folder: Path, *terms: dict[str, object]) -> Path:
    return config_with(folder, {"trainer.callbacks": list(terms)})


@pytest.mark.parametrize("features", [None, "tensors"])
def test_a_term_for_each_layer_is_one_term_with_their_weights(
    tmp_path: Path, features: str | None
) -> None:
    common = {"features": features, "sample": {"edges": 100}}
    one = with_terms(
        tmp_path / "a",
        term(schedule={"coeff": 3.0}, layer_weights=[2.0, 1.0], **common),
    )
    two = with_terms(
        tmp_path / "b",
        term("first", schedule={"coeff": 2.0}, layer_weights=[1, 0], **common),
        term("second", schedule={"coeff": 1.0}, layer_weights=[0, 1], **common),
    )
    expected = train(tmp_path / "one", config=one)
    got = train(tmp_path / "two", config=two)
    for name in ("train_loss_step/weighted_sum", "val0_epoch/weighted_sum"):
        assert got.column(name) == pytest.approx(expected.column(name), rel=TOLERANCE)
    # each is measured by itself, as one term that has both layers
    shares = zip(
        got.column("train_loss_epoch/first"),
        got.column("train_loss_epoch/second"),
        strict=True,
    )
    assert [(2 * a + b) / 3 for a, b in shares] == pytest.approx(
        expected.column("train_loss_epoch/edge_correlation"), rel=TOLERANCE
    )
    for name in ("first", "second"):
        key = f"val0_epoch/{name}_layer"
        assert [k for k in got.metrics[-1] if k.startswith(key)]
        assert len(set(got.column(f"val0_epoch/{name}"))) == 2


EDGES = term(kind="cosine")
#: enters now and then, so that its place among the terms of the loss is not that of a
#: training that starts
TENSORS = term(
    "tensors", schedule={"coeff": 0.5}, sample={"every": 3}, features="tensors"
)
LEVEL = term(
    "level",
    "target",
    {"level": 0.05, "coeff": 0.5, "rate": 0.5},
    layer_weights=[0, 1],
)
COLUMNS = ("edge_correlation", "tensors", "level")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("three")
    config = with_terms(folder / "config", EDGES, TENSORS, LEVEL)
    return train(folder / "run", "trainer.max_epochs=3", IN_ORDER, config=config)


def resume(run: Run, folder: Path, *terms: dict[str, object]) -> Run:
    checkpoint = run.folder / "epoch0.ckpt"
    flags = (f"++ckpt_path={checkpoint}", "trainer.max_epochs=3", IN_ORDER)
    return train(folder / "run", *flags, config=with_terms(folder / "config", *terms))


def test_several_terms_resume_bit_by_bit(three: Run, tmp_path: Path) -> None:
    rest = resume(three, tmp_path, EDGES, TENSORS, LEVEL)
    assert rest.output.count("restarted at step 5, settings unchanged") == 3
    for name in COLUMNS:
        column = f"loss_coeff/{name}"
        assert rest.column(column) == three.column(column)[5:]
    expected, got = three.checkpoint()["state_dict"], rest.checkpoint()["state_dict"]
    assert expected.keys() == got.keys()
    for key, value in expected.items():
        if torch.is_tensor(value):
            assert torch.equal(got[key], value), key


def test_energy_and_forces_weigh_what_they_do_without(three: Run) -> None:
    key = "loss._extra_state"
    assert three.checkpoint()["state_dict"][key]["coeff_dict"] == {
        "per_atom_energy_mse": 0.25,
        "forces_mse": 0.75,
    }
    for epoch, step, row in steps(three):
        terms = {"edge_correlation": 1, "level": 1}
        if (step - epoch) % 3 == 0:
            terms["tensors"] = 3
        assert share(row) == pytest.approx(
            sum(
                times
                * float(row[f"loss_coeff/{name}"])
                * float(row[f"train_loss_step/{name}"])
                for name, times in terms.items()
            ),
            abs=1e-5 * float(row["train_loss_step/weighted_sum"]),
        )


def steps(run: Run) -> list[tuple[int, int, dict[str, str]]]:
    """Epoch, number in the epoch and log of each step of a training."""
    rows = [row for row in run.metrics if row["train_loss_step/weighted_sum"]]
    epochs = [int(row["epoch"]) for row in rows]
    return [(e, i - epochs.index(e), rows[i]) for i, e in enumerate(epochs)]


def share(row: dict[str, str]) -> float:
    """What the terms added to the loss of a step; Lightning logs old values again."""
    energy, forces, whole = (
        float(row[f"train_loss_step/{name}"])
        for name in ("per_atom_energy_mse", "forces_mse", "weighted_sum")
    )
    return whole - 0.25 * energy - 0.75 * forces


def test_one_of_several_is_turned_off_and_on_at_a_restart(
    three: Run, tmp_path: Path
) -> None:
    fewer = resume(three, tmp_path / "fewer", EDGES, LEVEL)
    assert fewer.output.count("restarted at step 5, settings unchanged") == 2
    assert "loss_coeff/tensors" not in fewer.metrics[0]
    column = "loss_coeff/edge_correlation"
    assert fewer.column(column) == three.column(column)[5:]
    key = "loss._extra_state"
    state = fewer.checkpoint()["state_dict"][key]
    assert not {*COLUMNS} & {name for values in state.values() for name in values}
    again = train(
        tmp_path / "again" / "run",
        f"++ckpt_path={fewer.folder / 'epoch1.ckpt'}",
        "trainer.max_epochs=3",
        config=with_terms(tmp_path / "again" / "config", EDGES, TENSORS, LEVEL),
    )
    assert again.output.count("restarted at step 10, settings unchanged") == 2
    assert again.output.count("turned on at step 10 of a restarted training") == 1
    assert set(again.column("loss_coeff/tensors")) == {0.5}
    assert again.column(column) == three.column(column)[10:]


def test_nequips_scheduler_of_coefficients_beside_several_terms(
    tmp_path: Path,
) -> None:
    theirs = {
        "_target_": "nequip.train.callbacks.LossCoefficientScheduler",
        "schedule": {1: {"per_atom_energy_mse": 5.0, "forces_mse": 2.0}},
    }
    monitor = {
        "_target_": "nequip.train.callbacks.LossCoefficientMonitor",
        "interval": "batch",
        "frequency": 1,
    }
    alone = with_terms(tmp_path / "a", theirs, monitor)
    together = with_terms(tmp_path / "b", EDGES, theirs, TENSORS, monitor)
    expected = train(tmp_path / "alone", config=alone)
    got = train(tmp_path / "together", config=together)
    for name in ("per_atom_energy_mse", "forces_mse"):
        column = f"loss_coeff/{name}"
        assert len(set(expected.column(column))) > 1
        assert got.column(column) == expected.column(column)


@pytest.mark.parametrize(
    "flags", [(), ("+nequip_decorr=cosine",)], ids=["list", "flag"]
)
def test_two_terms_of_one_name_are_refused(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    listed = [term(), *([] if flags else [term(layer_weights=[1, 0])])]
    config = with_terms(tmp_path / "config", *listed)
    output = train_fails(tmp_path / "run", *flags, config=config)
    assert (
        "UserError: two decorrelation terms are called 'edge_correlation'; set another "
        "`name` for one of them"
    ) in output
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("batch", [2, 5])
def test_every_n_steps_each_batch_of_an_unshuffled_loader_is_met_once(
    tmp_path: Path, batch: int
) -> None:
    run = train(
        tmp_path,
        "+nequip_decorr=constant",
        "nequip_decorr.sample.every=4",
        IN_ORDER,
        f"data.train_dataloader.batch_size={batch}",
        "trainer.max_epochs=4",
    )
    shares = {(epoch, step): share(row) for epoch, step, row in steps(run)}
    batches = 10 // batch
    assert len(shares) == 4 * batches
    met = [step for (_, step), value in shares.items() if value > 0.01]
    assert sorted(met) == list(range(batches))


def lonely_frames(path: Path) -> Path:
    """Frames whose atoms are out of each other's reach."""
    frames = []
    for number in range(4):
        apart = np.diag([0, 20, 40, 60])[:, 1:] + 0.1 * number
        frame = Atoms("Hf2O2", positions=apart, cell=[80] * 3, pbc=True)
        frame.calc = SinglePointCalculator(
            frame, energy=-30.0 - number, forces=np.zeros((4, 3)), stress=np.zeros(6)
        )
        frames.append(frame)
    write(path, frames)
    return path


def test_a_term_that_meets_no_edges_says_so_once(tmp_path: Path) -> None:
    files = (
        "~data.split_dataset",
        f"+data.train_file_path={lonely_frames(tmp_path / 'frames.extxyz')}",
        f"+data.val_file_path={DATA}",
    )
    run = train(tmp_path / "run", "+nequip_decorr=constant", *files)
    assert len(run.column("loss_coeff/edge_correlation")) == 4
    line = "'edge_correlation' found no edges in epoch 0 and had no effect; check the"
    assert run.output.count("had no effect") == 1
    (said,) = [each for each in run.output.splitlines() if line in each]
    assert "[WARNING]" in said


def test_a_term_that_stays_off_says_so(tmp_path: Path) -> None:
    flags = ("+nequip_decorr=constant", "nequip_decorr.schedule.delay=10")
    run = train(tmp_path, *flags)
    assert (
        "'edge_correlation' is never turned on: its `schedule.delay` 10 is not before "
        "the end of the training at 10"
    ) in run.output
    assert "had no effect" not in run.output


def test_a_monitor_of_wide_features_tells_what_it_takes(tmp_path: Path) -> None:
    few = ("+trainer.limit_train_batches=1", "+trainer.limit_val_batches=1")
    wide = ("training_module.model.num_scalar_features=1040", "trainer.max_epochs=1")
    run = train(tmp_path, "+nequip_decorr=monitor", *wide, *few)
    said = "the monitor correlates 1040 channels with each other at each validation"
    (line,) = [each for each in run.output.splitlines() if said in each]
    assert "[WARNING]" in line
    assert "`nequip_decorr.monitor: false`" in line


def test_a_validation_set_without_batches(tmp_path: Path) -> None:
    """As of a loader that drops the last batch, and a set of fewer frames."""
    frames = read(DATA, ":3")
    write(tmp_path / "few.extxyz", frames)
    run = train(
        tmp_path / "run",
        "+nequip_decorr=constant",
        f"+data.val_file_path={tmp_path / 'few.extxyz'}",
        "+data.val_dataloader.drop_last=true",
        "data.split_dataset.val=0",
        "data.split_dataset.train=14",
        "trainer.max_epochs=1",
    )
    assert run.column("loss_coeff/edge_correlation")
