"""What is known before a training starts is refused before its first step."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import (
    HUNG_S,
    config_with,
    train,
    train_arguments,
    train_fails,
)

pytestmark = pytest.mark.slow

#: no validation until two epochs have been trained
LATE = ("+trainer.num_sanity_val_steps=0", "+trainer.check_val_every_n_epoch=2")
OWN_NAMES = {
    "_target_": "nequip.train.MetricsManager",
    "metrics": [
        {
            "name": "F_RMSE",
            "field": "forces",
            "coeff": 1.0,
            "metric": {"_target_": "nequip.train.RootMeanSquaredError"},
        },
        {
            "name": "F_MAE",
            "field": "forces",
            "per_type": True,
            "metric": {"_target_": "nequip.train.MeanAbsoluteError"},
        },
    ],
}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("+nequip_decorr=target",),
            "expected `schedule.guard_monitor` to be a validation metric, got "
            "'val0_epoch/forces_rmse'; set it to one of ['val0_epoch/weighted_sum', "
            "'val0_epoch/F_RMSE', 'val0_epoch/F_MAE', 'val0_epoch/F_MAE_Hf', "
            "'val0_epoch/F_MAE_O']",
        ),
        (
            ("+nequip_decorr=target", "+trainer.limit_val_batches=0"),
            "schedule target needs validations for `schedule.guard_monitor` 'val0_e",
        ),
        (
            ("+nequip_decorr=cosine", "trainer.max_epochs=-1"),
            "cannot stretch schedule cosine over a training without an end in steps; "
            "set trainer.max_steps or `schedule.stop`",
        ),
        (
            ("+nequip_decorr=cosine", "nequip_decorr.schedule.delay=10"),
            "expected the schedule to stop after it starts, got stop 10 <= start 10",
        ),
        (
            ("+nequip_decorr=constant", "nequip_decorr.layer_weights=[0,0,1]"),
            "expected one value in `layer_weights` for each of the 2 layers, got 3",
        ),
    ],
)
def test_before_the_first_step(
    tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    config = config_with(
        tmp_path / "config", {"training_module.val_metrics": OWN_NAMES}
    )
    output = train_fails(tmp_path / "run", *LATE, *flags, config=config)
    assert f"UserError: {message}" in output
    assert not list(tmp_path.rglob("*.ckpt"))
    log = tmp_path / "run" / "metrics.csv"
    assert not log.exists() or "train_loss_step" not in log.read_text()


def test_what_only_measures_guards_nothing(tmp_path: Path) -> None:
    train(
        tmp_path,
        "+nequip_decorr=target",
        "nequip_decorr.schedule.coeff=0",
        "nequip_decorr.schedule.guard_monitor=val0_epoch/none_of_this_name",
    )


MOVED = """
import allegro.model
import nequip.data
import nequip.train.callbacks
from nequip.scripts.train import main

del nequip.data.register_fields, nequip.train.callbacks.SoftAdapt
main()
"""


def test_a_nequip_that_lacks_what_we_rely_upon(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(MOVED)
    arguments = train_arguments(tmp_path, "+nequip_decorr=monitor")
    done = subprocess.run(
        [sys.executable, "train.py", *arguments],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HUNG_S,
    )
    assert done.returncode != 0
    lines = [each for each in done.stderr.splitlines() if "UserError: " in each]
    assert lines, done.stderr
    assert (
        "this NequIP or Lightning lacks nequip.data.register_fields, "
        "nequip.train.callbacks.SoftAdapt, which the decorrelation term needs; found "
        "nequip "
    ) in lines[0]
    assert not list(tmp_path.glob("*.ckpt"))


ITERABLE = '''
"""NequIP's datamodule with a training loader that has no length."""

from nequip.data.datamodule import ASEDataModule
from torch.utils.data import IterableDataset


class Stream(IterableDataset):
    def __init__(self, frames):
        self.frames = frames

    def __iter__(self):
        return iter(self.frames)


class StreamDataModule(ASEDataModule):
    def train_dataloader(self):
        loader = super().train_dataloader()
        loader_type = type(loader)
        return loader_type(
            Stream(loader.dataset), batch_size=2, collate_fn=loader.collate_fn
        )
'''


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("+nequip_decorr=cosine",), "without an end in steps; set trainer.max_steps"),
        (
            ("+nequip_decorr=cosine", "nequip_decorr.schedule.unit=epoch"),
            [3.0] * 5 + [1.5] * 5,
        ),
        (
            (
                "+nequip_decorr=cosine",
                "nequip_decorr.schedule.kind=linear",
                "+trainer.max_steps=8",
            ),
            [3.0 * (8 - step) / 8 for step in range(8)],
        ),
    ],
)
def test_a_loader_without_a_length(
    tmp_path: Path, flags: tuple[str, ...], expected: str | list[float]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "streams.py").write_text(ITERABLE)
    config = config_with(
        tmp_path / "config", {"data._target_": "streams.StreamDataModule"}
    )
    if isinstance(expected, str):
        assert expected in train_fails(tmp_path / "run", *flags, config=config)
        assert not list(tmp_path.rglob("*.ckpt"))
        return
    run = train(tmp_path / "run", *flags, config=config)
    assert run.column("loss_coeff/edge_correlation") == pytest.approx(expected)
