"""RESULTS.md and its figures, from the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from nequip_decorr.errors import UserError
from nequip_decorr.md.results import write_atomic
from nequip_decorr.plotting import save_figure

from . import analysis as a
from .analysis import Estimate, Record
from .answers import answers
from .figures import (
    CONDITION_NAMES,
    forest_figure,
    scatter_figure,
    survival_figure,
)
from .models import DECORRELATED, SECTIONS, VARIANTS

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Row:
    """One variant of a grid; estimates are ratios to no extension, but for the
    difference of mean times (ps).
    """

    variant: str
    seeds: int
    time: Estimate | None
    mean_time: Estimate | None
    force: Estimate | None
    force_out: Estimate | None
    energy: Estimate | None
    energy_out: Estimate | None
    beyond: Estimate | None
    cpu: Estimate | None
    rdf: Estimate | None
    barrier: Estimate | None
    by_condition: list[Estimate | None]
    rho: float
    rank: float
    surviving: str
    drift: str


def row_of(records: Sequence[Record], variant: str, conditions: Sequence[str]) -> Row:
    """Everything about one variant."""
    models = list(a.by_seed(records, variant).values())

    def ratio(quantity: a.Quantity) -> Estimate | None:
        return a.ratio(records, variant, quantity)

    beyond = a.beyond_error(records, variant)
    return Row(
        variant=variant,
        seeds=len(models),
        time=ratio(lambda r: float(np.exp(a.log_time(r)))),
        mean_time=a.paired(records, variant, a.mean_time),
        force=ratio(a.force_error),
        force_out=ratio(a.force_error_out),
        energy=ratio(a.energy_error),
        energy_out=ratio(a.energy_error_out),
        beyond=beyond.exp() if beyond else None,
        cpu=ratio(lambda r: r.data["cpu_s"]),
        rdf=ratio(a.rdf_error),
        barrier=ratio(a.barrier),
        by_condition=[
            ratio(lambda r, c=c: float(np.exp(a.log_time(r, [c])))) for c in conditions
        ],
        rho=float(np.mean([a.mean_correlation(r) for r in models])),
        rank=float(np.mean([a.effective_rank(r) for r in models])),
        surviving="{} of {}".format(*a.survivors(models)),
        drift=mean_drift(models),
    )


def mean_drift(models: Sequence[Record]) -> str:
    """Mean size of the NVE drift of all trajectories, and how many failed."""
    slopes = [s for r in models for s in r.data["nve_drift"]]
    sizes = [abs(s) for s in slopes if s is not None]
    failed = len(slopes) - len(sizes)
    mean = f"{np.mean(sizes):.2g}" if sizes else "-"
    return f"{mean}; {failed} of {len(slopes)} failed" if failed else mean


def rank_table(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Spearman's correlations with the time to failure."""
    errors = (a.force_error, a.force_error_out)
    with_term = [r for r in records if r.variant in DECORRELATED]

    def rank(
        of: Sequence[Record], quantity: a.Quantity, given: Sequence[a.Quantity] = ()
    ) -> Estimate | None:
        try:
            return a.rank_correlation(of, quantity, a.log_time, given)
        except UserError:
            return None  # too few models of one seed

    quantities = {
        "mean \\|rho\\|": (a.mean_correlation, errors),
        "effective rank": (a.effective_rank, errors),
        "force error in distribution": (a.force_error, ()),
        "force error out of distribution": (a.force_error_out, ()),
        "barrier in Hf-Hf scans": (a.barrier, errors),
    }
    return [
        {
            "name": name,
            "plain": rank(records, quantity),
            "within": rank(with_term, quantity),
            "partial": rank(records, quantity, given) if given else None,
        }
        for name, (quantity, given) in quantities.items()
    ]


def grid_section(records: Sequence[Record], grid: str, out: Path) -> dict[str, Any]:
    """One section: its tables, and its figures written beside them."""
    present = {r.variant for r in records}
    variants = [v for v in VARIANTS if v in present]
    compared = [v for v in variants if v != a.BASELINE]
    conditions = records[0].conditions
    base = [r for r in records if r.variant == a.BASELINE]
    many = len(variants) > 5
    shown = [a.BASELINE, *_shown(_of_most_seeds(compared, records), records)]
    figures = {
        "survival": (
            survival_figure(_of_common_seeds(shown, records), shown),
            "Surviving replicas against time, out of distribution",
        )
    }
    if many:
        figures["forest"] = (forest_figure(records), "Time to failure and force error")
        figures["scatter"] = (
            scatter_figure(records),
            "Time to failure against correlation, force error and barrier",
        )
    section: dict[str, Any] = {
        "title": SECTIONS[grid][0],
        "text": SECTIONS[grid][1],
        "rows": [row_of(records, v, conditions) for v in variants],
        "conditions": [CONDITION_NAMES[c] for c in conditions],
        "base": {
            "force": np.mean([a.force_error(r) for r in base]),
            "force_out": np.mean([a.force_error_out(r) for r in base]),
            "energy": 1e3 * np.mean([a.energy_error(r) for r in base]),
            "energy_out": 1e3 * np.mean([a.energy_error_out(r) for r in base]),
            "mean_time": np.mean([a.mean_time(r) for r in base]),
            "rho": np.mean([a.mean_correlation(r) for r in base]),
            "time": np.exp(np.mean([a.log_time(r) for r in base])),
            "surviving": "{} of {}".format(*a.survivors(base)),
        },
        "figures": [],
        "ranks": rank_table(records) if many else [],
    }
    for name, (figure, text) in figures.items():
        file = f"{grid}_{name}.png"
        save_figure(figure, out / file)
        section["figures"].append({"file": file, "alt": text})
    return section


def _of_most_seeds(variants: Sequence[str], records: Sequence[Record]) -> list[str]:
    """Pooled replicas of a few seeds do not compare with those of many."""
    seeds = {v: len(a.by_seed(records, v)) for v in variants}
    return [v for v in variants if seeds[v] == max(seeds.values())]


def _of_common_seeds(
    variants: Sequence[str], records: Sequence[Record]
) -> list[Record]:
    common = set.intersection(*(set(a.by_seed(records, v)) for v in variants))
    return [r for r in records if r.seed in common]


def _shown(variants: Sequence[str], records: Sequence[Record]) -> list[str]:
    """Of many variants those that a survival figure shows."""
    if len(variants) <= 4:
        return list(variants)
    few = ["cosine-down", "constant-0.3", "sam", "epochs-40"]
    chosen = [v for v in few if v in variants]
    if any(v in DECORRELATED for v in variants):
        best = a.best_variant(records)
        chosen = [best, *(v for v in chosen if v != best)]
    return [*chosen, *(v for v in variants if v not in chosen)][:4]


def machines(records: Sequence[Record]) -> str:
    """Machines, versions and commits of all records, one line."""
    kinds, commits = set(), set()
    for r in records:
        machine = r.data["machine"]
        versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
        kinds.add(
            f"{machine['processor']}, {machine['cores']} cores, {machine['device']}; "
            f"Python {machine['python']}, {versions}"
        )
        commits.add(r.data["commit"])
    return f"{' and '.join(sorted(kinds))}; commit {', '.join(sorted(commits))}"


def write_results(records: Sequence[Record], out: Path) -> Path:
    """Write RESULTS.md into ``out``; returns its path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )
    text = environment.get_template("results.md.j2").render(
        count=len(records),
        horizon=f"{max(r.data['scale']['horizon_ps'] for r in records):g}",
        machine=machines(records),
        seeds=", ".join(map(str, sorted({r.seed for r in records}))),
        answers=answers(records),
        grids=[
            grid_section(of_grid, grid, out)
            for grid in SECTIONS
            # everything is relative to the baseline
            if (of_grid := a.of_section(records, grid))
            and any(r.variant == a.BASELINE for r in of_grid)
        ],
    )
    path = out / "RESULTS.md"
    write_atomic(path, text)
    return path
