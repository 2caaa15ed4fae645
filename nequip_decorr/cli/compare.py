"""``nequip-decorr compare A.json B.json ...``: parse, call, write."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nequip_decorr.errors import UserError
from nequip_decorr.md.report.figures import survival_figure
from nequip_decorr.md.results import RESULT_NAME, RunResult, load
from nequip_decorr.md.statistics.comparison import Comparison, compare_runs
from nequip_decorr.md.statistics.score import Interval
from nequip_decorr.md.statistics.survival import Survival, estimate_survival
from nequip_decorr.paths import user_path
from nequip_decorr.plotting import check_figure_path, save_figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULT",
        help="result files of `nequip-decorr md`, or their folders; the first is "
        "compared with each of the others",
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of tables"
    )
    parser.add_argument(
        "--plot",
        type=user_path,
        metavar="FILE",
        help="write the survival curves to a .png or .svg file",
    )


def run(args: argparse.Namespace) -> int:
    """Compare, print, plot; returns the exit status."""
    if len(args.results) < 2:
        raise UserError(
            f"expected at least two results to compare, got {len(args.results)}; "
            "give another one"
        )
    if args.plot is not None:
        check_figure_path(args.plot)
    paths = [result_file(path) for path in args.results]
    names = labels(paths)
    runs = [load(path) for path in paths]
    comparisons = [
        compare_runs(runs[0], other, (names[0], name))
        for other, name in zip(runs[1:], names[1:], strict=True)
    ]
    survivals = {
        name: estimate_survival(result.replicas, result.horizon_ps)
        for name, result in zip(names, runs, strict=True)
    }
    if args.plot is not None:
        save_figure(survival_figure(survivals), args.plot)
    if args.json:
        print(as_json(survivals, comparisons))
    else:
        print_tables(Console(), runs, survivals, comparisons)
    return 0


def result_file(path: Path) -> Path:
    """The result file at a path, or in the run folder at it.

    Raises:
        UserError: when there is none.
    """
    candidate = path / RESULT_NAME if path.is_dir() else path
    if not candidate.is_file():
        raise UserError(
            f"expected a result file of `nequip-decorr md` or its folder, got {path}; "
            "check the path"
        )
    return candidate


def labels(paths: Sequence[Path]) -> list[str]:
    """Short names, one for each file: its folder's or its own, longer if they clash."""
    short = [
        path.resolve().parent.name if path.name == RESULT_NAME else path.stem
        for path in paths
    ]
    if len(set(short)) == len(short):
        return short
    full = [str(path) for path in paths]
    if len(set(full)) < len(full):
        raise UserError("expected different result files, got one of them twice")
    return full


def as_json(survivals: dict[str, Survival], comparisons: Sequence[Comparison]) -> str:
    """All numbers of the tables as JSON."""
    return json.dumps(
        {
            "runs": {name: asdict(survival) for name, survival in survivals.items()},
            "comparisons": [asdict(comparison) for comparison in comparisons],
        },
        indent=1,
        allow_nan=False,
    )


def print_tables(
    console: Console,
    runs: Sequence[RunResult],
    survivals: dict[str, Survival],
    comparisons: Sequence[Comparison],
) -> None:
    """Print the tables, the verdicts and the notes."""
    first = runs[0]
    console.print(
        f"{first.ensemble}, {first.timestep_fs:g} fs, horizon {first.horizon_ps:g} ps",
        highlight=False,
    )
    console.print(_runs_table(survivals))
    console.print(_pairs_table(comparisons))
    for comparison in comparisons:
        console.print(comparison.verdict, style="bold", highlight=False, markup=False)
        for note in comparison.notes:
            console.print(f"  note: {note}", highlight=False, markup=False)
    if len(comparisons) > 1:
        console.print(
            f"  note: {len(comparisons)} comparisons; no interval is widened for that",
            highlight=False,
        )


def _runs_table(survivals: dict[str, Survival]) -> Table:
    table = Table(title="Each run by itself", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("run", overflow="fold", min_width=10)
    for column in ("failed", "score [95 %]", "S(tau) [95 %]", "median ps"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, survival in survivals.items():
        median = survival.median_ps
        table.add_row(
            Text(name),
            f"{survival.n_failures}/{survival.n_replicas}",
            _bounded(survival.score, survival),
            _bounded(survival.survival_at_tau, survival),
            "not reached" if median is None else f"{median:.3g}",
        )
    return table


def _pairs_table(comparisons: Sequence[Comparison]) -> Table:
    table = Table(
        title="Paired: first minus second", title_justify="left", box=SIMPLE_HEAD
    )
    table.add_column("first - second", overflow="fold", min_width=10)
    for column in ("T (K)", "pairs", "score difference [95 %]", "log-rank p"):
        table.add_column(column, justify="right", no_wrap=True)
    for comparison in comparisons:
        p_value = comparison.log_rank.p_value
        table.add_row(
            Text(" - ".join(comparison.names)),
            "all",
            str(comparison.n_pairs),
            _signed(comparison.difference),
            "-" if p_value is None else f"{p_value:.2g}",
        )
        if len(comparison.by_temperature) > 1:
            for kelvin, difference in comparison.by_temperature.items():
                table.add_row("", f"{kelvin:g}", "", _signed(difference), "")
    return table


def _bounded(interval: Interval, survival: Survival) -> str:
    if survival.n_failures == 0:
        return f">= {interval.low:.2f}"
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
