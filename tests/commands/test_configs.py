"""Every shipped config trains, with the data that it has or with ours."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module

from nequip_decorr.training.callback import EdgeDecorrelation
from tests.support.commands import DATA, HERE, train

pytestmark = pytest.mark.slow

ROOT = HERE.parent.parent
CONFIGS = ROOT / "configs"
A_FEW = ("trainer.max_epochs=1", "+trainer.limit_train_batches=2")


@pytest.mark.parametrize("name", ["quickstart", "all_options"])
def test_configs_with_data_run_as_they_are(name: str, tmp_path: Path) -> None:
    frames = f"data_dir={CONFIGS / 'data'}"
    run = train(tmp_path, *A_FEW, frames, config=CONFIGS / f"{name}.yaml")
    decorrelated = "train_loss_epoch/edge_correlation" in run.metrics[0]
    assert decorrelated == (name == "all_options")
    assert run.column("test1_epoch/forces_rmse")


def with_our_data(name: str, folder: Path) -> Path:
    """A tutorial with the test's frames in place of its download; nothing else."""
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    tiny = yaml.safe_load((HERE / "tiny.yaml").read_text())
    tiny["data"]["split_dataset"]["file_path"] = str(DATA)
    config["data"] = {**tiny["data"], "test_dataloader": "${data.val_dataloader}"}
    species = "chemical_symbols" if "chemical_symbols" in config else "model_type_names"
    config[species] = ["Hf", "O"]
    folder.mkdir()
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder / f"{name}.yaml"


def test_the_allegro_tutorial_takes_the_flag(tmp_path: Path) -> None:
    config = with_our_data("allegro_tutorial", tmp_path / "config")
    run = train(
        tmp_path / "run",
        *A_FEW,
        "+nequip_decorr=cosine",
        "training_module.model.compile_mode=eager",
        config=config,
    )
    assert "`edge_features`, 3 layers of 64 channels" in run.output


def test_the_nequip_tutorial_can_be_monitored_by_field(tmp_path: Path) -> None:
    config = with_our_data("nequip_tutorial", tmp_path / "config")
    run = train(
        tmp_path / "run",
        *A_FEW,
        "+nequip_decorr=monitor",
        "nequip_decorr.field=node_features",
        "training_module.model.compile_mode=eager",
        config=config,
    )
    assert "`node_features`, 1 layers of 32 channels" in run.output


@pytest.mark.parametrize(
    ("preset", "changed"),
    [
        ("cosine", set()),
        ("constant", {"schedule", "coeff", "every_n_steps"}),
        ("target", {"schedule", "coeff", "target"}),
        ("monitor", {"schedule", "coeff"}),
    ],
)
def test_presets_name_every_option_with_its_default(
    preset: str, changed: set[str]
) -> None:
    parameters = inspect.signature(EdgeDecorrelation).parameters
    defaults = {key: value.default for key, value in parameters.items()}
    with initialize_config_module("nequip_decorr.conf", version_base=None):
        options = compose(overrides=[f"+nequip_decorr={preset}"])["nequip_decorr"]
    assert set(options) == set(defaults)
    assert {key for key in options if options[key] != defaults[key]} == changed


def test_all_options_explains_every_option() -> None:
    config = yaml.safe_load((CONFIGS / "all_options.yaml").read_text())
    ours = config["trainer"]["callbacks"][-1]
    assert ours.pop("_target_") == "nequip_decorr.EdgeDecorrelation"
    assert set(ours) == set(inspect.signature(EdgeDecorrelation).parameters)
