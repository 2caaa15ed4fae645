"""How fast ``nequip-decorr judge`` reads and tests trajectories.

    python -m benchmarks.cost judge

HfO2 that rattles about its sites, written in each format, and judged in a process of
its own, whose processor time is counted, and whose peak memory is compared with what it
took before it began. All criteria are on that the format has numbers for.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from rich.console import Console

from nequip_decorr.md import Protocol
from nequip_decorr.md.trajectories.judge import judge_trajectories
from nequip_decorr.md.trajectories.opening import Reading
from nequip_decorr.md.trajectories.settings import Request

from ..common import json_lines, machine, markdown

RESULT = Path(__file__).parent / "results" / "judge.md"

#: s for a million atom-frames that a format may take on one core
BOUND_S = 30.0
FORMATS = {
    "LAMMPS dump": "dump.lammpstrj",
    "LAMMPS dump, gz": "dump.lammpstrj.gz",
    "ase .traj": "md.traj",
    "extended XYZ": "md.extxyz",
    "XDATCAR": "XDATCAR",
}
#: repeats of the cubic cell, atoms in it
SIZES = {2: 96, 5: 1500}


class Measured(NamedTuple):
    """One trajectory."""

    format: str
    n_atoms: int
    n_frames: int
    size_mb: float
    seconds: float
    peak_mib: float

    @property
    def per_million_s(self) -> float:
        """Seconds for a million atom-frames."""
        return 1e6 * self.seconds / (self.n_atoms * self.n_frames)


def frames(repeat: int, n: int) -> list[Atoms]:
    """HfO2 near its sites, at 300 K, with forces."""
    start = bulk("HfO2", "fluorite", a=5.08, cubic=True).repeat(repeat)
    rng = np.random.default_rng(0)
    made = []
    for _ in range(n):
        atoms = start.copy()
        atoms.positions += rng.normal(scale=0.05, size=(len(start), 3))
        momenta = rng.normal(size=(len(start), 3))
        atoms.set_momenta(momenta * np.sqrt(0.02585 * atoms.get_masses())[:, None])
        forces = rng.normal(size=(len(start), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces)
        made.append(atoms)
    return made


def write(path: Path, some: list[Atoms], times: int) -> None:
    """Frames over and over; LAMMPS' dumps with steps that go on."""
    if path.name.startswith("dump"):
        _write_dump(path, some, times)
    elif path.name == "XDATCAR":
        ase.io.write(path, [a for _ in range(times) for a in some], "vasp-xdatcar")
    else:
        ase.io.write(path, [a for _ in range(times) for a in some])


def _write_dump(path: Path, some: list[Atoms], times: int) -> None:
    import gzip

    cell = some[0].cell.lengths()
    box = "".join(f"0 {length:.10g}\n" for length in cell)
    texts = []
    for atoms in some:
        table = [
            atoms.positions % cell,
            atoms.get_velocities() * 98.2,
            atoms.get_forces(),
        ]
        rows = np.hstack(table)
        texts.append(
            "".join(
                f"{i} {symbol} " + " ".join(f"{x:.6g}" for x in row) + "\n"
                for i, (symbol, row) in enumerate(
                    zip(atoms.symbols, rows, strict=True), start=1
                )
            )
        )
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt") as handle:
        for number in range(times * len(some)):
            handle.write(
                f"ITEM: TIMESTEP\n{10 * number}\n"
                f"ITEM: NUMBER OF ATOMS\n{len(some[0])}\n"
                f"ITEM: BOX BOUNDS pp pp pp\n{box}"
                "ITEM: ATOMS id element x y z vx vy vz fx fy fz\n"
                f"{texts[number % len(some)]}"
            )


def judge_once(path: Path, out: Path) -> None:
    """In a process of its own: judge, and print time and memory."""
    request = Request(
        paths=(path,),
        reading=Reading(interval_steps=None if path.name.startswith("dump") else 10),
        protocol=Protocol(),
        given=frozenset({"temperatures_K", "timestep_fs"}),
    )
    before_mib, start_s = _peak_mib(), time.process_time()
    result = judge_trajectories(request, out, machine={}, warn=lambda _: None)
    found = {
        "seconds": time.process_time() - start_s,
        "peak_mib": _peak_mib() - before_mib,
        "sound": all(replica.first is None for replica in result.replicas),
    }
    print(json.dumps(found))


def _peak_mib() -> float:
    """Peak memory of this process alone; ``getrusage`` begins with its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (x for x in status.splitlines() if x.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def measure_one(name: str, repeat: int, atom_frames: float, folder: Path) -> Measured:
    """Write and judge a trajectory of about so many atom-frames."""
    some = frames(repeat, 10)
    times = max(round(atom_frames / len(some[0]) / len(some)), 1)
    path = folder / FORMATS[name]
    write(path, some, times)
    command = [sys.executable, "-m", "benchmarks.cost.judge", path, folder / "out"]
    (found,) = json_lines(command)
    if not found["sound"]:
        raise AssertionError(f"{path}: what was written has an event in it")
    return Measured(
        format=name,
        n_atoms=len(some[0]),
        n_frames=times * len(some),
        size_mb=path.stat().st_size / 1e6,
        seconds=found["seconds"],
        peak_mib=found["peak_mib"],
    )


def rows(measured: list[Measured]) -> list[list[str]]:
    """Rows of the table."""
    return [
        [
            one.format,
            str(one.n_atoms),
            str(one.n_frames),
            f"{one.size_mb:.0f}",
            f"{one.seconds:.1f}",
            f"{one.n_atoms * one.n_frames / one.seconds:,.0f}",
            f"{one.per_million_s:.1f}",
            f"{one.peak_mib:+.0f}",
        ]
        for one in measured
    ]


COLUMNS = [
    "format",
    "atoms",
    "frames",
    "MB",
    "s",
    "atom-frames/s",
    "s per million",
    "peak MiB more",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of ``python -m benchmarks.cost judge``."""
    add = parser.add_argument
    add("--atom-frames", type=float, default=1e6, help="in each trajectory")
    add("--out", type=Path, default=RESULT)


def measure(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    console = Console()
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in SIZES:
            for name in FORMATS:
                place = Path(folder) / f"{repeat}-{name.replace(' ', '-')}"
                place.mkdir()
                one = measure_one(name, repeat, args.atom_frames, place)
                console.print(
                    f"{one.format}, {one.n_atoms} atoms: {one.per_million_s:.1f} s for "
                    f"a million atom-frames, {one.peak_mib:+.0f} MiB",
                    highlight=False,
                )
                measured.append(one)
    slowest = max(one.per_million_s for one in measured)
    verdict = "all within" if slowest <= BOUND_S else "not all within"
    text = [
        f"# How fast trajectories are judged\n\n{machine()}.",
        "\n".join(markdown(COLUMNS, rows(measured))),
        f"Processor time of one process, {verdict} the {BOUND_S:g} s for a million "
        "atom-frames that were aimed at. Memory is that beyond the libraries. HfO2 "
        "with all criteria of `solid`; dumps, .traj and XYZ have velocities and "
        "forces. Made by `python -m benchmarks.cost judge`.",
    ]
    args.out.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    console.print(f"written: {args.out}")


if __name__ == "__main__":
    judge_once(Path(sys.argv[1]), Path(sys.argv[2]))
