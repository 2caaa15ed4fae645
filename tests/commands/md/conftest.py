"""Models of every kind, made once a session by NequIP's own commands."""

from pathlib import Path

import ase.io
import pytest

from tests.support import commands


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny Allegro model of HfO2, trained for real, if not for long."""
    folder = tmp_path_factory.mktemp("model")
    commands.train(folder, "trainer.max_epochs=12")
    return folder / "last.ckpt"


@pytest.fixture(scope="session")
def package(checkpoint) -> Path:
    """The same model as a package."""
    path = checkpoint.with_name("tiny.nequip.zip")
    made = commands.run(
        "nequip-package", ["build", checkpoint.name, path.name], checkpoint.parent
    )
    assert made.status == 0, made.output
    return path


@pytest.fixture(scope="session")
def compiled(checkpoint) -> Path:
    """The same model compiled for ase."""
    path = checkpoint.with_name("tiny.nequip.pt2")
    return commands.compile_model(checkpoint, "ase", path)


@pytest.fixture(scope="session")
def hfo2(tmp_path_factory) -> Path:
    """Two start structures, large enough for the model's cutoff."""
    path = tmp_path_factory.mktemp("structures") / "hfo2.extxyz"
    frames = ase.io.read(commands.DATA, ":2")
    for atoms in frames:
        atoms.calc = None
    ase.io.write(path, [atoms.repeat((1, 2, 2)) for atoms in frames])
    return path
