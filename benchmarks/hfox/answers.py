"""The questions of the benchmark and what the records say to them, in words.

Words follow from intervals alone, so that another machine's numbers get other words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import analysis as a
from .analysis import Estimate, Record
from .figures import CONDITION_NAMES
from .models import CHOSEN, DECORRELATED, SECTIONS


@dataclass(frozen=True)
class Answer:
    """One question, the sentence that answers it, and what it rests on."""

    question: str
    sentence: str
    section: str


def in_words(e: Estimate, digits: int = 2) -> str:
    """An estimate with its interval."""
    return (
        f"{e.value:.{digits}f} [{e.low:.{digits}f}, {e.high:.{digits}f}] "
        f"({e.seeds} seeds)"
    )


def direction(e: Estimate, more: str, less: str, none: float = 1.0) -> str:
    """What an interval says about a ratio or, with ``none`` 0, a difference."""
    if e.low > none:
        return more
    return less if e.high < none else "no difference shown"


def answers(records: Sequence[Record]) -> list[Answer]:
    """Each question with the best section that can answer it."""
    sections = {
        name: [r for r in records if r.grid == name]
        for name in SECTIONS
        if any(r.grid == name for r in records)
    }
    found = []
    for name in sorted(sections, key=lambda name: name != "confirmed"):
        for variant in CHOSEN:
            found += _effect(sections[name], variant, SECTIONS[name][0])
    if "explored" in sections:
        found += _relation(sections["explored"])
        found += _choice(sections["explored"])
        found += _sample(sections["explored"])
    return found


def _effect(records: Sequence[Record], variant: str, title: str) -> list[Answer]:
    time = a.paired(records, variant, a.log_time)
    error = a.paired(records, variant, a.log_force_error)
    if time is None or error is None or time.seeds < 2:
        return []  # nothing to say an interval of
    time, error = time.exp(), error.exp()
    found = [
        Answer(
            f"{variant}: does MD hold longer?",
            f"**{direction(time, 'Longer', 'Shorter').capitalize()}**: "
            f"{in_words(time)} times as long as without the extension.",
            title,
        ),
        Answer(
            f"{variant}: at what price?",
            f"Force error in distribution {in_words(error)} times as large "
            f"({direction(error, 'larger', 'smaller')}).",
            title,
        ),
    ]
    found.append(_by_condition(records, variant, title))
    beyond = a.beyond_error(records, variant)
    if beyond is not None and beyond.seeds > 1:
        ratio = beyond.exp()
        found.append(
            Answer(
                f"{variant}: more than a larger error does by itself?",
                f"**{direction(ratio, 'Yes', 'No, less').capitalize()}**: "
                f"{in_words(ratio)} times as long as models of equal force error "
                "without the term.",
                title,
            )
        )
    for other in ("sam", "epochs-40"):
        against = a.paired(records, variant, a.log_time, other)
        if against is not None and against.seeds > 1:
            ratio = against.exp()
            found.append(
                Answer(
                    f"{variant}: against {other}?",
                    f"{in_words(ratio)} times as long "
                    f"({direction(ratio, 'longer', 'shorter')}).",
                    title,
                )
            )
    return found


def _by_condition(records: Sequence[Record], variant: str, title: str) -> Answer:
    parts = []
    for condition in records[0].conditions:
        ratio = a.paired(records, variant, lambda r, c=condition: a.log_time(r, [c]))
        if ratio is not None:
            parts.append(f"{CONDITION_NAMES[condition]}: {in_words(ratio.exp())}")
    return Answer(f"{variant}: where?", f"Time held, ratio: {'; '.join(parts)}.", title)


def _relation(records: Sequence[Record]) -> list[Answer]:
    title = SECTIONS["explored"][0]
    given = (a.force_error, a.force_error_out)
    try:
        plain = a.rank_correlation(records, a.mean_correlation, a.log_time)
        partial = a.rank_correlation(records, a.mean_correlation, a.log_time, given)
        static = a.rank_correlation(records, a.barrier, a.log_time)
    except ValueError:
        return []  # too few models so far
    words = ("models that are less correlated hold longer", "they hold shorter")
    return [
        Answer(
            "Is correlation related to stability over all models?",
            f"Spearman {in_words(plain)}: {direction(plain, *words[::-1], none=0.0)}.",
            title,
        ),
        Answer(
            "Does it add to what force errors in and out of distribution say?",
            f"Partial Spearman {in_words(partial)}: "
            f"{direction(partial, *words[::-1], none=0.0)}.",
            title,
        ),
        Answer(
            "Does a static probe, the barrier of Hf-Hf scans, tell stability?",
            f"Spearman {in_words(static)}: "
            f"{direction(static, 'higher barriers hold longer', 'no', none=0.0)}.",
            title,
        ),
    ]


def _choice(records: Sequence[Record]) -> list[Answer]:
    times = {v: a.paired(records, v, a.log_time) for v in DECORRELATED}
    ranked = sorted(
        ((v, e.exp()) for v, e in times.items() if e is not None),
        key=lambda item: -item[1].value,
    )
    listed = ", ".join(f"{v} {e.value:.2f}" for v, e in ranked)
    return [
        Answer(
            "Which schedule and coefficient?",
            f"By the time held, ratio to no extension: {listed}.",
            SECTIONS["explored"][0],
        )
    ]


def _sample(records: Sequence[Record]) -> list[Answer]:
    """What drawing 1024 edges a step does, against all of them (about 2700)."""
    both = ("cosine-down", "cosine-all-edges")
    error, rho, time = (
        a.paired(records, both[0], quantity, both[1])
        for quantity in (a.log_force_error, a.mean_correlation, a.log_time)
    )
    if error is None or rho is None or time is None or time.seeds < 2:
        return []
    return [
        Answer(
            "Does it matter that a step draws 1024 edges, not all?",
            f"Drawn against all: force error {in_words(error.exp(), 3)} times, mean "
            f"\\|rho\\| different by {in_words(rho, 3)}, time held "
            f"{in_words(time.exp())} times.",
            SECTIONS["explored"][0],
        )
    ]
