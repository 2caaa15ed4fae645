r"""The data of the HfO2 study: HfOx in cells of 96 atoms, labelled by SevenNet-0.

The teacher labels the frames in distribution, and runs the MD out of it. MD that only
has to reach and to separate such frames is run by a small model trained on the data of
benchmarks/hfox (the sampler), because a step of the teacher takes many times as long::

    cat benchmarks/hfox/data/hfo{2_train,2_2400K,1.56_1200K,1.12_1200K}.extxyz > all.xyz
    nequip-train -cp $PWD/benchmarks/practice -cn sampler run=[train] \
        data.train_file_path=$PWD/all.xyz hydra.run.dir=outputs/sampler
    python -m benchmarks.practice.data sample --model outputs/sampler/best.ckpt
    python -m benchmarks.practice.data label
    python -m benchmarks.practice.data assemble

``label`` needs ``pip install sevenn==0.13.0``. Each frame is saved as it comes; rerun a
command to resume it. MD is chaotic, so another machine makes other frames of the same
kind.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import make_supercell
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.langevinbaoab import LangevinBAOAB

from nequip_decorr.errors import UserError
from nequip_decorr.md.files import write_atomic
from nequip_decorr.md.structures import smallest_height_A, start_momenta

from ..common import enter
from ..hfox.data import POLYMORPHS, teacher, unit_cell

DATA = Path(__file__).parent / "data"
CHECKSUMS = "SHA256SUMS"

#: BAOAB samples positions accurately at this step; the students' MD takes 2 fs.
TIMESTEP_FS = 4.0
FRICTION_PER_FS = 0.02

HAFNIUMS = 32
#: Smallest height of a cell, A: a little more than twice the cutoff of 5 A.
HEIGHT_A = 10.02

IN_DISTRIBUTION = {f"hfo2_{t}K": t for t in (300, 600, 1200)}
#: Temperature (K) and oxygens of each kind.
OUT_OF_DISTRIBUTION = {
    "hfo1.56_1200K": (1200, 50),
    "hfo1.12_1200K": (1200, 36),
    "hfo2_2400K": (2400, 64),
}
#: Runs of each kind out of distribution, in turn of each polymorph.
STRUCTURES = 6

#: In distribution: frames of a run, and steps of the sampler before the first and next.
FRAMES, EQUILIBRATION, EVERY = 118, 125, 8
#: Whole stretches of time, so that no test frame neighbours a training frame.
SPLIT = {"train": slice(0, 90), "val": slice(90, 102), "test": slice(102, 118)}

#: Out of distribution: steps of the sampler, then of the teacher before each frame.
TEST_EQUILIBRATION = 99
TEACHER_STEPS = [18, *[6] * 9]
#: The frame in which MD with students starts; the later ones are test frames.
START = 5

#: Digits that are kept, of A and of eV and eV/A.
POSITION_DIGITS, LABEL_DIGITS = 5, 4


@dataclass(frozen=True)
class Run:
    """MD of one structure at one temperature."""

    group: str
    number: int
    temperature_K: float
    oxygens: int = 2 * HAFNIUMS

    @property
    def name(self) -> str:
        return f"{self.group}_{self.number:02d}"

    @property
    def polymorph(self) -> str:
        return POLYMORPHS[self.number % len(POLYMORPHS)]

    @property
    def is_training(self) -> bool:
        """Whether it is in distribution."""
        return self.group in IN_DISTRIBUTION

    @property
    def sampler_steps(self) -> list[int]:
        """Steps of the sampler before each frame."""
        if self.is_training:
            return [EQUILIBRATION, *[EVERY] * (FRAMES - 1)]
        return [TEST_EQUILIBRATION]

    def rng(self, *numbers: int) -> np.random.Generator:
        """Fixed by the name and the numbers alone."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return np.random.default_rng([int.from_bytes(digest[:4], "big"), *numbers])


def runs() -> list[Run]:
    """Three at each temperature in distribution, six of each kind out of it."""
    made = [
        Run(group, number, temperature)
        for group, temperature in IN_DISTRIBUTION.items()
        for number in range(len(POLYMORPHS))
    ]
    for number in range(STRUCTURES):  # a part of them has every kind
        for group, (temperature, oxygens) in OUT_OF_DISTRIBUTION.items():
            made.append(Run(group, number, temperature, oxygens))
    return made


def crystal_cell(polymorph: str) -> Atoms:
    """Hf32O64, 2 x 2 x 2 of the cell of four formula units."""
    cell = unit_cell(polymorph)
    if polymorph == "tetragonal":  # along the axes of fluorite, as the others
        cell = make_supercell(cell, [[1, 1, 0], [-1, 1, 0], [0, 0, 1]])
    cell = cell.repeat(2)
    return Atoms(cell.symbols, cell.positions, cell=cell.cell, pbc=True)


def start_of(run: Run) -> Atoms:
    """The crystal, less oxygens drawn at random where the composition asks for it.

    Crystals with vacancies are smaller. Their cells are scaled to the smallest height
    that is allowed, which is 2 to 4 % less in volume.
    """
    rng = run.rng()
    atoms = crystal_cell(run.polymorph)
    oxygens = np.flatnonzero(atoms.symbols == "O")
    surplus = len(oxygens) - run.oxygens
    if surplus:
        del atoms[rng.choice(oxygens, surplus, replace=False).tolist()]
        scale = HEIGHT_A / smallest_height_A(atoms)
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
    atoms.rattle(0.02, rng=rng)
    momenta = start_momenta(atoms, run.temperature_K, rng, conserve_total=False)
    atoms.set_momenta(momenta)
    return atoms


def frames_in(folder: Path) -> list[Path]:
    """The frames that were saved, in order."""
    return sorted(folder.glob("*.extxyz"))


def complete(folder: Path, frames: int) -> list[Path]:
    """The frames of a part of a run.

    Raises:
        UserError: if it has not been run to its end.
    """
    found = frames_in(folder)
    if len(found) != frames:
        raise UserError(
            f"expected {frames} frames in {folder}, got {len(found)}; rerun the stage "
            "that makes them"
        )
    return found


def extxyz(frames: Sequence[Atoms]) -> str:
    """Text of an extended XYZ file."""
    buffer = io.StringIO()
    write(buffer, frames, format="extxyz")
    return buffer.getvalue()


def compact(text: str) -> str:
    """The same numbers without padding and trailing zeros."""
    return re.sub(" {2,}", " ", re.sub(r"(\.\d*?)0+(?=\s)", r"\1", text))


def save(path: Path, atoms: Atoms) -> None:
    """Write a frame with momenta, energy (eV) and forces (eV/A), whole or not at all.

    Raises:
        UserError: if the numbers are not finite.
    """
    forces = atoms.get_forces()
    if not np.isfinite(forces).all():
        raise UserError(f"expected finite forces in {path}, got NaN or infinity")
    frame = atoms.copy()
    energy = atoms.get_potential_energy()
    frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, extxyz([frame]))


def simulate(
    folder: Path, start: Atoms, calculator: Any, run: Run, steps: Sequence[int]
) -> None:
    """Langevin MD (BAOAB), saving a frame after each of these numbers of steps.

    Continues from the last frame in the folder. The noise before each frame is fixed by
    the run, the folder's name and the frame's number.
    """
    known = frames_in(folder)
    atoms = read(known[-1]) if known else start.copy()
    atoms.calc = calculator
    stage = int.from_bytes(folder.name.encode()[:4], "big")
    for number, length in list(enumerate(steps))[len(known) :]:
        dynamics = LangevinBAOAB(
            atoms,
            TIMESTEP_FS * units.fs,
            temperature_K=run.temperature_K,
            T_tau=units.fs / FRICTION_PER_FS,
            rng=run.rng(stage, number),
        )
        dynamics.run(length)
        save(folder / f"{number:03d}.extxyz", atoms)


def sample(run: Run, folder: Path, calculator: Any) -> None:
    """MD with the sampler."""
    out = folder / run.name / "sampled"
    simulate(out, start_of(run), calculator, run, run.sampler_steps)


def label(run: Run, folder: Path, calculator: Any) -> None:
    """The teacher's part: labels of the sampler's frames, or MD from its last frame."""
    sampled = complete(folder / run.name / "sampled", len(run.sampler_steps))
    out = folder / run.name / "labelled"
    if not run.is_training:
        simulate(out, read(sampled[-1]), calculator, run, TEACHER_STEPS)
        return
    for path in sampled:
        if not (out / path.name).exists():
            atoms = read(path)
            atoms.calc = calculator
            save(out / path.name, atoms)


def published(atoms: Atoms, run: Run) -> Atoms:
    """A frame as it goes into the data: few digits, no momenta."""
    frame = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)
    frame.wrap()
    frame.positions = frame.positions.round(POSITION_DIGITS)
    frame.info = {"run": run.name, "polymorph": run.polymorph, "T_K": run.temperature_K}
    frame.calc = SinglePointCalculator(
        frame,
        energy=round(atoms.get_potential_energy(), LABEL_DIGITS),
        forces=atoms.get_forces().round(LABEL_DIGITS),
    )
    return frame


def sets_of(run: Run, folder: Path) -> dict[str, list[Atoms]]:
    """Frames of a run by the file that they go to."""
    number = FRAMES if run.is_training else len(TEACHER_STEPS)
    paths = complete(folder / run.name / "labelled", number)
    frames = [published(read(path), run) for path in paths]
    if run.is_training:
        return {f"hfo2_{name}": frames[part] for name, part in SPLIT.items()}
    return {
        run.group: frames[START + 1 :],
        f"{run.group}_start": [frames[START].copy()],  # a copy has no labels
    }


def assemble(folder: Path, out: Path) -> None:
    """Sort the frames of all runs into the files of the study."""
    sets: dict[str, list[Atoms]] = {}
    for run in runs():
        for name, frames in sets_of(run, folder).items():
            sets.setdefault(name, []).extend(frames)
    out.mkdir(parents=True, exist_ok=True)
    for name, frames in sets.items():
        # not compressed: ase takes 15 s to read 450 frames of a .gz
        (out / f"{name}.extxyz").write_text(compact(extxyz(frames)))
    (out / CHECKSUMS).write_text(checksums(out))


def checksums(folder: Path) -> str:
    """One line a file, as ``sha256sum`` writes it."""
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.glob("*.extxyz"))
    )


def sampler(path: Path | None) -> Any:
    """The sampler's calculator.

    Raises:
        UserError: without a path, or if it is no model.
    """
    if path is None:
        raise UserError("expected the sampler's model, got none; add --model FILE")
    from nequip_decorr.md import load_model

    return load_model(path).loaded


STAGES = {"sample": sample, "label": label}


def main() -> None:
    """One stage of the generation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "assemble"))
    parser.add_argument("--model", type=Path, help="the sampler, for `sample`")
    parser.add_argument("--runs", type=Path, default=Path("outputs/practice-runs"))
    parser.add_argument("--out", type=Path, default=DATA)
    args = parser.parse_args()
    if args.stage == "assemble":
        assemble(args.runs, args.out)
        return
    calculator = sampler(args.model) if args.stage == "sample" else teacher()
    for run in runs():
        STAGES[args.stage](run, args.runs, calculator)
        print(f"{args.stage}: {run.name}", flush=True)


if __name__ == "__main__":
    enter(main)
