"""``nequip-decorr md``: run MD replicas with a model and report how stable they are."""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from nequip_decorr.errors import UserError
from nequip_decorr.md.dynamics.engines import ENGINES
from nequip_decorr.md.models import model_stem
from nequip_decorr.md.presets import PRESETS, preset, read_protocol
from nequip_decorr.md.protocol import ENSEMBLES, Protocol
from nequip_decorr.md.report.html import write_report
from nequip_decorr.md.report.terminal import print_summary
from nequip_decorr.md.results import RESULT_NAME, RunResult
from nequip_decorr.md.running.run import RunStoppedError, run_stability
from nequip_decorr.md.statistics.fidelity import add_fidelity
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
        help="checkpoint, package (.nequip.zip) or compiled model (.nequip.pt2, "
        ".nequip.pth)",
    )
    add(
        "structures",
        nargs="?",
        help="start structures, in any format that ase reads (file@0:10 selects); "
        "not needed if the protocol names them",
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
        help="YAML protocol to start from",
    )
    add("--temperature", type=float, nargs="+", metavar="K", help="target temperatures")
    add("--ensemble", choices=ENSEMBLES)
    add("--ramp-to", type=float, metavar="K", help="final temperature of a ramp")
    add("--timestep-fs", type=float, metavar="FS")
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
        "--half-step",
        action="store_true",
        help="repeat failures at half the time step, from the last good frame",
    )
    add(
        "--keep-velocities",
        action="store_true",
        help="start from the velocities in the structure file instead of random ones",
    )
    add(
        "--drop-constraints",
        action="store_true",
        help="let atoms move that the structure file fixes",
    )
    add(OPTION, metavar="ELEMENT=TYPE", nargs="+", help=OPTION_HELP)
    add("--engine", choices=sorted(ENGINES), default="ase")
    add("--device", default="cpu", help="cpu or cuda")
    add("--processes", type=int, default=1, metavar="N", help="worker processes")
    add(
        "--reference",
        type=user_path,
        metavar="FILE",
        help="trajectory or table of pair distributions to compare with",
    )
    add(
        "--out",
        type=user_path,
        metavar="DIR",
        help="folder of the run (default: <model>-md); an unfinished run in it is "
        "resumed",
    )


def run(args: argparse.Namespace) -> int:
    """Run; 0 at the end, 130 when interrupted, 2 when stopped otherwise."""
    protocol = protocol_of(args)
    species_map = args.atom_types and parse_species_map(args.atom_types)
    structures = args.structures or _named_structures(args, protocol)
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
    finish(result, out / RESULT_NAME, args.reference, console)
    return 0


def protocol_of(args: argparse.Namespace) -> Protocol:
    """The protocol of the command line: preset or file, then flags.

    Raises:
        UserError: as :class:`Protocol`, or for both a preset and a file.
    """
    if args.preset and args.protocol:
        raise UserError(
            "expected --preset or --protocol, got both; "
            "write `preset: NAME` into the file instead"
        )
    base = (
        read_protocol(args.protocol)
        if args.protocol
        else preset(args.preset or "solid")
    )
    changes: dict[str, Any] = {
        name: getattr(args, flag)
        for flag, name in FLAGS.items()
        if getattr(args, flag) is not None
    }
    if "temperatures_K" in changes:
        changes["temperatures_K"] = tuple(changes["temperatures_K"])
    changes |= {name: True for flag, name in SWITCHES.items() if getattr(args, flag)}
    return replace(base, **changes)


def finish(
    result: RunResult, result_path: Path, reference: Path | None, console: Console
) -> None:
    """Measure the fidelity of a complete run, and write its report.

    Without a reference, an earlier measurement is kept.
    """
    page = result_path.with_name("report.html")
    if reference is not None or result.fidelity is None:
        result = add_fidelity(result, result_path, reference)
    print_summary(result, result_path, console)
    try:
        write_report(result, result_path.parent, page)
    except UserError as error:
        print(f"nequip-decorr md: no report: {error}", file=sys.stderr)
    else:
        console.print(f"report: {page}", highlight=False, soft_wrap=True)


def _named_structures(args: argparse.Namespace, protocol: Protocol) -> str:
    if protocol.structures is None:
        raise UserError(
            "expected start structures, got none; name them after the model "
            "or as `structures:` in the protocol"
        )
    base = args.protocol.parent if args.protocol else Path()
    return str(base / user_path(protocol.structures))


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"nequip-decorr md: warning: {message}", file=sys.stderr)
