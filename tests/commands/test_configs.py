"""Every shipped config trains, with the data that it has or with ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from nequip_decorr import EdgeDecorrelation
from nequip_decorr.training.options import all_names
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


@pytest.mark.parametrize(
    ("tutorial", "flag", "found"),
    [
        (
            "allegro",
            ["+nequip_decorr=cosine"],
            "`edge_features`, 3 layers of 64 channels",
        ),
        (
            "nequip",
            ["+nequip_decorr=monitor", "nequip_decorr.features=node_features"],
            "`node_features`, 1 layers of 32 channels",
        ),
    ],
    ids=["allegro", "nequip, by field"],
)
def test_nequips_tutorials_take_the_flag(
    tmp_path: Path, tutorial: str, flag: list[str], found: str
) -> None:
    config = with_our_data(f"{tutorial}_tutorial", tmp_path / "config")
    eager = "training_module.model.compile_mode=eager"
    run = train(tmp_path / "run", *A_FEW, *flag, eager, config=config)
    assert found in run.output


@pytest.mark.parametrize(
    "preset", ["default", "cosine", "constant", "target", "monitor"]
)
def test_a_preset_has_every_option_of_its_kind_to_override(preset: str) -> None:
    with initialize_config_module("nequip_decorr.conf", version_base=None):
        options = compose(overrides=[f"+nequip_decorr={preset}"])["nequip_decorr"]
    given = OmegaConf.to_container(options)
    # nothing is left to defaults, so that each is overridden without a `+`
    assert EdgeDecorrelation(**given).options.settings() == given


@pytest.mark.parametrize(
    ("preset", "changed"),
    [
        (
            "default",
            {"schedule.coeff": 1.0, "schedule.relative": True, "sample.every": 4},
        ),
        ("cosine", {}),
        ("constant", {"sample.every": 4}),
        ("target", {"schedule.level": 0.05}),
        ("monitor", {"schedule.coeff": 0.0}),
    ],
)
def test_what_a_preset_changes(preset: str, changed: dict[str, float]) -> None:
    with initialize_config_module("nequip_decorr.conf", version_base=None):
        options = compose(overrides=[f"+nequip_decorr={preset}"])["nequip_decorr"]
    schedule: dict[str, object] = {"kind": options.schedule.kind}
    if preset == "target":
        schedule["level"] = 0.5
    defaults = EdgeDecorrelation(schedule=schedule).options.settings()
    for group, default in defaults.items():
        given = OmegaConf.to_container(OmegaConf.create({"_": options[group]}))["_"]
        if not isinstance(default, dict):
            assert given == default
            continue
        for name, value in default.items():
            assert given[name] == changed.get(f"{group}.{name}", value)


@pytest.mark.parametrize("given", [{}, {"schedule": None}, {"sample": {"seed": 0}}])
def test_without_a_schedule_it_is_that_of_the_recommended_preset(
    given: dict[str, dict[str, int]],
) -> None:
    with initialize_config_module("nequip_decorr.conf", version_base=None):
        preset = compose(overrides=["+nequip_decorr=default"])["nequip_decorr"]
    expected = EdgeDecorrelation(**OmegaConf.to_container(preset)).options
    assert EdgeDecorrelation(**given).options == expected
    # what is given stays
    other = EdgeDecorrelation(**given | {"sample": {"every": 2}})
    assert other.options.sample.every == 2
    assert other.options.schedule == expected.schedule
    with_schedule = EdgeDecorrelation(schedule={"kind": "constant"}).options
    assert with_schedule.sample.every == 1


def test_all_options_explains_every_option() -> None:
    path = CONFIGS / "all_options.yaml"
    ours = yaml.safe_load(path.read_text())["trainer"]["callbacks"][-1]
    assert ours.pop("_target_") == "nequip_decorr.EdgeDecorrelation"
    assert EdgeDecorrelation(**ours).options.settings() == ours
    cosine = EdgeDecorrelation(schedule={"kind": "cosine"})
    assert EdgeDecorrelation(**ours).options == cosine.options
    for name in all_names():
        assert f" {name.rpartition('.')[2]}:" in path.read_text(), name
