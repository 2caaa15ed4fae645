"""HfO2 with and without ZBL: a row for each variant, a column for each condition.

ZBL with the term is also compared with ZBL alone, as a study compares with its first
variant only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from nequip_decorr.study.answers import Answer, answers
from nequip_decorr.study.report.result import Findings

from ..hfox.tables import survivors
from ..pages import baseline, head, line, shown

#: A variant that is also compared with another than the baseline.
ALSO = {"zbl-term": "zbl"}

#: Heading -> condition of MD and test set of the same composition and temperature.
CONDITIONS = {
    "HfO1.56, 1200 K": ("hfo1.56@1200K", "hfo1.56_1200K"),
    "HfO1.12, 1200 K": ("hfo1.12@1200K", "hfo1.12_1200K"),
    "HfO2, 2400 K": ("hfo2@2400K", "hfo2_2400K"),
}
IN_DISTRIBUTION = "hfo2_test"

#: What is in the rows, without "ZBL and the term" against ZBL.
VARIANTS = {
    "without anything": "none",
    "the term": "term",
    "ZBL": "zbl",
    "ZBL and the term": "zbl-term",
}
AGAINST_ZBL = "ZBL and the term, against ZBL"


def also(found: Findings) -> Iterator[Answer]:
    """Comparisons with another variant than the baseline; p-values uncorrected."""
    for variant, other in ALSO.items():
        for answer in found.answers:
            if answer.question.variant != variant:
                continue
            asked = replace(answer.question, primary=False)
            # alone, so that nothing is corrected: neither the p-value nor the verdict
            (given,) = answers([asked], found.models, other, [])
            named = replace(asked, variant=f"{variant} against {other}")
            notes = [
                note.replace("the baseline's", f"{other}'s") for note in given.notes
            ]
            yield replace(given, question=named, notes=tuple(notes))


def marked(found: Findings) -> dict[str, str]:
    """Tables of docs/evidence.md by name."""
    times = {heading: where for heading, (where, _) in CONDITIONS.items()}
    errors = {"in distribution": IN_DISTRIBUTION}
    errors |= {heading: test for heading, (_, test) in CONDITIONS.items()}
    return {
        "hfo2 survivors": table(
            VARIANTS, {h: reached(found, where) for h, where in times.items()}
        ),
        "hfo2 times": ratios(found, "time", "unphysical", times),
        "hfo2 forces": ratios(found, "error", "forces_rmse", errors),
        "hfo2 energies": ratios(found, "error", "per_atom_energy_rmse", errors),
    }


def reached(found: Findings, condition: str) -> Callable[[str], str]:
    """How many replicas of a variant reached the horizon."""
    return lambda variant: survivors(condition, found, variant)


def ratios(found: Findings, quantity: str, what: str, places: Mapping[str, str]) -> str:
    """Ratios to the baseline, whose own values are in the first row."""
    given = [
        answer
        for answer in (*found.answers, *also(found))
        if (answer.question.quantity, answer.question.what) == (quantity, what)
    ]

    def column(place: str) -> Callable[[str], str]:
        here = {a.question.variant: a for a in given if a.question.where == place}

        def cell(variant: str) -> str:
            if variant == found.variants[0]:
                return next((baseline(a, digits=3) for a in here.values()), "-")
            if variant not in here:
                return "-"
            # the study has corrected the p-values of its own answers only
            return shown(here[variant], starred=variant in found.variants)

        return cell

    against = {AGAINST_ZBL: " against ".join(next(iter(ALSO.items())))}
    return table(VARIANTS | against, {h: column(p) for h, p in places.items()})


def table(rows: Mapping[str, str], columns: Mapping[str, Callable[[str], str]]) -> str:
    """A table in Markdown."""
    lines = head(["", *columns])
    for label, variant in rows.items():
        lines.append(line([label, *(cell(variant) for cell in columns.values())]))
    return "\n".join(lines)
