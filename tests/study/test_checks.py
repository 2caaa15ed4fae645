"""Configs of which a study would find out too late that they do not work."""

from __future__ import annotations

from pathlib import Path

import pytest

from nequip_decorr.errors import UserError
from nequip_decorr.study.checks import check_checkpoints
from nequip_decorr.study.compose import Composed, Composer
from tests.support.commands import config_with

PLAIN = "training_module._target_=nequip.train.NequIPLightningModule"
EVERY_OTHER = "+trainer.check_val_every_n_epoch=2"
SAVE = "+trainer.callbacks.0.save_on_train_epoch_end"


def composed(folder: Path, *overrides: str) -> Composed:
    config_with(folder, {})
    return Composer(folder / "mine.yaml").compose(overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        [EVERY_OTHER],
        ["+trainer.check_val_every_n_epoch=null"],
        ["+trainer.val_check_interval=0.5"],
        [f"{SAVE}=false"],
        [f"{SAVE}=${{no}}", "+no=false"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_averaged_weights_that_nequip_could_not_load(
    tmp_path: Path, overrides: list[str]
) -> None:
    with pytest.raises(UserError, match="save_on_train_epoch_end to true"):
        check_checkpoints(composed(tmp_path, *overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["+trainer.check_val_every_n_epoch=${every}", "+every=1"],
        [EVERY_OTHER, f"{SAVE}=true"],
        [PLAIN, EVERY_OTHER],
    ],
    ids=["default", "interpolated", "after the epoch", "not averaged"],
)
def test_weights_that_it_can_load(tmp_path: Path, overrides: list[str]) -> None:
    check_checkpoints(composed(tmp_path, *overrides))
