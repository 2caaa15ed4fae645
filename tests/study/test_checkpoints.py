"""Checkpoints are found, and belong to the folder in which they are now."""

from __future__ import annotations

import os

import pytest
import torch
import yaml

from nequip_decorr.study import stages
from nequip_decorr.study.checkpoints import best_checkpoint
from tests.support.commands import config_with, run, train, train_arguments


def checkpoint(path, best, **state):
    path.parent.mkdir(parents=True, exist_ok=True)
    state |= {"best_model_path": str(best), "monitor": "val0_epoch/weighted_sum"}
    torch.save({"callbacks": {"ModelCheckpoint{}": state}}, path)


def state_of(path):
    (state,) = torch.load(path, weights_only=False)["callbacks"].values()
    return state


@pytest.mark.parametrize("sub", [".", "checkpoints"])
def test_a_training_resumes_wherever_its_checkpoints_are(tmp_path, sub):
    last = tmp_path / sub / "last.ckpt"
    checkpoint(last, tmp_path / sub / "best.ckpt")
    before = last.read_bytes()
    command = stages.prepare("train", ("nequip-train",), tmp_path)
    assert last.read_bytes() == before
    assert command[-1] == f"++ckpt_path='{last}'"


def test_best_checkpoint_of_a_linked_folder(tmp_path):
    """Lightning resolves links in the paths that it keeps."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    best = tmp_path / "disk" / "train" / "best.ckpt"
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint(best.with_name(name), best)
    found = best_checkpoint(tmp_path / "link" / "train")
    assert found.samefile(best)


def test_best_checkpoint_where_another_callback_writes_the_last(tmp_path):
    """The last one was written before the best of the same epoch."""
    last, best = tmp_path / "last.ckpt", tmp_path / "best-epoch=9.ckpt"
    checkpoint(last, tmp_path / "best-epoch=8.ckpt")  # removed since
    checkpoint(best, best)
    os.utime(last, (1, 1))
    assert best_checkpoint(tmp_path) == best


@pytest.mark.parametrize("sub", [".", "checkpoints"])
@pytest.mark.parametrize("also", [(), ("other",)])
def test_paths_of_a_folder_that_was_moved(tmp_path, sub, also):
    """Also where a second callback writes a file of the same name to a subfolder."""
    old, new = tmp_path / "old", tmp_path / "new"
    last, best = old / sub / "last.ckpt", old / sub / "best.ckpt"
    models = {str(best): 0.5, **{str(old / sub / o / "last.ckpt"): 1.0 for o in also}}
    kept = {"dirpath": str(last.parent), "best_k_models": models}
    kept |= {"last_model_path": str(last), "best_model_score": 0.5}
    for path in (best, last):
        checkpoint(path, best, **kept)
    os.utime(last, (2e9, 2e9))
    old.rename(new)
    assert best_checkpoint(new) == new / sub / "best.ckpt"
    stages.prepare("train", ("nequip-train",), new)
    moved = new / sub / "last.ckpt"
    found = state_of(moved)
    assert found["dirpath"] == str(moved.parent)
    assert found["last_model_path"] == str(moved)
    assert next(iter(found["best_k_models"])) == str(new / sub / "best.ckpt")
    assert str(old) not in str(found)
    assert found["best_model_score"] == 0.5
    assert moved.stat().st_mtime == 2e9
    assert sorted(path.name for path in moved.parent.glob("*.*")) == [
        "best.ckpt",
        "last.ckpt",
    ]


@pytest.mark.slow
def test_a_training_that_goes_on_elsewhere_keeps_its_best_model(tmp_path):
    """Lightning would count the first validation after a move as the best."""
    config = config_with(tmp_path, {})
    callbacks = yaml.safe_load(config.read_text())["trainer"]["callbacks"]
    assert len(callbacks) == 1
    best = {"filename": "best", "monitor": "val0_epoch/weighted_sum", "save_top_k": 1}
    whole = yaml.safe_load(config.read_text())
    whole["trainer"]["callbacks"] = [callbacks[0] | best]
    config.write_text(yaml.safe_dump(whole))
    old, new = tmp_path / "old", tmp_path / "new"
    train(old, config=config)
    # no later epoch can be as good
    content = torch.load(old / "last.ckpt", weights_only=False)
    (state,) = content["callbacks"].values()
    score = torch.tensor(-1.0)
    state |= {"best_model_score": score, "kth_value": score}
    state["best_k_models"] = dict.fromkeys(state["best_k_models"], score)
    torch.save(content, old / "last.ckpt")
    written = (old / "best.ckpt").read_bytes()
    old.rename(new)

    arguments = train_arguments(new, "trainer.max_epochs=3", config=config)
    _, *arguments = stages.prepare("train", ("nequip-train", *arguments), new)
    done = run("nequip-train", arguments, new)
    assert done.status == 0, done.output
    names = sorted(path.name for path in new.glob("*.ckpt"))
    assert names == ["best.ckpt", "last.ckpt"]
    assert (new / "best.ckpt").read_bytes() == written
    steps = torch.load(new / "last.ckpt", weights_only=False)["global_step"]
    assert steps > content["global_step"]
    assert best_checkpoint(new) == new / "best.ckpt"
