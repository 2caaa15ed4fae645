"""What the stages prepare, and what they keep."""

from __future__ import annotations

import os

import pytest
import torch

from nequip_decorr.errors import UserError
from nequip_decorr.study import stages


def checkpoint(path, best):
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"best_model_path": str(best), "monitor": "val0_epoch/weighted_sum"}
    torch.save({"callbacks": {"ModelCheckpoint{}": state}}, path)


@pytest.mark.parametrize("sub", [".", "checkpoints"])
def test_a_training_resumes_wherever_its_checkpoints_are(tmp_path, sub):
    last = tmp_path / sub / "last.ckpt"
    checkpoint(last, tmp_path / sub / "best.ckpt")
    command = stages.prepare("train", ("nequip-train",), tmp_path)
    assert last.is_file()
    assert command[-1] == f"++ckpt_path='{last}'"


def test_a_training_without_a_checkpoint_starts_in_an_empty_folder(tmp_path):
    (tmp_path / "best.ckpt").touch()
    assert stages.prepare("train", ("nequip-train",), tmp_path) == ("nequip-train",)
    assert not list(tmp_path.iterdir())


def test_best_checkpoint_of_a_linked_folder(tmp_path):
    """Lightning resolves links in the paths that it keeps."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    best = tmp_path / "disk" / "train" / "best.ckpt"
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint(best.with_name(name), best)
    found = stages.best_checkpoint(tmp_path / "link" / "train")
    assert found.samefile(best)


def test_best_checkpoint_where_another_callback_writes_the_last(tmp_path):
    """The last one was written before the best of the same epoch."""
    last, best = tmp_path / "last.ckpt", tmp_path / "best-epoch=9.ckpt"
    checkpoint(last, tmp_path / "best-epoch=8.ckpt")  # removed since
    checkpoint(best, best)
    os.utime(last, (1, 1))
    assert stages.best_checkpoint(tmp_path) == best


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_model_that_diverged_fails_its_test(tmp_path, value):
    header = "epoch,test0_epoch/energy_rmse,test0_epoch/forces_rmse"
    (tmp_path / "metrics.csv").write_text(f"{header}\n1,0.1,{value}\n")
    with pytest.raises(UserError, match=f"forces_rmse = {value} on ood; .* diverged"):
        stages.harvest("test", tmp_path, ["ood"])


@pytest.mark.parametrize("stage", ["inspect", "md-hot"])
def test_a_damaged_file_fails_its_task(tmp_path, stage):
    for name in ("inspect.json", "result.json"):
        (tmp_path / name).write_text("{")
    with pytest.raises(UserError):
        stages.harvest(stage, tmp_path, [])
