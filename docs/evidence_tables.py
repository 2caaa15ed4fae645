"""Tables of ``evidence.md``, made from the records of ``benchmarks/hfox``.

Each condition stands alone: unseen compositions and a higher temperature are different
questions, and a mean over them answers neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.hfox.analysis import (
    IN_DISTRIBUTION,
    Estimate,
    Record,
    by_seed,
    energy_error,
    force_error,
    load_records,
    log_time,
    of_section,
    paired,
    ratio,
)

#: composition and temperature of MD -> heading
CONDITIONS = {
    "hfo1.56_1200K": "HfO1.56, 1200 K",
    "hfo1.12_1200K": "HfO1.12, 1200 K",
    "hfo2_2400K": "HfO2, 2400 K",
}
#: section of the benchmark -> its heading, and the variants that are shown
SECTIONS = {
    "confirmed": (
        "Allegro, 13.7 thousand weights",
        {
            "constant-every-4": "`constant`",
            "constant-0.3": "`constant`, in each step",
            "cosine-down": "`cosine`",
        },
    ),
    "larger": ("Allegro, 54 thousand weights", {"constant-0.3": "`constant`"}),
    "regime": ("the same, 60 frames of 300 and 600 K", {"constant-0.3": "`constant`"}),
    "longer": ("13.7 thousand, three times the epochs", {"constant-0.3": "`constant`"}),
    "longer-confirmed": ("the same, eight other seeds", {"constant-0.3": "`constant`"}),
    "gnn": ("NequIP GNN, radial weights", {"constant-0.3": "`constant`"}),
}

Cell = Callable[[Sequence[Record], str, str], str]


def shown(estimate: Estimate | None, *, none: float = 1.0, sign: str = "") -> str:
    """A value and its interval; bold where the interval excludes ``none``."""
    if estimate is None:
        return "-"
    value = f"{estimate.value:{sign}.2f}"
    if not estimate.low <= none <= estimate.high:
        value = f"**{value}**"
    return f"{value} [{estimate.low:{sign}.2f}, {estimate.high:{sign}.2f}]"


def time_ratio(records: Sequence[Record], variant: str, condition: str) -> str:
    """Ratio of geometric mean times to failure."""
    found = paired(records, variant, lambda r: log_time(r, [condition]))
    return shown(found and found.exp())


def mean_time(records: Sequence[Record], variant: str, condition: str) -> str:
    """Difference of mean times, ps."""
    found = paired(records, variant, lambda r: float(r.times_ps(condition).mean()))
    return shown(found, none=0.0, sign="+")


def survivors(records: Sequence[Record], variant: str, condition: str) -> str:
    """Replicas that reached the horizon with the term, and without it."""
    models, others = by_seed(records, variant), by_seed(records, "none")
    seeds = models.keys() & others.keys()
    counts = []
    for side in (models, others):
        causes = [c for s in seeds for c in side[s].data["md"][condition]["cause"]]
        counts.append(sum(cause is None for cause in causes))
    return f"{counts[0]} and {counts[1]} of {len(causes)}"


def force_ratio(records: Sequence[Record], variant: str, data: str) -> str:
    """Ratio of force errors."""
    return shown(ratio(records, variant, lambda r: force_error(r, data)))


def energy_ratio(records: Sequence[Record], variant: str, data: str) -> str:
    """Ratio of energy errors."""
    return shown(ratio(records, variant, lambda r: energy_error(r, data)))


def baseline(records: Sequence[Record]) -> str:
    """Geometric mean time to failure without the term, ps."""
    none = [r for r in records if r.variant == "none"]
    times = [
        f"{np.exp(np.mean([log_time(r, [condition]) for r in none])):.2f} ps"
        for condition in CONDITIONS
    ]
    return " | ".join(["without the term", *times])


def table(
    records: Sequence[Record],
    variants: dict[str, str],
    cell: Cell,
    in_distribution: str,
) -> list[str]:
    """One row a variant, one column a condition."""
    columns = {**CONDITIONS}
    if in_distribution:
        columns = {in_distribution: "in distribution", **columns}
    lines = [
        "| | " + " | ".join(columns.values()) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for variant, label in variants.items():
        cells = [cell(records, variant, column) for column in columns]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def elsewhere(everything: Sequence[Record], cell: Cell, in_distribution: bool) -> str:
    """One row a section."""
    columns = list(CONDITIONS.values())
    if in_distribution:
        columns = ["in distribution", *columns]
    lines = [
        "| model | seeds | " + " | ".join(columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for section, (label, variants) in SECTIONS.items():
        if section == "confirmed":
            continue
        records = of_section(everything, section)
        for variant in variants:
            data = list(CONDITIONS)
            if in_distribution:
                data = [IN_DISTRIBUTION, *data]
            seeds = len(by_seed(records, variant).keys() & by_seed(records, "none"))
            cells = [cell(records, variant, column) for column in data]
            lines.append(f"| {label} | {seeds} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write(records_folder: Path, out: Path) -> None:
    """Write one file a table into ``out``."""
    everything = load_records(records_folder)
    confirmed = of_section(everything, "confirmed")
    variants = SECTIONS["confirmed"][1]
    times = table(confirmed, variants, time_ratio, "")
    times.insert(2, f"| {baseline(confirmed)} |")
    pages = {
        "times": "\n".join(times),
        "means": "\n".join(table(confirmed, variants, mean_time, "")),
        "forces": "\n".join(table(confirmed, variants, force_ratio, IN_DISTRIBUTION)),
        "energies": "\n".join(
            table(confirmed, variants, energy_ratio, IN_DISTRIBUTION)
        ),
        "elsewhere_times": elsewhere(everything, time_ratio, False),
        "elsewhere_means": elsewhere(everything, mean_time, False),
        "elsewhere_survivors": elsewhere(everything, survivors, False),
        "elsewhere_forces": elsewhere(everything, force_ratio, True),
        "elsewhere_energies": elsewhere(everything, energy_ratio, True),
    }
    for name, text in pages.items():
        (out / f"{name}.md").write_text(text + "\n", encoding="utf-8")
