"""What the page and the terminal say of the answers: rows and notes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nequip_decorr.md.statistics.score import MIN_STRUCTURES
from nequip_decorr.md.statistics.units import MIN_UNITS
from nequip_decorr.study.answers import (
    Answer,
    on_gpu,
    part_of_seeds,
    power_in_words,
    seeds_in_words,
)
from nequip_decorr.study.left_out import NOT_DONE
from nequip_decorr.study.report.result import Findings

#: Quantities side by side: title, and what belongs to it.
GROUPS = {
    "Time to an event": ("time",),
    "Errors": ("error",),
    "Correlation and training time": ("correlation", "training time"),
}

#: More questions than this are counted and not listed.
MAX_LISTED = 3

FEW_SEEDS = (
    "Fewer than three training seeds: no interval and no verdict. Two trainings of one "
    "config that differ only in their seed can differ as much as these do, so this "
    "does not tell whether a variant helps. Eight seeds are a reasonable start; seeds "
    "may be added to a study (seeds: 8)."
)


def answered(given: Sequence[Answer]) -> list[Answer]:
    """Answers with a ratio: the primary one, then variants side by side."""
    found = [answer for answer in given if answer.effect is not None]
    return sorted(found, key=_order)


def _order(answer: Answer) -> tuple[bool, int, str, str]:
    question = answer.question
    quantities = [quantity for group in GROUPS.values() for quantity in group]
    place = quantities.index(question.quantity)
    return not question.primary, place, question.what or "", question.where or ""


def judged(given: Sequence[Answer]) -> bool:
    """Whether there are seeds enough for any interval, p-value and verdict."""
    return any(answer.p_value is not None for answer in given)


def unanswered(given: Sequence[Answer]) -> dict[str, list[str]]:
    """Questions without an answer, grouped by the reason."""
    found: dict[str, list[str]] = {}
    for answer in given:
        if answer.effect is None and not answer.question.primary:
            found.setdefault(answer.verdict, []).append(answer.question.text)
    return found


def row(answer: Answer) -> dict[str, str]:
    """An answer as the cells of a table."""
    powers = (answer.power or {}).items()
    effect = answer.effect
    said = ", ".join(f"{p:.2f} (x{ratio})" for ratio, p in powers)
    if effect is not None and effect.method == "hazards" and answer.p_value is not None:
        said = "not known"
    return {
        "question": answer.question.text,
        "sentence": answer.sentence,
        "verdict": answer.verdict,
        "baseline": _baseline(answer),
        "ratio": ratio(answer),
        "seeds": (
            "" if effect is None else part_of_seeds(effect.seeds, len(answer.left_out))
        ),
        "p": "" if answer.p_value is None else f"{answer.p_value:.2g}",
        "events": "" if answer.events is None else ", ".join(answer.events),
        "power": power_in_words(answer) or "",
        "powers": said,
        "seeds_needed": str(answer.seeds_needed or ""),
    }


def _baseline(answer: Answer) -> str:
    effect = answer.effect
    if effect is None or effect.baseline is None:
        return ""
    unit = {"time": " ps", "training time": " s"}.get(answer.question.quantity, "")
    return f"{effect.baseline:.3g}{unit}"


def ratio(answer: Answer) -> str:
    """The ratio with its interval; empty if there is neither."""
    effect = answer.effect
    if effect is None:
        return ""
    value = "" if effect.value is None else f"{effect.value:.3g}"
    if effect.low is None and effect.high is None:
        return value
    low = "0" if effect.low is None else f"{effect.low:.3g}"
    high = "∞" if effect.high is None else f"{effect.high:.3g}"
    return f"{value} [{low}, {high}]".strip()


def clock(found: Findings) -> str:
    """The time that trainings are compared by: "wall time" or "CPU time"."""
    return "wall time" if on_gpu(found.models) else "CPU time"


def notes(found: Findings) -> list[str]:
    """What a reader must know, most important first."""
    said = []
    if len(found.registered.seeds) < MIN_UNITS and answered(found.answers):
        said.append(FEW_SEEDS)
    if not found.complete and judged(found.answers):
        said.append(
            "The study is not complete. Its p-values hold for the seeds that were "
            "planned; stopping early because of them gives more false positives than "
            "they suggest."
        )
    for wave in found.registered.waves[1:]:
        seeds = ", ".join(map(str, wave["seeds"]))
        said.append(
            f"Seeds {seeds} were added on {wave['registered']}, when the earlier "
            "results could already be known. Adding seeds until the result looks right "
            "gives more false positives than the p-values suggest."
        )
    said += _few_starts(found)
    said += _left_out(found)
    resumed = [
        f"{record['variant']}, {record['seed']}"
        for record in interrupted_trainings(found)
    ]
    if resumed:
        said.append(
            f"Trainings that were interrupted: {'; '.join(resumed)}. NequIP shuffles "
            "frames in a different order where it resumes, and their time is not "
            "counted."
        )
    said += of_answers(found.answers)
    if on_gpu(found.models):
        said.append(
            "Training time is wall time, because trainings had a GPU; models.csv has "
            "the CPU time too."
        )
    return said


def interrupted_trainings(found: Findings) -> list[Mapping[str, Any]]:
    """Records of the trainings that were interrupted, and have come to their end."""
    return [
        record
        for record in found.records.values()
        if record["stage"] == "train"
        and record["status"] == "done"
        and record["interrupted"]
    ]


def of_answers(given: Iterable[Answer]) -> list[str]:
    """What limits single answers, one sentence each."""
    return [f"{each.question.text}: {note}." for each in given for note in each.notes]


def _few_starts(found: Findings) -> Iterator[str]:
    """Conditions whose start structures are too few to stand for others."""
    structures: dict[str, set[int]] = {}
    for model in found.models:
        for condition, replicas in model.replicas.items():
            own = structures.setdefault(condition, set())
            own.update(replica["structure"] for replica in replicas)
    few = {
        condition: len(own)
        for condition, own in structures.items()
        if len(own) < MIN_STRUCTURES
    }
    if few:
        counts = ", ".join(f"{condition}: {n}" for condition, n in few.items())
        yield (
            f"Few start structures ({counts}). Intervals are over training seeds and "
            "do not cover the choice of start structures."
        )


def _left_out(found: Findings) -> Iterator[str]:
    """Seeds that are not part of answers, once for each reason."""
    planned = len(found.registered.seeds)
    texts: dict[tuple[str, str], list[str]] = {}
    for answer in found.answers:
        missing = len(answer.left_out)
        begun = missing < planned or any(map(_is_lost, answer.left_out.values()))
        if missing and begun:
            said = f"{seeds_in_words(planned - missing, missing)}, without "
            said += _by_reason(answer.left_out)
            key = answer.question.variant, said
            texts.setdefault(key, []).append(answer.question.text)
    for (variant, said), questions in texts.items():
        yield f"{_subject(variant, questions)}: {said}."


def _is_lost(why: str) -> bool:
    return any(part.partition(": ")[2] != NOT_DONE for part in why.split("; "))


def _by_reason(left_out: Mapping[int, str]) -> str:
    seeds: dict[str, list[int]] = {}
    for seed, why in left_out.items():
        seeds.setdefault(why, []).append(seed)
    return ", ".join(
        f"{', '.join(map(str, numbers))} ({why})" for why, numbers in seeds.items()
    )


def _subject(variant: str, questions: Sequence[str]) -> str:
    if len(questions) <= MAX_LISTED:
        return "; ".join(questions)
    return f"{variant}, {len(questions)} questions"
