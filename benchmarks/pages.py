"""What the pages of results share: tables, units, templates and figures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import jinja2

from nequip_decorr.md.files import write_atomic
from nequip_decorr.study.answers import Answer
from nequip_decorr.study.report.figures import survival_figure
from nequip_decorr.study.report.result import Findings
from nequip_decorr.study.report.rows import ratio

#: What a baseline's value is shown in: factor and unit, by quantity or metric.
UNITS = {
    "time": (1, "ps"),
    "forces_rmse": (1, "eV/A"),
    "per_atom_energy_rmse": (1000, "meV/atom"),
    "training time": (1, "s"),
    "correlation": (1, ""),
}


def in_units(quantity: str, what: str | None, value: float, digits: int) -> str:
    """A value of a quantity, or of an error's metric, with its unit."""
    scale, unit = UNITS[what if quantity == "error" and what else quantity]
    return f"{float(f'{scale * value:.{digits}g}'):g} {unit}".strip()


def baseline(answer: Answer, digits: int) -> str:
    """Geometric mean of the baseline with its unit."""
    question, effect = answer.question, answer.effect
    if effect is None or effect.baseline is None:
        return "" if effect is None else "-"
    return in_units(question.quantity, question.what, effect.baseline, digits)


def shown(answer: Answer, starred: bool = True) -> str:
    """A ratio; bold where its interval excludes 1, starred where its p-value does.

    Without stars for a p-value that is not corrected for the number of questions.
    """
    said, effect = ratio(answer), answer.effect
    if effect is None or not effect.direction:
        return said or "-"
    small = answer.p_value is not None and answer.p_value < 0.05
    star = "\\*" if starred and small else ""
    value, bracket, interval = said.partition(" [")
    return f"**{value}**{star}{bracket}{interval}"


def line(cells: Iterable[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def head(columns: Iterable[str]) -> list[str]:
    """The first two lines of a table."""
    names = list(columns)
    return [line(names), "|---" * len(names) + "|"]


def template(folder: Path) -> jinja2.Template:
    """``results.md.j2`` of a benchmark; names that it does not get are errors."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("results.md.j2")


def updated(page: str, made: Mapping[str, str]) -> str:
    """A page with each of its tables, between two comments, made anew."""
    for name, text in made.items():
        begin, end = f"<!-- table {name} -->\n\n", "\n\n<!-- end of table -->"
        before, found, rest = page.partition(begin)
        if found:
            page = before + begin + text + end + rest.partition(end)[2]
    return page


def rewrite(page: Path, made: Mapping[str, str]) -> None:
    """Make the tables of a page anew, in its file."""
    write_atomic(page, updated(page.read_text(encoding="utf-8"), made))


def write_figure(found: Findings, path: Path) -> None:
    """Survival without an unphysical geometry, with the checksum of the records."""
    figure = survival_figure(
        found.models, found.variants, found.conditions, "unphysical"
    )
    about = {"Description": records_checksum(found.folder), "Software": None}
    figure.savefig(path, dpi=100, metadata=about)


def records_checksum(folder: Path) -> str:
    """SHA-256 of the records of a study."""
    return hashlib.sha256((folder / "records.jsonl").read_bytes()).hexdigest()
