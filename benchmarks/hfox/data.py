"""The data of the benchmark: HfOx labelled by SevenNet-0, made by MD with it.

``python -m benchmarks.hfox.data`` regenerates everything, one run per core, and resumes
where it was interrupted (25 minutes on two cores; ``pip install sevenn==0.13.0``).
The files are in the repository with their checksums; MD is chaotic, so another machine
gives other frames of the same kind.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import multiprocessing
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import FIRE
from ase.spacegroup import crystal
from rich.progress import track

from nequip_decorr.errors import UserError

from ..common import enter

DATA = Path(__file__).parent / "data"
CHECKSUMS = "SHA256SUMS"
TIMESTEP_FS = 2.0
FRICTION_PER_FS = 0.02
EVERY = 10  #: steps from one kept frame to the next

POLYMORPHS = ("monoclinic", "tetragonal", "cubic")
STRUCTURES = 16  #: of each kind out of distribution


IN_DISTRIBUTION = {f"hfo2_{t}K": t for t in (300, 600, 1200)}
#: Whole stretches of time, so that no test frame neighbours a training frame.
SPLIT = {"train": slice(0, 15), "val": slice(15, 19), "test": slice(19, 24)}


@dataclass(frozen=True)
class Run:
    """One MD run of the teacher; ``oxygens`` None keeps all of them."""

    group: str
    number: int
    polymorph: str
    cells: tuple[int, int, int]
    temperature_K: float
    oxygens: int | None
    equilibration: int  #: steps
    frames: int

    @property
    def name(self) -> str:
        return f"{self.group}_{self.number:02d}"

    @property
    def seed(self) -> int:
        """Fixed by the name alone."""
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big")


def runs() -> list[Run]:
    """All runs: nine in distribution, 16 of each kind out of it."""
    small = {"monoclinic": (2, 1, 1), "tetragonal": (2, 2, 1), "cubic": (2, 1, 1)}
    large = {"monoclinic": (2, 2, 1), "tetragonal": (2, 2, 2), "cubic": (2, 2, 1)}
    made = [
        Run(group, i, p, small[p], temperature, None, 100, 24)
        for group, temperature in IN_DISTRIBUTION.items()
        for i, p in enumerate(POLYMORPHS)
    ]
    for i in range(STRUCTURES):
        p = POLYMORPHS[i % 3]
        made += [
            Run("hfo1.12_1200K", i, p, large[p], 1200, 18, 100, 6),
            Run("hfo1.56_1200K", i, p, large[p], 1200, 25, 100, 6),
            Run("hfo2_2400K", i, p, small[p], 2400, None, 100, 6),
        ]
    return made


def unit_cell(polymorph: str) -> Atoms:
    """Experimental cells (Ruh and Corfield 1970; Wang, Li and Stevens 1992)."""
    if polymorph == "monoclinic":
        return crystal(
            ["Hf", "O", "O"],
            basis=[
                (0.2759, 0.0396, 0.2082),
                (0.071, 0.332, 0.344),
                (0.4496, 0.7569, 0.4792),
            ],
            spacegroup=14,
            cellpar=[5.117, 5.175, 5.291, 90, 99.2, 90],
        )
    if polymorph == "tetragonal":
        return crystal(
            ["Hf", "O"],
            basis=[(0.75, 0.25, 0.75), (0.25, 0.25, 0.95)],
            spacegroup=137,
            setting=2,
            cellpar=[3.58, 3.58, 5.20, 90, 90, 90],
        )
    return crystal(
        ["Hf", "O"],
        basis=[(0, 0, 0), (0.25, 0.25, 0.25)],
        spacegroup=225,
        cellpar=[5.08, 5.08, 5.08, 90, 90, 90],
    )


def start_of(run: Run, rng: np.random.Generator) -> Atoms:
    """The crystal, less the oxygens that are not wanted, drawn at random."""
    cell = unit_cell(run.polymorph).repeat(run.cells)
    atoms = Atoms(cell.symbols, cell.positions, cell=cell.cell, pbc=True)
    if run.oxygens is not None:
        oxygens = np.flatnonzero(atoms.symbols == "O")
        surplus = len(oxygens) - run.oxygens
        del atoms[rng.choice(oxygens, surplus, replace=False).tolist()]
    atoms.rattle(0.02, rng=rng)
    return atoms


def labelled(atoms: Atoms, run: Run) -> Atoms:
    """A copy with energy (eV), forces (eV/A) and stress (eV/A^3) of the teacher."""
    frame = atoms.copy()
    frame.wrap()
    frame.info = {"run": run.name, "polymorph": run.polymorph, "T_K": run.temperature_K}
    frame.calc = SinglePointCalculator(
        frame,
        energy=atoms.get_potential_energy(),
        forces=atoms.get_forces(),
        stress=atoms.get_stress(),
    )
    frame.set_momenta(np.zeros_like(frame.positions))
    del frame.arrays["momenta"]
    return frame


def simulate(run: Run, calculator: Any) -> list[Atoms]:
    """Relax atoms and volume, equilibrate, keep every tenth step."""
    rng = np.random.default_rng(run.seed)
    atoms = start_of(run, rng)
    atoms.calc = calculator
    relaxed = FrechetCellFilter(atoms, hydrostatic_strain=True)
    FIRE(relaxed, logfile=None).run(fmax=0.3, steps=25)
    MaxwellBoltzmannDistribution(atoms, temperature_K=run.temperature_K, rng=rng)
    dynamics = Langevin(
        atoms,
        TIMESTEP_FS * units.fs,
        temperature_K=run.temperature_K,
        friction=FRICTION_PER_FS / units.fs,
        fixcm=False,
        rng=rng,
    )
    dynamics.run(run.equilibration)
    frames = []
    for _ in range(run.frames):
        dynamics.run(EVERY)
        frames.append(labelled(atoms, run))
    return frames


def make(job: tuple[Run, Path]) -> None:
    """Make one run unless its file is there."""
    run, folder = job
    path = folder / f"{run.name}.extxyz"
    if not path.exists():
        buffer = io.StringIO()
        write(buffer, simulate(run, teacher()), format="extxyz")
        partial = path.with_suffix(".partial")
        partial.write_text(buffer.getvalue())
        partial.replace(path)


def teacher() -> Any:
    """SevenNet-0 on one core of a CPU, made once for each process."""
    global _TEACHER  # noqa: PLW0603 - one model for all runs of a process
    if _TEACHER is None:
        import torch
        from sevenn.calculator import SevenNetCalculator

        torch.set_num_threads(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _TEACHER = SevenNetCalculator("7net-0", device="cpu")
    return _TEACHER


_TEACHER: Any = None


def assemble(folder: Path, out: Path) -> None:
    """Sort the frames of all runs into the files of the benchmark."""
    sets: dict[str, list[Atoms]] = {}
    for run in runs():
        frames: list[Atoms] = read(folder / f"{run.name}.extxyz", ":")
        if run.group in IN_DISTRIBUTION:
            for name, part in SPLIT.items():
                sets.setdefault(f"hfo2_{name}", []).extend(frames[part])
                if run.temperature_K < 1000:
                    cold = sets.setdefault(f"hfo2_cold_{name}", [])
                    cold.extend(frames[part][:10])
        else:
            sets.setdefault(run.group, []).extend(frames)
            # a copy has no labels
            sets.setdefault(f"{run.group}_start", []).append(frames[-1].copy())
    out.mkdir(parents=True, exist_ok=True)
    for name, frames in sets.items():
        write(out / f"{name}.extxyz", frames, format="extxyz")
    (out / CHECKSUMS).write_text(checksums(out))


def checksums(folder: Path) -> str:
    """One line a file, as ``sha256sum`` writes it."""
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.glob("*.extxyz"))
    )


def require_intact(folder: Path = DATA) -> None:
    """Raise unless the files are those that the checksums were made of."""
    if (folder / CHECKSUMS).read_text() != checksums(folder):
        raise UserError(
            f"expected the data in {folder} to match {CHECKSUMS}, got other bytes; "
            "restore them, or make them again with `python -m benchmarks.hfox.data`"
        )


def main() -> None:
    """Make all runs, then the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DATA)
    parser.add_argument("--runs", type=Path, default=Path("outputs/hfox-runs"))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    jobs = [(run, args.runs) for run in runs()]
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.processes) as pool:
        for _ in track(pool.imap(make, jobs), "teacher's MD", total=len(jobs)):
            pass
    assemble(args.runs, args.out)


if __name__ == "__main__":
    enter(main)
