"""The model of the tests in every form, made by NequIP's own commands."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support import commands, elsewhere
from tests.support.shared import shared


def made(
    factory: pytest.TempPathFactory,
    name: str,
    file: str,
    make: Callable[[Path], object],
) -> Path:
    """A file that ``make`` writes, in a shared folder of this name."""
    return shared(factory, name, lambda folder: make(folder / file)) / file


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The same model as a package."""
    make = partial(commands.package_model, checkpoint)
    return made(tmp_path_factory, "packaged", "model.nequip.zip", make)


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The same model as TorchScript."""
    make = partial(commands.script_model, checkpoint)
    return made(tmp_path_factory, "scripted", "script.nequip.pth", make)


def compiled_for(
    target: str, factory: pytest.TempPathFactory, checkpoint: Path
) -> Path:
    """The same model compiled for a target."""
    make = partial(commands.compile_model, checkpoint, target)
    return made(factory, target, f"{target}.nequip.pt2", make)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The same model compiled for ase."""
    return compiled_for("ase", tmp_path_factory, checkpoint)


@pytest.fixture(scope="session")
def batched(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The same model compiled for batches."""
    return compiled_for("batch", tmp_path_factory, checkpoint)


@pytest.fixture(scope="session")
def for_lammps(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The same model compiled for LAMMPS."""
    return compiled_for("pair_allegro", tmp_path_factory, checkpoint)


@pytest.fixture(scope="session")
def clean_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a virtual environment without this package."""
    return elsewhere.clean_python(tmp_path_factory.mktemp("clean") / "venv")
