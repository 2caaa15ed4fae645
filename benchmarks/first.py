"""What else makes models last longer, from the records of studies: docs/choose.md.

Baselines of two studies with the same seeds are compared as a study compares variants.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nequip_decorr.study.answers import Answer, answers
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.models import Model
from nequip_decorr.study.questions import Question
from nequip_decorr.study.report.result import findings
from nequip_decorr.study.report.rows import row

from .common import ROOT, enter
from .pages import baseline, head, line, rewrite

HERE = Path(__file__).resolve().parent
PAGE = ROOT / "docs" / "choose.md"


@dataclass(frozen=True)
class Comparison:
    """Two studies that differ in one thing.

    Attributes:
        text: what differs.
        with_it: folder of the study that has it.
        without: folder of the study that does not.
        conditions: what they have in common, in words.
    """

    text: str
    with_it: Path
    without: Path
    conditions: Mapping[str, str]


COMPARISONS = (
    Comparison(
        "200 epochs instead of six",
        HERE / "practice" / "results" / "3bpa",
        HERE / "practice" / "results" / "early",
        {"hot@1200K": "3BPA, 1200 K"},
    ),
    Comparison(
        "135 frames up to 1200 K instead of 60 up to 600 K",
        HERE / "hfox" / "results" / "larger",
        HERE / "hfox" / "results" / "regime",
        {
            "HfO1.56@1200K": "HfO1.56, 1200 K",
            "HfO1.12@1200K": "HfO1.12, 1200 K",
            "HfO2@2400K": "HfO2, 2400 K",
        },
    ),
)


def compared(one: Comparison) -> Iterator[tuple[str, Answer]]:
    """Time to an unphysical geometry, by condition."""
    found = [*baselines(one.without, "without"), *baselines(one.with_it, "with")]
    seeds = [{m.seed for m in found if m.variant == v} for v in ("without", "with")]
    both = [model for model in found if model.seed in seeds[0] & seeds[1]]
    asked = [Question("with", "time", where, "unphysical") for where in one.conditions]
    given = answers(asked, both, "without", ())
    yield from zip(one.conditions.values(), given, strict=True)


def baselines(folder: Path, name: str) -> list[Model]:
    """The models of a study's baseline, under another name."""
    found = findings(StudyFolder(folder))
    own = [m for m in found.models if m.variant == found.variants[0]]
    return [replace(model, variant=name) for model in own]


def table() -> str:
    """A row for each comparison and condition."""
    lines = head(["what differs", "MD", "seeds", "baseline", "ratio [95 %]"])
    for one in COMPARISONS:
        for label, answer in compared(one):
            cells = row(answer)
            before = baseline(answer, digits=2)
            shown = [one.text, label, cells["seeds"], before, cells["ratio"]]
            lines.append(line(shown))
    return "\n".join(lines)


def main() -> None:
    """Write the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rewrite(PAGE, {"first": table()})
    print(f"written: {PAGE}")


if __name__ == "__main__":
    enter(main)
