"""The flag in every kind of config, with a Trainer class of one's own and without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.commands import (
    DATA,
    HERE,
    HUNG_S,
    Run,
    config_with,
    run,
    train,
    train_fails,
)

pytestmark = pytest.mark.slow

COEFFICIENT = "loss_coeff/edge_correlation"
ONE_EPOCH = "trainer.max_epochs=1"

OWN_TRAINER = """
import lightning


class LoudTrainer(lightning.Trainer):
    def __init__(self, *args, **kwargs):
        print("LOUD TRAINER")
        super().__init__(*args, **kwargs)
"""


def folder_with_trainer(folder: Path) -> Path:
    """The working directory of a run, where Python finds ``own_trainer``."""
    folder.mkdir(parents=True)
    (folder / "own_trainer.py").write_text(OWN_TRAINER)
    return folder


def write_config(path: Path, head: str = "") -> Path:
    """The tiny config below some lines, with a Trainer class of one's own."""
    text = (HERE / "tiny.yaml").read_text().replace("???", str(DATA))
    text = text.replace("lightning.Trainer", "own_trainer.LoudTrainer")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + text)
    return path


def check(run_: Run, coeff: float = 0.3) -> None:
    """The user's Trainer trained with the term, and only the Trainer is saved."""
    assert "LOUD TRAINER" in run_.output
    assert set(run_.column(COEFFICIENT)) == {coeff}
    saved = yaml.safe_load((run_.folder / ".hydra" / "config.yaml").read_text())
    assert saved["trainer"]["_target_"] == "own_trainer.LoudTrainer"
    assert saved["nequip_decorr"]["schedule"]["coeff"] == coeff
    info = run_.checkpoint()["hyper_parameters"]["info_dict"]
    assert info["trainer"]["_target_"] == "own_trainer.LoudTrainer"
    assert b"nequip_decorr" not in (run_.folder / "last.ckpt").read_bytes()


@pytest.fixture(scope="module")
def flagged(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with the flag, whose config names a Trainer class."""
    folder = folder_with_trainer(tmp_path_factory.mktemp("flagged") / "run")
    config = write_config(folder.parent / "mine.yaml")
    return train(folder, "+nequip_decorr=constant", ONE_EPOCH, config=config)


def test_a_trainer_class_in_the_config(flagged: Run) -> None:
    check(flagged)


def test_a_trainer_class_on_the_command_line(tmp_path: Path) -> None:
    own = "trainer._target_=own_trainer.LoudTrainer"
    flags = (
        own,
        "+nequip_decorr=constant",
        "nequip_decorr.schedule.coeff=0.5",
        ONE_EPOCH,
    )
    check(train(folder_with_trainer(tmp_path / "run"), *flags), 0.5)


@pytest.mark.parametrize(
    ("defaults", "coeff"),
    [
        ("[nequip_decorr: constant]", 0.3),
        ("[_self_, nequip_decorr: constant]", 0.3),
        ("[nequip_decorr: constant, _self_]", 0.7),  # ours is below, so it decides
    ],
    ids=["no-self", "self-first", "self-last"],
)
def test_a_line_under_defaults(tmp_path: Path, defaults: str, coeff: float) -> None:
    head = f"defaults: {defaults}\n"
    if coeff == 0.7:
        head += "nequip_decorr: {schedule: {coeff: 0.7}}\n"
    config = write_config(tmp_path / "mine.yaml", head)
    check(train(folder_with_trainer(tmp_path / "run"), ONE_EPOCH, config=config), coeff)


def test_a_config_in_a_subfolder(tmp_path: Path) -> None:
    head = "# @package _global_\ndefaults:\n  - _self_\n  - /nequip_decorr: constant\n"
    write_config(tmp_path / "configs" / "sub" / "mine.yaml", head)
    folder = folder_with_trainer(tmp_path / "run")
    where = ["-cp", str(tmp_path / "configs"), "-cn", "sub/mine"]
    done = run("nequip-train", [*where, f"hydra.run.dir={folder}", ONE_EPOCH], folder)
    assert done.status == 0, done.output
    check(done)


def test_in_the_directory_of_the_run(tmp_path: Path) -> None:
    config = write_config(tmp_path / "mine.yaml")
    flags = ("+nequip_decorr=constant", "hydra.job.chdir=true", ONE_EPOCH)
    check(train(folder_with_trainer(tmp_path / "run"), *flags, config=config))


def test_a_saved_config_trains_the_same(flagged: Run, tmp_path: Path) -> None:
    saved = flagged.folder / ".hydra" / "config.yaml"
    again = train(folder_with_trainer(tmp_path / "run"), config=saved)
    check(again)
    name = "train_loss_step/weighted_sum"
    assert again.column(name) == flagged.column(name)


def test_a_saved_config_restarts(flagged: Run, tmp_path: Path) -> None:
    saved = flagged.folder / ".hydra" / "config.yaml"
    checkpoint = f"++ckpt_path={flagged.folder / 'last.ckpt'}"
    folder = folder_with_trainer(tmp_path / "run")
    rest = train(folder, checkpoint, "trainer.max_epochs=2", config=saved)
    check(rest)
    assert len(rest.column(COEFFICIENT)) == 5


def test_a_saved_config_of_lightnings_trainer(tmp_path: Path) -> None:
    first = train(tmp_path / "first", "+nequip_decorr=cosine", ONE_EPOCH)
    again = train(tmp_path / "run", config=first.folder / ".hydra" / "config.yaml")
    assert again.column(COEFFICIENT) == first.column(COEFFICIENT)


@pytest.mark.parametrize(
    "override",
    ["~trainer.callbacks", "trainer.callbacks=null", "+trainer.fast_dev_run=true"],
)
def test_without_callbacks_of_ones_own(override: str, tmp_path: Path) -> None:
    done = train(tmp_path, "+nequip_decorr=constant", override, ONE_EPOCH)
    assert "2 layers of 8 channels; schedule constant, coefficient 0.3" in done.output
    assert "TRAIN RUN END" in done.output


def test_with_one_callback_that_is_no_list(tmp_path: Path) -> None:
    timer = {"_target_": "lightning.pytorch.callbacks.Timer"}
    config = config_with(tmp_path / "config", {"trainer.callbacks": timer})
    flags = ("+nequip_decorr=constant", ONE_EPOCH)
    done = train(tmp_path / "run", *flags, config=config)
    assert set(done.column(COEFFICIENT)) == {0.3}


TENSORS = ("+nequip_decorr@nequip_decorr_tensors=constant", "+nequip_decorr=cosine")


def test_two_terms(tmp_path: Path) -> None:
    options = ("features=tensors", "name=tensor_correlation")
    chosen = [f"nequip_decorr_tensors.{option}" for option in options]
    both = train(tmp_path, *TENSORS, *chosen, ONE_EPOCH)
    assert both.column(COEFFICIENT)[0] == 3.0
    assert set(both.column("loss_coeff/tensor_correlation")) == {0.3}
    for name in ("edge_correlation", "tensor_correlation"):
        assert both.column(f"train_loss_step/{name}")


def test_a_term_in_the_list_and_the_flag(tmp_path: Path) -> None:
    listed = {"_target_": "nequip_decorr.EdgeDecorrelation", "name": "listed"}
    config = config_with(tmp_path / "config", {"trainer.callbacks": [listed]})
    flags = ("+nequip_decorr=constant", ONE_EPOCH)
    both = train(tmp_path / "run", *flags, config=config)
    assert set(both.column(COEFFICIENT)) == {0.3}
    # without options of its own, it does what the preset `default` does
    first, *others = both.column("loss_coeff/listed")
    assert first == 0
    assert len(set(others)) == len(others) > 1
    assert b"nequip_decorr" not in (both.folder / "last.ckpt").read_bytes()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["+nequip_decorr=cosine", "+nequip_decorr.covff=1"],
            "`nequip_decorr`: unknown option `covff`; did you mean `schedule.coeff`?",
        ),
        (["+nequip_decorr@decorr=cosine"], "got them at `decorr`; choose it as"),
        (["+nequip_decorr@_global_=cosine"], "got them at `_global_`; choose it as"),
        (
            ["+nequip_decorr_tensors=cosine"],
            "expected `nequip_decorr_tensors` to be options of EdgeDecorrelation, "
            "got 'cosine'; choose a preset by",
        ),
        (["+trainer.decorr={coeff: 1}"], "unexpected keyword argument 'decorr'"),
    ],
    ids=["misspelt", "elsewhere", "global", "no-group", "old"],
)
def test_what_would_have_no_effect_is_refused(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    output = train_fails(tmp_path, *overrides)
    assert message in output
    assert not list(tmp_path.glob("*.ckpt"))


SCRIPT = """
import sys
from lightning import Trainer


def callbacks():
    quiet = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = Trainer(**quiet, enable_progress_bar=False, enable_model_summary=False)
    return [type(callback).__name__ for callback in trainer.callbacks]


def heavy():
    names = {"hydra", "omegaconf", "nequip", "nequip_decorr.training.callback"}
    return names & {*sys.modules}


print("alone", callbacks(), heavy())

import hydra


@hydra.main(version_base=None, config_path=None)
def main(config):
    print(config.which, callbacks(), sorted(heavy()))


sys.argv[1:] = ["+which=other", "+trainer.decorr=1", "+nequip.decorr=1"]
main()
sys.argv[1:] = ["+which=chosen", "+nequip_decorr=constant"]
main()
print("afterwards", callbacks())
"""


def test_other_trainers_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HUNG_S,
    )
    assert done.returncode == 0, done.stderr
    assert "alone [] set()\n" in done.stdout
    assert "other [] ['hydra', 'omegaconf']\n" in done.stdout
    assert "chosen ['EdgeDecorrelation'] " in done.stdout
    assert "afterwards []\n" in done.stdout
