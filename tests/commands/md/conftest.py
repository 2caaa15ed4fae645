"""Start structures for the model of the tests."""

from pathlib import Path

import ase.io
import pytest

from tests.support import commands


@pytest.fixture(scope="session")
def hfo2(tmp_path_factory) -> Path:
    """Two start structures, large enough for the model's cutoff."""
    path = tmp_path_factory.mktemp("structures") / "hfo2.extxyz"
    frames = ase.io.read(commands.DATA, ":2")
    for atoms in frames:
        atoms.calc = None
    ase.io.write(path, [atoms.repeat((1, 2, 2)) for atoms in frames])
    return path
