"""What a controller guards: a validation metric that NequIP logs."""

import pytest
import torch
from hydra.utils import instantiate
from nequip.data import AtomicDataDict

from nequip_decorr.errors import UserError
from nequip_decorr.training import nequip_internals as _host
from tests.support import reference
from tests.support.trainings import labels, trainer_with

PER_TYPE = {
    "_target_": "nequip.train.MetricsManager",
    "metrics": [
        {
            "name": "F_MAE",
            "field": "forces",
            "per_type": True,
            "metric": {"_target_": "nequip.train.MeanAbsoluteError"},
        },
    ],
}


def test_the_names_in_validation_are_those_that_nequip_logs(module):
    manager = instantiate(PER_TYPE, type_names=reference.TYPE_NAMES)
    module.val_metrics.append(manager)
    expected = []
    frame = {**labels(), AtomicDataDict.ATOM_TYPE_KEY: torch.tensor([0, 1, 0, 1, 1])}
    for index, each in enumerate(module.val_metrics):
        each(frame, frame)
        expected += each.compute(prefix=f"val{index}_epoch/")
    assert sorted(_host.validation_names(module)) == sorted(expected)
    assert f"val1_epoch/F_MAE_{reference.TYPE_NAMES[0]}" in expected
    assert "val1_epoch/weighted_sum" not in expected


def test_a_guard_needs_a_validation_metric(module):
    trainer = trainer_with()
    _host.check_guard(trainer, module, "val0_epoch/forces_rmse")
    _host.check_guard(trainer, module, "my_validation/force_error")  # of others
    for name in (
        "val0_epoch/force_rmse",
        "val1_epoch/forces_rmse",
        "train_loss_epoch/x",
    ):
        with pytest.raises(UserError, match=f"validation metric, got '{name}'; set"):
            _host.check_guard(trainer, module, name)


@pytest.mark.parametrize(
    ("options", "guarded"),
    [
        ({"check_val_every_n_epoch": 4}, True),
        ({"check_val_every_n_epoch": 9, "max_epochs": -1}, True),
        ({"check_val_every_n_epoch": None, "val_check_interval": 10}, True),
        ({"check_val_every_n_epoch": 5, "fast_dev_run": True}, True),
        ({"check_val_every_n_epoch": 5}, False),
        ({"limit_val_batches": 0}, False),
        ({"limit_val_batches": 0.0}, False),
    ],
)
def test_a_guard_needs_a_validation(module, options, guarded):
    trainer = trainer_with(**options)
    if guarded:
        _host.check_guard(trainer, module, "val0_epoch/forces_rmse")
        return
    with pytest.raises(UserError, match="schedule target needs validations for"):
        _host.check_guard(trainer, module, "val0_epoch/forces_rmse")
