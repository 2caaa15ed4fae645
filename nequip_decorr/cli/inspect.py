"""``nequip-decorr inspect``: how redundant are the features of a saved model?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from nequip_decorr.inspection.figure import correlation_figure
from nequip_decorr.inspection.measure import inspect_file
from nequip_decorr.inspection.result import Inspection, reading, to_json
from nequip_decorr.paths import check_output_file, user_path, write_output
from nequip_decorr.plotting import check_figure_path, save_figure
from nequip_decorr.printing import say
from nequip_decorr.species import OPTION, OPTION_HELP, parse_species_map
from nequip_decorr.training.features import KINDS

#: ``--json -``, and ``--json`` without a file
STDOUT = Path("-")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nequip-decorr inspect``."""
    parser.description = (
        "Measure how redundant the features of a saved model are on a data file: mean "
        "|rho| between channels, effective rank and dead channels of each layer. Use "
        "frames like those you want to simulate; labels are not used."
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="checkpoint (.ckpt) or package (.nequip.zip)")
    add(
        "data",
        metavar="DATA",
        help="structures, in any format that ase reads (file@0:10 selects frames)",
    )
    add(
        "--json",
        type=user_path,
        metavar="FILE",
        nargs="?",
        const=STDOUT,
        help="write the numbers as JSON to FILE, or to stdout instead of the table",
    )
    add(
        "--plot",
        type=user_path,
        metavar="FILE",
        help="write correlation heat maps and spectra (.png, .svg or .pdf)",
    )
    add("--max-frames", metavar="N", type=int, help="use the first N frames only")
    add(
        "--batch-size",
        metavar="N",
        type=int,
        default=5,
        help="frames per model call (default: 5)",
    )
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    add(OPTION, metavar="ELEMENT=TYPE", nargs="+", help=OPTION_HELP)
    add(
        "--features",
        help=f"{', '.join(KINDS)}, or a scalar field of the model's output (default: "
        "edge for an Allegro model, radial for a NequIP GNN)",
    )
    add(
        "--layer-dim",
        metavar="C",
        type=int,
        help="channels per layer (default: Allegro's own number, or the whole field)",
    )


def run(args: argparse.Namespace) -> int:
    """Inspect, then write what was asked for."""
    if args.plot:
        check_figure_path(args.plot)
    if args.json and args.json != STDOUT:
        # before the model runs over the data
        check_output_file(args.json)
    species_map = args.atom_types and parse_species_map(args.atom_types)
    with _progress(args.max_frames) as on_frames:
        inspection = inspect_file(
            args.model,
            args.data,
            features=args.features,
            layer_dim=args.layer_dim,
            batch_size=args.batch_size,
            max_frames=args.max_frames,
            device=args.device,
            chemical_species_to_atom_type_map=species_map,
            on_frames=on_frames,
        )
    # numbers first: a file that cannot be written costs nothing but that file
    if args.json == STDOUT:
        print(to_json(inspection))
    else:
        _print_table(inspection)
    if args.json and args.json != STDOUT:
        write_output(args.json, to_json(inspection) + "\n")
    if args.plot:
        figure = correlation_figure({Path(args.model).name: inspection})
        save_figure(figure, args.plot)
    if args.json != STDOUT:
        for written in filter(None, (args.json, args.plot)):
            print(f"Written: {written}")
    return 0


def _print_table(inspection: Inspection) -> None:
    table = Table()
    table.add_column("layer")
    for heading in ("mean |ρ|", "RMS ρ", "effective rank", "dead channels"):
        table.add_column(heading, justify="right")
    for layer in inspection.layers:
        table.add_row(
            layer.name,
            f"{layer.mean_abs:.3f}",
            f"{layer.rms:.3f}",
            f"{layer.effective_rank:.1f} of {layer.channels}",
            str(len(layer.dead_channels)),
        )
    console = Console()
    say(
        console,
        f"{inspection.model}: {inspection.field} over {inspection.rows} "
        f"{inspection.row_kind} in {inspection.frames} frames from {inspection.data}",
    )
    console.print(table, highlight=False)
    say(console, reading(inspection), wrap=True)


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[int], object]]:
    """A progress bar on a terminal; nothing in a log file or a pipe."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("frames"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        task = progress.add_task("frames", total=total)
        yield lambda count: progress.advance(task, count)
