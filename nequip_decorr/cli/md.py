"""``nequip-decorr md``: run MD replicas with a model and report how stable they are."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

from rich.console import Console

from nequip_decorr.cli.finishing import finish
from nequip_decorr.cli.protocols import base_protocol, flagged
from nequip_decorr.cli.rejudging import parse_limits, run_again
from nequip_decorr.errors import UserError
from nequip_decorr.md.dynamics.engines import ENGINES
from nequip_decorr.md.lammps.write import write_lammps
from nequip_decorr.md.models import model_stem
from nequip_decorr.md.presets import PRESETS
from nequip_decorr.md.protocol import ENSEMBLES, UNTIL, Protocol
from nequip_decorr.md.report.terminal import print_summary
from nequip_decorr.md.results import RESULT_NAME
from nequip_decorr.md.running.run import RunStoppedError, run_stability
from nequip_decorr.md.statistics.rdf import read_reference
from nequip_decorr.paths import user_path
from nequip_decorr.species import OPTION, OPTION_HELP, parse_species_map

#: flag -> field of the protocol, for flags that set one value
FLAGS = {
    "ensemble": "ensemble",
    "temperature": "temperatures_K",
    "ramp_to": "ramp_end_temperature_K",
    "timestep_fs": "timestep_fs",
    "horizon_ps": "horizon_ps",
    "friction_per_fs": "friction_per_fs",
    "replicas": "replicas",
    "seed": "seed",
    "until": "until",
}

#: flag -> field of the protocol, for flags that switch one on
SWITCHES = {
    "half_step": "half_step_repeat",
    "keep_velocities": "keep_velocities",
    "drop_constraints": "drop_constraints",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``nequip-decorr md``."""
    add = parser.add_argument
    add(
        "model",
        help="checkpoint (.ckpt), package (.nequip.zip) or compiled model "
        "(.nequip.pt2, .nequip.pth); with --rejudge, the folder of a finished run",
    )
    add(
        "structures",
        nargs="?",
        help="start structures, in any format that ase reads (file@0:10 selects "
        "frames); can be omitted if the protocol names them",
    )
    add(
        "--preset",
        choices=sorted(PRESETS),
        help="built-in protocol to start from (default: solid)",
    )
    add(
        "--protocol",
        type=user_path,
        metavar="FILE.yaml",
        help="YAML protocol to start from; other options override it",
    )
    add("--temperature", type=float, nargs="+", metavar="K", help="target temperatures")
    add(
        "--ensemble",
        choices=ENSEMBLES,
        help="MD ensemble (default: that of the preset)",
    )
    add("--ramp-to", type=float, metavar="K", help="final temperature of a ramp")
    add("--timestep-fs", type=float, metavar="FS", help="MD time step")
    add("--horizon-ps", type=float, metavar="PS", help="simulated time per replica")
    add("--friction-per-fs", type=float, metavar="X", help="Langevin friction")
    add(
        "--replicas",
        type=int,
        metavar="N",
        help="replicas per structure and temperature",
    )
    add("--seed", type=int, metavar="N", help="replica k has seed N + k")
    add(
        "--until",
        choices=UNTIL,
        help="end each replica at its first event (default), or record the first "
        "unphysical geometry and continue until it explodes",
    )
    add(
        "--criteria",
        nargs="+",
        metavar="NAME=VALUE",
        help="failure limits, such as max_force_eV_per_A=50; null switches a test off",
    )
    add(
        "--rejudge",
        action="store_true",
        help="rejudge a finished run under other --criteria without rerunning it",
    )
    add(
        "--half-step",
        action="store_true",
        help="rerun each event from the last good frame at half the time step",
    )
    add(
        "--keep-velocities",
        action="store_true",
        help="start from the velocities in the structure file instead of random ones",
    )
    add(
        "--drop-constraints",
        action="store_true",
        help="free atoms that are fixed in the structure file",
    )
    add(OPTION, metavar="ELEMENT=TYPE", nargs="+", help=OPTION_HELP)
    add(
        "--engine",
        choices=sorted(ENGINES),
        default="ase",
        help="ase (default) runs replicas one at a time, torchsim in batches",
    )
    add("--device", default="cpu", help="cpu (default) or cuda")
    add(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="worker processes (default: 1)",
    )
    add(
        "--reference",
        type=user_path,
        metavar="FILE",
        help="reference trajectory, or table of pair distributions, to compare with",
    )
    add(
        "--out",
        type=user_path,
        metavar="DIR",
        help="output folder (default: MODEL-md); an unfinished run in it is resumed",
    )
    add(
        "--write-lammps",
        type=user_path,
        metavar="DIR",
        help="write the replicas as LAMMPS runs to a new folder instead of running "
        "them; needs a model compiled for pair_allegro or pair_nequip",
    )


def run(args: argparse.Namespace) -> int:
    """Run; 0 at the end, 130 when interrupted, 2 when stopped otherwise."""
    if args.rejudge:
        return _rejudge(args)
    protocol = protocol_of(args)
    species_map = args.atom_types and parse_species_map(args.atom_types)
    structures = args.structures or _named_structures(args, protocol)
    if args.write_lammps is not None:
        return _write_lammps(args, structures, protocol, species_map)
    out = args.out or Path(f"{model_stem(args.model)}-md")
    console = Console()
    if args.reference is not None:
        # an unusable file is refused now, not after hours of MD
        read_reference(args.reference)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            result = run_stability(
                args.model,
                structures,
                protocol,
                output=out,
                engine=args.engine,
                device=args.device,
                processes=args.processes,
                chemical_species_to_atom_type_map=species_map,
                console=Console(stderr=True),
            )
    except RunStoppedError as stopped:
        print_summary(stopped.result, out / RESULT_NAME, console)
        print(f"nequip-decorr md: {stopped}", file=sys.stderr)
        return 130 if stopped.reason == "interrupt" else 2
    finish(result, out / RESULT_NAME, args.reference, console, command="md")
    return 0


def protocol_of(args: argparse.Namespace) -> Protocol:
    """The protocol of the command line: preset or file, then flags.

    Raises:
        UserError: as :class:`Protocol`, or for both a preset and a file.
    """
    base, _ = base_protocol(args)
    changes = flagged(args, FLAGS)
    if "temperatures_K" in changes:
        changes["temperatures_K"] = tuple(changes["temperatures_K"])
    changes |= {name: True for flag, name in SWITCHES.items() if getattr(args, flag)}
    if args.criteria:
        changes["criteria"] = parse_limits(args.criteria)
    return Protocol.from_dict(changes, base=base)


def _rejudge(args: argparse.Namespace) -> int:
    if args.reference is not None:
        read_reference(args.reference)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    console = Console()
    result, path = run_again(args, parser.parse_args([args.model]), console)
    finish(result, path, args.reference, console, command="md")
    return 0


def _write_lammps(
    args: argparse.Namespace,
    structures: str,
    protocol: Protocol,
    species_map: dict[str, str] | None,
) -> int:
    """Write LAMMPS runs instead of running."""
    if args.out is not None or args.reference is not None:
        raise UserError(
            "--write-lammps has its own output folder and runs nothing; leave out "
            "--out and --reference"
        )
    folder: Path = args.write_lammps
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        written = write_lammps(
            args.model,
            structures,
            protocol,
            folder,
            device=args.device,
            chemical_species_to_atom_type_map=species_map,
        )
    plural = "s" if len(written) > 1 else ""
    print(
        f"{len(written)} replica{plural} written to {folder}\n"
        f"run:   sh {folder / 'run.sh'}   (or sbatch job.slurm in it)\n"
        f"judge: nequip-decorr judge {folder}"
    )
    return 0


def _named_structures(args: argparse.Namespace, protocol: Protocol) -> str:
    if protocol.structures is None:
        raise UserError(
            "expected start structures, got none; give them after the model "
            "or as `structures:` in the protocol"
        )
    base = args.protocol.parent if args.protocol else Path()
    return str(base / user_path(protocol.structures))


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"nequip-decorr md: warning: {message}", file=sys.stderr)
