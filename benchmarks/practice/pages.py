"""RESULTS.md of the studies: one table a question, a row for each answer.

Answers are those of ``nequip-decorr study``, by its own rule. Two things come on top:
the primary questions of all studies corrected together, and ZBL with the term against
ZBL alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

from nequip_decorr.md.files import write_atomic
from nequip_decorr.study.answers import NOT_FOLLOWED, Answer, answers
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.models import Model, condition_of
from nequip_decorr.study.report.result import Findings, findings
from nequip_decorr.study.report.rows import (
    interrupted_trainings,
    notes,
    of_answers,
    ratio,
    row,
)
from nequip_decorr.study.statistics import Effect, holm

from ..common import ROOT, enter
from ..pages import baseline, head, line, rewrite, shown, template, write_figure
from . import hfo2

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"

#: The pages with tables of these studies; the first has all of them.
PAGES = (ROOT / "docs" / "evidence.md", ROOT / "docs" / "choose.md")

Studies = Mapping[str, Findings]

#: What every table says of an answer.
COLUMNS = ("without", "ratio [95 %]", "p", "verdict")

#: An answer that tighter limits do not change.
SAME = "the same"

#: Where an interval ends below, a gain that would matter is excluded.
GAIN = 1.3

#: Each study, in the order of RESULTS.md, and what it asks.
STUDIES = {
    "3bpa": "A molecule trained at 300 K, simulated at 600 and 1200 K",
    "acac": "The same, for acetylacetone",
    "early": "Models that fall apart within 0.1 ps",
    "hfo2": "Unseen compositions and a higher temperature of HfO2, with ZBL beside it",
}

#: Conditions and test sets of docs/evidence.md.
LABELS = {
    ("3bpa", "split"): "3BPA, 300 K",
    ("3bpa", "test_600K"): "3BPA, 600 K",
    ("3bpa", "test_1200K"): "3BPA, 1200 K",
    ("3bpa", "warm@600K"): "3BPA, 600 K",
    ("3bpa", "hot@1200K"): "3BPA, 1200 K",
    ("acac", "test_MD_300K"): "acetylacetone, 300 K",
    ("acac", "test_MD_600K"): "acetylacetone, 600 K",
    ("acac", "warm@600K"): "acetylacetone, 600 K",
    ("acac", "hot@1200K"): "acetylacetone, 1200 K",
    ("early", "hot@1200K"): "3BPA, six epochs, 1200 K",
}

QUESTIONS = {
    "Does the geometry stay physical for longer?": ("time", "unphysical"),
    "Does it take longer to explode?": ("time", "explosion"),
    "What does it cost in forces?": ("error", "forces_rmse"),
    "What does it cost in energies?": ("error", "per_atom_energy_rmse"),
    "How much less correlated are the features?": ("correlation", None),
    "What does it cost in time?": ("training time", None),
}


def read_studies(folder: Path = RESULTS) -> dict[str, Findings]:
    """The studies that have begun."""
    return {
        name: findings(StudyFolder(folder / name))
        for name in STUDIES
        if (folder / name / "plan.json").exists()
    }


def results(studies: Studies) -> str:
    """The text of RESULTS.md."""
    given = {name: all_answers(each) for name, each in studies.items()}
    return template(HERE).render(
        studies=studies,
        about=STUDIES,
        primary=primary(studies),
        tables={
            title: table(given, quantity, what)
            for title, (quantity, what) in QUESTIONS.items()
        },
        limits=limits(studies),
        described=described(studies),
        notes={name: all_notes(found) for name, found in studies.items()},
    )


def primary(studies: Studies) -> str:
    """The primary question of each study, also corrected for their number."""
    asked = {
        name: next(a for a in found.answers if a.question.primary)
        for name, found in studies.items()
    }
    known = {name: a.p_value for name, a in asked.items() if a.p_value is not None}
    # a study that has no answer yet counts as one more question
    corrected = holm([*known.values(), *[1.0] * (len(STUDIES) - len(known))])
    together = dict(zip(known, corrected, strict=False))
    lines = head(["study", "condition", "event", *COLUMNS, "p of all", "events"])
    for name, answer in asked.items():
        question = answer.question
        all_of_them = f"{together[name]:.2g}" if name in together else ""
        asked_of = [name, str(question.where), str(question.what), *cells(answer)]
        lines.append(line([*asked_of, all_of_them, ", ".join(answer.events or ())]))
    below = []
    for name, answer in asked.items():
        said = [each for each in (excluded(answer), row(answer)["power"]) if each]
        below += [f"{name}: {'; '.join(said)}."] if said else []
    return "\n\n".join(["\n".join(lines), *below])


def excluded(answer: Answer) -> str:
    """What the interval excludes of an effect that is not shown.

    A gain of :data:`GAIN` is that of the pre-registration.
    """
    effect = answer.effect
    if effect is None or effect.direction:
        return ""
    if effect.high is not None and effect.high < GAIN:
        return (
            f"a gain of {GAIN} or more is excluded (upper limit {effect.high:.3g}), "
            "which is a negative result"
        )
    limits = {"below": effect.low, "above": effect.high}
    sides = [f"{side} {x:.3g}" for side, x in limits.items() if x is not None]
    return f"excluded are ratios {' and '.join(sides)}" if sides else ""


def marked(studies: Studies) -> dict[str, str]:
    """Tables of docs/evidence.md by name."""
    given = {name: found.answers for name, found in studies.items()}
    made = hfo2.marked(studies["hfo2"]) if "hfo2" in studies else {}
    return made | {
        "practice times": summary(given, "time", "unphysical"),
        "practice explosions": summary(given, "time", "explosion"),
        "practice forces": summary(given, "error", "forces_rmse"),
        "practice energies": summary(given, "error", "per_atom_energy_rmse"),
    }


def summary(given: Mapping[str, Iterable[Answer]], quantity: str, what: str) -> str:
    """Answers in words of the field, in the order of :data:`LABELS`."""
    asked = {
        (name, str(answer.question.where)): answer
        for name, each in given.items()
        for answer in each
        if (answer.question.quantity, answer.question.what) == (quantity, what)
    }
    events = ["events: with, without"] if quantity == "time" else []
    lines = head(["", *COLUMNS[:3], *events])
    for place, label in LABELS.items():
        if place not in asked:
            continue
        answer = asked[place]
        counts = [", ".join(answer.events or ())] if events else []
        said = [baseline(answer, digits=3), shown(answer), row(answer)["p"]]
        lines.append(line([label, *said, *counts]))
    return "\n".join(lines)


def cells(answer: Answer) -> list[str]:
    """Of :data:`COLUMNS`."""
    known = row(answer)
    # how many replicas that concerns is in the column of events
    verdict = NOT_FOLLOWED if kind(answer) == NOT_FOLLOWED else known["verdict"]
    return [baseline(answer, digits=3), known["ratio"], known["p"], verdict]


def table(
    given: Mapping[str, Iterable[Answer]], quantity: str, what: str | None
) -> str:
    """All answers to a question in Markdown."""
    where = {"time": ["condition"], "error": ["test set"]}.get(quantity, [])
    events = ["events"] if quantity == "time" else []
    lines = head(["study", *where, "variant", *COLUMNS, *events])
    for name, each in given.items():
        for answer in each:
            question = answer.question
            if (question.quantity, question.what) != (quantity, what):
                continue
            place = [str(question.where)] if where else []
            counts = [", ".join(answer.events or ())] if events else []
            shown = [*place, question.variant, *cells(answer), *counts]
            lines.append(line([name, *shown]))
    return "\n".join(lines)


def limits(studies: Studies) -> str:
    """Ratios of times to events under tighter limits, beside those of the runs."""
    columns = ["as run", "at tighter limits", "verdict"]
    lines = head(["study", "condition", "event", "variant", *columns])
    for name, found in studies.items():
        judged = {
            path.parent.name: judged_again(found, StudyFolder(path.parent))
            for path in sorted(found.folder.glob("limits/*/plan.json"))
        }
        if not judged:
            continue
        for answer in all_answers(found):
            question = answer.question
            if question.quantity != "time" or kind(answer) == NOT_FOLLOWED:
                continue
            again = {
                limit: next(a for a in each if a.question == question)
                for limit, each in judged.items()
            }
            place = [name, str(question.where), str(question.what)]
            ratios = [row(answer)["ratio"], spread(again.values())]
            said = changes(answer, again)
            lines.append(line([*place, question.variant, *ratios, said]))
    return "\n".join(lines) if len(lines) > 2 else ""


def all_answers(found: Findings) -> list[Answer]:
    """Those of the study, and of comparisons that it does not make."""
    return [*found.answers, *hfo2.also(found)]


def all_notes(found: Findings) -> list[str]:
    """Notes of the study, and those on what it does not ask by itself."""
    said = [*notes(found), interrupted(found), *of_answers(hfo2.also(found))]
    return [each for each in said if each]


def judged_again(found: Findings, limits: StudyFolder) -> list[Answer]:
    """All answers with the replicas as judged at other limits, and nothing else.

    So p-values are corrected for the same number of questions.
    """
    again = {(m.variant, m.seed): m.replicas for m in findings(limits).models}
    models = [
        replace(model, replicas=again[model.variant, model.seed])
        for model in found.models
    ]
    return answered_with(models, found)


def answered_with(models: Sequence[Model], found: Findings) -> list[Answer]:
    """The same questions to other models."""
    asked = [answer.question for answer in found.answers]
    given = answers(asked, models, found.variants[0], found.variants)
    return all_answers(replace(found, models=list(models), answers=given))


def interrupted(found: Findings) -> str:
    """What the answers are without the trainings that were interrupted, in words."""
    cut = {(each["variant"], each["seed"]) for each in interrupted_trainings(found)}
    if not cut:
        return ""
    rest = [model for model in found.models if (model.variant, model.seed) not in cut]
    before = {answer.question: answer for answer in all_answers(found)}
    after = {answer.question: answer for answer in answered_with(rest, found)}
    changed = [
        f"{question.text}, {said}"
        for question, answer in before.items()
        for said in [changes(answer, {"without them": after[question]})]
        if said != SAME
    ]
    return (
        f"Of {len(before)} answers, {len(changed)} have another verdict, or a ratio on "
        "the other side of 1, without the trainings that were interrupted"
        + (f": {'; '.join(changed)}." if changed else ".")
    )


def spread(given: Iterable[Answer]) -> str:
    """The smallest and the largest of some ratios; all of them if one is a bound."""
    known = [answer for answer in given if answer.effect]
    values = [answer.effect.value for answer in known if answer.effect]
    sizes = [value for value in values if value is not None]
    if len(sizes) < len(values):
        return ", ".join(dict.fromkeys(filter(None, map(ratio, known))))
    return f"{min(sizes):.3g} to {max(sizes):.3g}" if sizes else ""


def changes(answer: Answer, again: Mapping[str, Answer]) -> str:
    """Limits that change a verdict, or put a ratio on the other side of 1."""
    found = []
    for limit, other in again.items():
        if kind(other) != kind(answer):
            found.append(f"{limit}: {kind(other)}")
        elif answer.effect and other.effect and crosses(answer.effect, other.effect):
            found.append(f"{limit}: {ratio(other).partition(' [')[0]}")
    return "; ".join(found) or SAME


def kind(answer: Answer) -> str:
    """A verdict without the numbers that it may come with."""
    return answer.verdict.partition(":")[0]


def crosses(one: Effect, other: Effect) -> bool:
    """Whether 1 is between two ratios that are known."""
    if one.value is None or other.value is None:
        return False  # bounds on different sides have different verdicts
    return (one.value - 1) * (other.value - 1) < 0


def described(studies: Studies) -> str:
    """Pair distributions and NVE drift, which no question asks about."""
    lines = head(["study", "variant", "condition", "value", "floor", "models"])
    for name, found in studies.items():
        for variant in found.variants:
            own = [model for model in found.models if model.variant == variant]
            floor = floors(found, variant)
            for key, unit in (("rdf", "A"), ("drift", "meV/atom/ps")):
                values: dict[str, list[float]] = {}
                for model in own:
                    for where, value in getattr(model, key).items():
                        each = value if isinstance(value, list) else [value]
                        sizes = [abs(one) for one in each if one is not None]
                        values.setdefault(where, []).extend(sizes)
                for where, some in values.items():
                    said = f"{mean(some):.3g} {unit}" if some else "failed"
                    known = floor.get(where, []) if key == "rdf" else []
                    least = f"{mean(known):.3g} {unit}" if known else "-"
                    cells = [name, variant, where, said, least, str(len(some))]
                    lines.append(line(cells))
    return "\n".join(lines)


def floors(found: Findings, variant: str) -> dict[str, list[float]]:
    """Errors that perfect models would have with as many frames, by condition."""
    given: dict[str, list[float]] = {}
    for record in found.records.values():
        if record["variant"] != variant or record["status"] != "done":
            continue
        name = record["stage"].removeprefix("md-")
        by_place: dict[str, list[float | None]] = {}
        for pair in record["result"].get("rdf", []):
            where = condition_of(name, pair["temperature_K"])
            by_place.setdefault(where, []).append(pair["floor"])
        for where, each in by_place.items():
            known = [one for one in each if one is not None]
            if len(known) == len(each):
                given.setdefault(where, []).append(mean(known))
    return given


def main() -> None:
    """Write RESULTS.md, the figures, and the tables of the documentation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    studies = read_studies()
    path = RESULTS / "RESULTS.md"
    write_atomic(path, results(studies))
    print(f"written: {path}")
    for name, found in studies.items():
        write_figure(found, RESULTS / f"{name}_survival.png")
    for page in PAGES:
        rewrite(page, marked(studies))


if __name__ == "__main__":
    enter(main)
