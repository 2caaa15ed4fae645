"""``nequip-decorr compare A.json B.json ...``: parse, call, write."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nequip_decorr.cli.result_files import labels, result_file
from nequip_decorr.errors import UserError
from nequip_decorr.md.report.answer import survivals_of
from nequip_decorr.md.report.figures import survival_figure
from nequip_decorr.md.report.tables import number
from nequip_decorr.md.results import KINDS, RunResult, load
from nequip_decorr.md.statistics.common_window import (
    CommonWindow,
    compare_common_window,
)
from nequip_decorr.md.statistics.comparison import (
    Comparison,
    Effect,
    KindComparison,
    compare_runs,
)
from nequip_decorr.md.statistics.survival import Survival
from nequip_decorr.md.statistics.verdict import NOT_THE_RECIPE
from nequip_decorr.md.statistics.wording import (
    bounded,
    error_words,
    p_words,
    ratio_words,
)
from nequip_decorr.paths import user_path
from nequip_decorr.plotting import check_figure_path, save_figure
from nequip_decorr.printing import say

#: survival of each run, by kind of event and name of the run
BothKinds = Mapping[str, Mapping[str, Survival]]

#: errors over a common window of time, and notes on what was not compared
Accuracy = tuple[list[CommonWindow], list[str]]

TITLES = {
    "unphysical": "Unphysical geometry: overlap, dissociation",
    "explosion": "Explosion: non-finite values, blow-up, runaway, exception",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULT",
        help="result files of `nequip-decorr md` or `judge`, or their folders; the "
        "first is compared with each of the others",
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of tables"
    )
    parser.add_argument(
        "--plot",
        type=user_path,
        metavar="FILE",
        help="write the survival curves to a .png, .svg or .pdf file",
    )


def run(args: argparse.Namespace) -> int:
    """Compare, print, plot; returns the exit status."""
    if len(args.results) < 2:
        raise UserError(
            f"expected at least two results to compare, got {len(args.results)}; "
            "add another one"
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
    survivals = by_run(names, runs)
    accuracies = [
        compare_common_window(
            (runs[0], other), (paths[0].parent, path.parent), (names[0], name)
        )
        for other, path, name in zip(runs[1:], paths[1:], names[1:], strict=True)
    ]
    if args.plot is not None:
        shown = curves(survivals, comparisons)
        if shown:
            save_figure(survival_figure(shown), args.plot)
        else:
            print(
                f"nequip-decorr compare: no figure {args.plot}: no kind of event was "
                "followed in all runs",
                file=sys.stderr,
            )
    if args.json:
        print(as_json(survivals, comparisons, accuracies))
    else:
        print_tables(Console(), runs[0], survivals, comparisons, accuracies)
    return 0


def by_run(names: Sequence[str], runs: Sequence[RunResult]) -> BothKinds:
    """Survival in each run, at each of its temperatures if there are several."""
    found: dict[str, dict[str, Survival]] = {kind: {} for kind in KINDS}
    for name, result in zip(names, runs, strict=True):
        for kind, by_temperature in survivals_of(result).items():
            for where, survival in by_temperature.items():
                label = name if len(by_temperature) == 1 else f"{name}, {where}"
                found[kind][label] = survival
    return found


def curves(
    survivals: BothKinds, comparisons: Sequence[Comparison]
) -> dict[str, Survival]:
    """Curves of the kinds that were followed in all runs, by label."""
    followed = [
        kind
        for kind in KINDS
        if all(c.kinds[kind].overall is not None for c in comparisons)
    ]
    return {
        name if len(followed) == 1 else f"{name}, {kind}": survival
        for kind in followed
        for name, survival in survivals[kind].items()
        if survival.known
    }


def as_json(
    survivals: BothKinds,
    comparisons: Sequence[Comparison],
    accuracies: Sequence[Accuracy],
) -> str:
    """All numbers of the tables as JSON."""
    return json.dumps(
        {
            "runs": {
                kind: {
                    name: {"known": survival.known, **asdict(survival)}
                    for name, survival in by_run.items()
                }
                for kind, by_run in survivals.items()
            },
            "comparisons": [
                asdict(comparison)
                | {"distributions": [asdict(each) for each in measured]}
                for comparison, (measured, _) in zip(
                    comparisons, accuracies, strict=True
                )
            ],
        },
        indent=1,
        allow_nan=False,
    )


def print_tables(
    console: Console,
    first: RunResult,
    survivals: BothKinds,
    comparisons: Sequence[Comparison],
    accuracies: Sequence[Accuracy],
) -> None:
    """Print tables, verdicts and notes of each kind of event, and the accuracy."""
    show = partial(say, console, wrap=True)
    show(f"{first.ensemble}, {first.timestep_fs:g} fs, horizon {first.horizon_ps:g} ps")
    for kind in KINDS:
        show(f"\n{TITLES[kind]}", style="bold")
        found = [(c.names, c.kinds[kind]) for c in comparisons]
        if any(each.overall is not None for _, each in found):
            console.print(_runs_table(survivals[kind]))
            console.print(_pairs_table(found))
        for _, each in found:
            show(f"{kind}: {each.verdict}", style="bold")
            if each.overall is not None and each.overall.ratio.known:
                show(f"  time ratio from {each.overall.ratio.basis}")
            for note in each.notes:
                show(f"  note: {note}")
    for comparison, (measured, _) in zip(comparisons, accuracies, strict=True):
        for window in measured:
            show(f"\n{_accuracy_title(window)}", style="bold")
            console.print(_accuracy_table(comparison.names, window))
    show("")
    for comparison, (_, missing) in zip(comparisons, accuracies, strict=True):
        if comparison.agreement is not None:
            show(comparison.agreement, style="bold")
        for note in (*comparison.notes, *missing):
            show(f"note: {note}")
    if len(comparisons) > 1:
        show(
            f"note: {len(comparisons)} comparisons; intervals are not corrected for "
            "their number"
        )
    show(f"note: {NOT_THE_RECIPE}")


def _runs_table(survivals: Mapping[str, Survival]) -> Table:
    table = _table("run", "failed", "score [95 %]", "S(tau) [95 %]", "median ps")
    for name, survival in survivals.items():
        median, n = survival.median_ps, survival.n_failures
        estimates = ["?"] * 3
        if survival.known:
            estimates = [
                bounded(survival.score, n),
                bounded(survival.survival_at_tau, n),
                "not reached" if median is None else f"{median:.3g}",
            ]
        table.add_row(Text(name), f"{n}/{survival.n_replicas}", *estimates)
    return table


def _pairs_table(found: Sequence[tuple[tuple[str, str], KindComparison]]) -> Table:
    table = _table("first / second", "failed", "time ratio [95 %]", "p", "score diff.")
    for names, each in found:
        if each.overall is None:
            continue
        table.add_row(Text(" / ".join(names)), *_cells(each.overall))
        if len(each.by_temperature) > 1:
            for kelvin, effect in each.by_temperature.items():
                table.add_row(f"  at {kelvin:g} K", *_cells(effect))
    return table


def _cells(effect: Effect) -> list[str]:
    a, b = effect.failures
    return [
        f"{a}, {b} of {effect.n_pairs}",
        ratio_words(effect.ratio),
        p_words(effect.ratio.sign_flip_p),
        f"{effect.difference.value:+.2f}",
    ]


def _accuracy_title(found: CommonWindow) -> str:
    start, end = found.window_ps
    return (
        f"Error of {found.kind} of {found.formula} at {found.temperature_K:g} K while "
        f"both models were stable, {start:.3g} to {end:.3g} ps"
    )


def _accuracy_table(names: tuple[str, str], found: CommonWindow) -> Table:
    table = _table("pair", *names, "perfect model")
    table.add_row("frames", *map(str, found.n_frames))
    for name, errors in found.pairs.items():
        floors = [number(error.floor, ".3f") for error in errors]
        table.add_row(
            name,
            *(error_words(error.error, error.standard_error) for error in errors),
            floors[0] if floors[0] == floors[1] else ", ".join(floors),
        )
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold", min_width=10)
    for column in others:
        table.add_column(column, justify="right", no_wrap=True)
    return table
