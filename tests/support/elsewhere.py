"""A Python without this package, and scripts in it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tests.support.commands import HUNG_S


def clean_python(folder: Path) -> Path:
    """A virtual environment with everything that is installed here, but not us."""
    venv.create(folder, with_pip=False)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    target = folder / "lib" / version / "site-packages"
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "nequip_decorr" not in entry.name and entry.name != "hydra_plugins":
            (target / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def run_python(python: Path, *arguments: str, cwd: Path) -> str:
    """Run Python to its end, with success; returns what it prints."""
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
