"""What a decorrelated training leaves loads and predicts without the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.commands import (
    DATA,
    HERE,
    HUNG_S,
    config_with,
    train_arguments,
)
from tests.support.elsewhere import run_python

pytestmark = pytest.mark.slow

ROOT = HERE.parent.parent


@pytest.fixture(scope="module")
def models(
    checkpoint: Path,
    package: Path,
    scripted: Path,
    compiled: Path,
    batched: Path,
    for_lammps: Path,
) -> dict[str, Path]:
    """A decorrelated model in every form that a user hands on."""
    paths = (checkpoint, package, scripted, compiled, batched, for_lammps)
    return {path.name: path for path in paths}


def test_a_copy_that_is_not_installed_is_refused(
    clean_python: Path, tmp_path: Path
) -> None:
    # hydra finds the flag on the Python path, Lightning would not find the callback
    arguments = train_arguments(tmp_path, "+nequip_decorr=constant")
    done = subprocess.run(
        [str(clean_python), "-m", "nequip.scripts.train", *arguments],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HUNG_S,
    )
    assert done.returncode != 0
    assert "nequip-decorr is on the Python path but not installed, or an" in done.stderr
    assert not list(tmp_path.glob("*.ckpt"))


def test_no_file_names_the_package(models: dict[str, Path]) -> None:
    for name, path in models.items():
        assert b"nequip_decorr" not in path.read_bytes(), name


def test_predictions_are_the_same_without_the_package(
    models: dict[str, Path], clean_python: Path, tmp_path: Path
) -> None:
    script = str(HERE / "predict.py")
    paths = [str(path) for path in models.values()]
    here, there = tmp_path / "here.npz", tmp_path / "there.npz"
    common = [str(DATA), *paths]
    inside = run_python(Path(sys.executable), script, str(here), *common, cwd=tmp_path)
    assert "nequip_decorr is here" in inside
    outside = run_python(clean_python, script, str(there), *common, cwd=tmp_path)
    assert "nequip_decorr is not here" in outside
    with np.load(here) as expected, np.load(there) as got:
        assert set(got.files) == set(expected.files)
        assert {name.split(":")[0] for name in got.files} == set(models)
        for name in expected.files:
            assert np.isfinite(expected[name]).all() and expected[name].size
            # one computation twice on one machine: nothing but equality will do
            np.testing.assert_array_equal(got[name], expected[name], err_msg=name)


def test_fine_tuning_without_the_package(
    models: dict[str, Path], clean_python: Path, tmp_path: Path
) -> None:
    for kind, builder, key in (
        ("last.ckpt", "ModelFromCheckpoint", "checkpoint_path"),
        ("model.nequip.zip", "ModelFromPackage", "package_path"),
    ):
        model = {"_target_": f"nequip.model.{builder}", key: str(models[kind])}
        change = {"training_module.model": model, "trainer.max_epochs": 1}
        config = config_with(tmp_path / "config", change, name=builder)
        output = run_python(
            clean_python,
            "-m",
            "nequip.scripts.train",
            "-cp",
            str(config.parent),
            "-cn",
            builder,
            f"hydra.run.dir={tmp_path / builder}",
            cwd=tmp_path,
        )
        assert "TRAIN RUN END" in output
        assert (tmp_path / builder / "last.ckpt").exists()
