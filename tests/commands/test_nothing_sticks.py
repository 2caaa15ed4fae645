"""What a decorrelated training leaves loads and predicts without the package."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest

from tests.support.commands import (
    DATA,
    HERE,
    HUNG_S,
    compile_model,
    config_with,
    run,
    train,
    train_arguments,
)

pytestmark = pytest.mark.slow

ROOT = HERE.parent.parent
TARGETS = ("ase", "batch", "pair_allegro")


@pytest.fixture(scope="module")
def clean_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with everything that is installed here, but not us."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=False)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    target = folder / "lib" / version / "site-packages"
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "nequip_decorr" not in entry.name and entry.name != "hydra_plugins":
            (target / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A decorrelated model in every form that a user hands on."""
    folder = tmp_path_factory.mktemp("models")
    train(folder, "+nequip_decorr=cosine")
    checkpoint = folder / "last.ckpt"
    package = folder / "model.nequip.zip"
    done = run("nequip-package", ["build", str(checkpoint), str(package)], folder)
    assert done.status == 0, done.output
    found = {"last.ckpt": checkpoint, "model.nequip.zip": package}
    for target in TARGETS:
        path = compile_model(checkpoint, target, folder / f"{target}.nequip.pt2")
        found[path.name] = path
    script = folder / "script.nequip.pth"
    writer = str(HERE / "torchscript.py")
    elsewhere(Path(sys.executable), writer, str(checkpoint), str(script), cwd=folder)
    found[script.name] = script
    return found


def elsewhere(python: Path, *arguments: str, cwd: Path) -> str:
    environment = {
        key: value for key, value in os.environ.items() if key != "PYTHONPATH"
    }
    done = subprocess.run(
        [str(python), *arguments],
        check=False,
        cwd=cwd,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=HUNG_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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
    inside = elsewhere(Path(sys.executable), script, str(here), *common, cwd=tmp_path)
    assert "nequip_decorr is here" in inside
    outside = elsewhere(clean_python, script, str(there), *common, cwd=tmp_path)
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
        output = elsewhere(
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
