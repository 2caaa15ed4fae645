"""Tables of ``evidence.md``, made from the records of ``benchmarks/hfox``.

``python -m docs.evidence_tables`` writes them into the page; a test compares.

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

DOCS = Path(__file__).resolve().parent
RECORDS = DOCS.parent / "benchmarks" / "hfox" / "results" / "records"

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

#: other ways to regularise, beside the term
CONTROLS = {
    "constant-every-4": "`constant`",
    "sam": "sharpness-aware minimisation",
    "sam-half": "the same, half the epochs",
    "epochs-40": "40 epochs of 60",
    "epochs-25": "25 epochs of 60",
    "weight-decay": "weight decay",
    "weight-noise": "weight noise",
}
#: other forms of the term
FORMS = {
    "constant-0.3": "the package's",
    "abs": "mean abs(rho)",
    "decorr-form": "variances evened out too",
    "without-envelope": "cutoff envelope removed first",
    "by-element-pair": "centred by pair of elements",
    "two-body-layer": "two-body layer only",
    "later-layers": "later layers only",
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


def tables(records_folder: Path) -> dict[str, str]:
    """All tables by name."""
    everything = load_records(records_folder)
    confirmed = of_section(everything, "confirmed")
    variants = SECTIONS["confirmed"][1]
    times = table(confirmed, variants, time_ratio, "")
    times.insert(2, f"| {baseline(confirmed)} |")
    explored = of_section(everything, "explored")
    forms = of_section(everything, "forms")
    pages = {
        "controls": "\n".join(table(explored, CONTROLS, time_ratio, "")),
        "forms": "\n".join(table(forms, FORMS, time_ratio, "")),
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
    return {name: text.strip() for name, text in pages.items()}


def updated(page: str, records_folder: Path) -> str:
    """The page with each table between its two comments made anew."""
    for name, text in tables(records_folder).items():
        begin, end = f"<!-- table {name} -->\n\n", "\n\n<!-- end of table -->"
        before, found, rest = page.partition(begin)
        if not found:
            raise ValueError(f"no table {name} in the page")
        page = before + begin + text + end + rest.partition(end)[2]
    return page


if __name__ == "__main__":
    path = DOCS / "evidence.md"
    path.write_text(
        updated(path.read_text(encoding="utf-8"), RECORDS), encoding="utf-8"
    )
