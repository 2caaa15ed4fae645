"""``nequip-decorr judge``: stability of trajectories that were run elsewhere."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ase import Atoms
from rich.console import Console

from nequip_decorr.cli.finishing import finish
from nequip_decorr.cli.protocols import base_protocol, flagged
from nequip_decorr.errors import UserError
from nequip_decorr.md.presets import PRESETS
from nequip_decorr.md.protocol import ENSEMBLES, Protocol
from nequip_decorr.md.results import RESULT_NAME, load
from nequip_decorr.md.running.session import machine
from nequip_decorr.md.structures import read_structures
from nequip_decorr.md.trajectories.judge import judge_trajectories
from nequip_decorr.md.trajectories.lammps_units import STYLES
from nequip_decorr.md.trajectories.layout import find_replicas, stem_of
from nequip_decorr.md.trajectories.opening import Reading
from nequip_decorr.md.trajectories.settings import Request
from nequip_decorr.paths import user_path
from nequip_decorr.printing import say
from nequip_decorr.species import OPTION, parse_pairs

#: flag -> field of the protocol
FLAGS = {
    "temperature": "temperatures_K",
    "timestep_fs": "timestep_fs",
    "horizon_ps": "horizon_ps",
    "ensemble": "ensemble",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``nequip-decorr judge``."""
    parser.description = (
        "Apply the failure criteria of `nequip-decorr md` to LAMMPS, VASP or ase "
        "trajectories. Each file is one replica, as is each folder that contains a "
        "trajectory; a folder of such folders contributes all of them. A log.lammps "
        "beside a dump is read as well."
    )
    add = parser.add_argument
    add(
        "paths",
        nargs="+",
        type=user_path,
        metavar="PATH",
        help="trajectories (LAMMPS dump, .traj, .extxyz, XDATCAR, vasprun.xml; .gz), "
        "folders of them, or a folder written by `md --write-lammps`",
    )
    add("--temperature", type=float, metavar="K", help="target temperature")
    add(
        "--timestep-fs",
        type=float,
        metavar="FS",
        help="MD time step, if the files lack it",
    )
    add(
        "--frame-interval-steps",
        type=int,
        metavar="N",
        help="MD steps between frames, if the files have no step numbers",
    )
    add(
        "--horizon-ps",
        type=float,
        metavar="PS",
        help="intended length of the simulations (default: that of the longest one)",
    )
    add(
        "--ensemble",
        choices=ENSEMBLES,
        help="ensemble of the simulations (default: langevin)",
    )
    add("--preset", choices=sorted(PRESETS), help="built-in criteria (default: solid)")
    add(
        "--protocol",
        type=user_path,
        metavar="FILE.yaml",
        help="YAML protocol with criteria and, optionally, the settings above",
    )
    add(
        OPTION,
        metavar="TYPE=ELEMENT",
        nargs="+",
        help="elements of LAMMPS atom types, for dumps without an `element` column",
    )
    add(
        "--units",
        choices=STYLES,
        help="LAMMPS unit style (default: from the log or dump, else metal)",
    )
    add(
        "--start",
        type=user_path,
        metavar="FILE",
        help="structure from which all replicas started (default: first frame of each)",
    )
    add(
        "--structures",
        type=int,
        metavar="N",
        help="number of start structures; replicas are assigned to them in order of "
        "name, the same number to each (default: number of different first frames)",
    )
    add(
        "--out",
        type=user_path,
        metavar="DIR",
        help="output folder for result.json and report.html (default: PATH-judged)",
    )


def run(args: argparse.Namespace) -> int:
    """Judge, summarise, report; 0 at the end."""
    protocol, given = protocol_of(args)
    if args.frame_interval_steps is not None and args.frame_interval_steps < 1:
        raise UserError(
            f"expected --frame-interval-steps >= 1, got {args.frame_interval_steps}"
        )
    request = Request(
        paths=tuple(args.paths),
        reading=Reading(
            types=args.atom_types and parse_atom_types(args.atom_types),
            units=args.units,
            interval_steps=args.frame_interval_steps,
            start=_start(args.start),
        ),
        protocol=protocol,
        given=given,
        n_structures=args.structures,
    )
    out = args.out or _free_output(args.paths)
    console, errors = Console(), Console(stderr=True)
    with errors.status("opening files ...") as status:
        result = judge_trajectories(
            request,
            out,
            machine=machine("trajectories", "cpu", 1),
            warn=lambda line: say(errors, f"nequip-decorr judge: warning: {line}"),
            on_replica=lambda name, index, n: status.update(
                f"replica {index + 1} of {n}: {name}"
            ),
        )
    finish(result, out / RESULT_NAME, None, console, command="judge")
    return 0


def protocol_of(args: argparse.Namespace) -> tuple[Protocol, frozenset[str]]:
    """Protocol of preset or file, and flags; and the names that the user has set.

    Raises:
        UserError: as :class:`Protocol`, or for both a preset and a file.
    """
    base, given = base_protocol(args)
    if "preset" in given:
        given = given - {"preset"} | {"criteria"}
    if args.preset:
        given = frozenset({"criteria"})
    changes = flagged(args, FLAGS)
    if "temperatures_K" in changes:
        changes["temperatures_K"] = (changes["temperatures_K"],)
    return replace(base, **changes), given | set(changes)


def parse_atom_types(items: list[str]) -> dict[str, str]:
    """``["1=Hf", "2=O"]`` as ``{"1": "Hf", "2": "O"}``.

    Raises:
        UserError: for anything else, and for a type that is there twice.
    """
    return parse_pairs(items, form="TYPE=ELEMENT", example="1=Hf 2=O")


def default_output(path: Path) -> Path:
    """``T1.5`` and ``runs/a.traj`` become ``T1.5-judged`` and ``a-judged`` here."""
    name = path.resolve().name if path.is_dir() else stem_of(path)
    return Path(f"{name}-judged")


def _free_output(paths: Sequence[Path]) -> Path:
    """The default output folder, unless it has the result of other trajectories.

    Raises:
        UserError: if it has.
    """
    out = default_output(paths[0])
    if (out / RESULT_NAME).is_file():
        source = load(out / RESULT_NAME).source or {}
        before = {Path(name).resolve() for name in source.get("files", ())}
        now = {source.path.resolve() for source in find_replicas(paths).sources}
        if before and not before & now:
            raise UserError(
                f"expected a new folder, got {out} with the result of other "
                f"trajectories, such as {source['files'][0]}; choose another --out"
            )
    return out


def _start(path: Path | None) -> Atoms | None:
    if path is None:
        return None
    structures = read_structures(path)
    if len(structures) != 1:
        raise UserError(
            f"expected one structure in --start, got {len(structures)} in {path}; pick "
            f"one: {path}@0"
        )
    return structures[0]
