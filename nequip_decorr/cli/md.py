"""``nequip-decorr md``: run MD replicas with a model and say how long they hold."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from nequip_decorr.md.engines import ENGINES
from nequip_decorr.md.presets import PRESETS, preset
from nequip_decorr.md.protocol import ENSEMBLES, Protocol
from nequip_decorr.md.results import CAUSES, Failure, Replica, RunResult
from nequip_decorr.md.run import RunStoppedError, run_stability

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


#: How many failures are printed one by one.
SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``nequip-decorr md``."""
    add = parser.add_argument
    add(
        "model", help="checkpoint, package (.nequip.zip) or compiled model (.pt2, .pth)"
    )
    add(
        "structures",
        nargs="?",
        help="start structures, any file that ase reads (file@0:10 picks); "
        "left out when the protocol names them",
    )
    add("--preset", choices=sorted(PRESETS), help="protocol to start from (solid)")
    add("--protocol", type=Path, metavar="FILE.yaml", help="protocol to start from")
    add("--temperature", type=float, nargs="+", metavar="K", help="one or more")
    add("--ensemble", choices=ENSEMBLES)
    add("--ramp-to", type=float, metavar="K", help="end temperature of a ramp")
    add("--timestep-fs", type=float, metavar="FS")
    add("--horizon-ps", type=float, metavar="PS", help="a replica this old survived")
    add("--friction-per-fs", type=float, metavar="X", help="of Langevin dynamics")
    add("--replicas", type=int, metavar="N", help="of each structure at each T")
    add("--seed", type=int, metavar="N", help="replica k has seed N + k")
    add(
        "--half-step",
        action="store_true",
        help="repeat failures at half the time step, from the last good frame",
    )
    add("--engine", choices=sorted(ENGINES), default="ase")
    add("--device", default="cpu", help="cpu or cuda")
    add("--processes", type=int, default=1, metavar="N")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the run (<model>-md); an unfinished run in it goes on",
    )


def run(args: argparse.Namespace) -> int:
    """Run; 0 at the end, 130 when interrupted."""
    protocol = protocol_of(args)
    structures = args.structures or _named_structures(args, protocol)
    out = args.out or Path(f"{Path(args.model).name.split('.')[0]}-md")
    errors = Console(stderr=True)
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
                console=errors,
            )
    except RunStoppedError as stopped:
        show(stopped.result, out)
        print(f"nequip-decorr md: {stopped}", file=sys.stderr)
        return 130 if stopped.reason == "interrupt" else 2
    show(result, out)
    return 0


def protocol_of(args: argparse.Namespace) -> Protocol:
    """The protocol of the command line: preset or file, then flags.

    Raises:
        ValueError: as :class:`Protocol`, or for both a preset and a file.
    """
    if args.preset and args.protocol:
        raise ValueError(
            "expected --preset or --protocol, got both; "
            "write `preset: NAME` into the file instead"
        )
    base = (
        Protocol.from_yaml(args.protocol)
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
    if args.half_step:
        changes["half_step_repeat"] = True
    return replace(base, **changes)


def show(result: RunResult, out: Path) -> None:
    """Print what happened: a table by temperature, and how each replica failed."""
    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("T / K", "replicas", "survived", "failed", "censored"):
        table.add_column(name, justify="right")
    table.add_column("causes")
    for temperature_K in dict.fromkeys(r.temperature_K for r in result.replicas):
        group = [r for r in result.replicas if r.temperature_K == temperature_K]
        table.add_row(f"{temperature_K:g}", *_counts(group))
    console.print(table)
    failed = [(r, r.failure) for r in result.replicas if r.failure is not None]
    failed.sort(key=lambda pair: pair[0].time_ps)
    for replica, failure in failed[:SHOWN]:
        console.print(_line(replica, failure), markup=False, soft_wrap=True)
    if len(failed) > SHOWN:
        console.print(f"... and {len(failed) - SHOWN} more failures")
    state = "" if result.complete else " (not complete)"
    console.print(f"result: {out / 'result.json'}{state}", soft_wrap=True)


def _counts(group: list[Replica]) -> list[str]:
    causes = Counter(r.failure.cause for r in group if r.failure is not None)
    survived = sum(r.censored_by == "horizon" for r in group)
    failed = sum(causes.values())
    return [
        str(len(group)),
        str(survived),
        str(failed),
        str(len(group) - survived - failed),
        ", ".join(f"{c} {causes[c]}" for c in CAUSES if causes[c]),
    ]


def _line(replica: Replica, failure: Failure) -> str:
    line = (
        f"{replica.time_ps:9.4f} ps  {failure.cause}: {failure.message} "
        f"[{replica.structure_name}, {replica.temperature_K:g} K, seed {replica.seed}"
    )
    if failure.half_step_cause is not None:
        again = failure.half_step_cause
        line += f"; at half the step {'it holds' if again == 'none' else again}"
    return line + "]"


def _named_structures(args: argparse.Namespace, protocol: Protocol) -> str:
    if protocol.structures is None:
        raise ValueError(
            "expected start structures, got none; name them after the model "
            "or as `structures:` in the protocol"
        )
    base = args.protocol.parent if args.protocol else Path()
    return str(base / protocol.structures)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"nequip-decorr md: warning: {message}", file=sys.stderr)
