"""The questions of the benchmark and what the records say to them, in words.

Words follow from intervals alone, so that another machine's numbers get other words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats
from statsmodels.stats.multitest import multipletests

from nequip_decorr.errors import UserError

from . import analysis as a
from .analysis import Estimate, Record
from .figures import CONDITION_NAMES
from .models import BORROWED, CHEAPEST, CHOSEN, DECORRELATED, FORMS, SECTIONS

#: With fewer an interval says nothing.
FEWEST_SEEDS = 3
#: What costs less: a question, the variant that does, and what it is compared with.
CHEAPER = {
    "Does it matter that a step draws 1024 edges, not all (about 2700)?": (
        "cosine-down",
        "cosine-all-edges",
    ),
    "Does it matter that the term enters every fourth step only?": (
        "cosine-every-4",
        "cosine-down",
    ),
    "And that the constant one does?": (CHEAPEST, "constant-0.3"),
}
#: A choice with what confirms it (other seeds), and what was chosen.
POOLED = {
    ("explored", "confirmed"): CHEAPEST,
    ("longer", "longer-confirmed"): "constant-0.3",
}


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
    """Each question with the sections that can answer it."""
    sections = {name: a.of_section(records, name) for name in SECTIONS}
    found = []
    for name in sorted(SECTIONS, key=lambda name: name != "confirmed"):
        if name not in BORROWED:
            for variant in (*CHOSEN, CHEAPEST):
                found += _effect(sections[name], variant, SECTIONS[name][0])
    found += _price_of(sections["confirmed"])
    found += _corrected(sections["confirmed"])
    for names, variant in POOLED.items():
        if all(sections[name] for name in names):
            pooled = [r for name in names for r in sections[name]]
            title = " and ".join(SECTIONS[name][0] for name in names)
            found += _all_seeds(pooled, variant, title)
    if sections["explored"]:
        found += _relation(sections["explored"])
        found += _choice(sections["explored"])
    for question, both in CHEAPER.items():
        for name in ("explored", "confirmed"):
            found += _cheaper(sections[name], SECTIONS[name][0], question, *both)
    found += _forms(sections["forms"])
    return found


def _effect(records: Sequence[Record], variant: str, title: str) -> list[Answer]:
    time = a.paired(records, variant, a.log_time)
    mean = a.paired(records, variant, a.mean_time)
    if time is None or mean is None or time.seeds < FEWEST_SEEDS:
        return []
    time = time.exp()
    found = [
        Answer(
            f"{variant}: does MD hold longer?",
            f"**{direction(time, 'Longer', 'Shorter').capitalize()}**: "
            f"{in_words(time)} times as long as without the extension (geometric "
            f"mean); mean time different by {in_words(mean)} ps "
            f"({direction(mean, 'longer', 'shorter', none=0.0)}).",
            title,
        ),
        *_survivors(records, variant, title),
        _by_condition(records, variant, title),
        _errors(records, variant, title),
    ]
    beyond = a.beyond_error(records, variant)
    if beyond is not None and beyond.seeds >= FEWEST_SEEDS:
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
        found += _against(records, variant, other, title)
    return found


def _survivors(records: Sequence[Record], variant: str, title: str) -> list[Answer]:
    """Where there are any: replicas of one model live or fail together, so the interval
    is over seeds.
    """
    share = a.paired(records, variant, a.share_alive)
    with_term, without = (a.by_seed(records, v) for v in (variant, a.BASELINE))
    common = with_term.keys() & without.keys()
    both = [a.alive(of[seed] for seed in common) for of in (with_term, without)]
    if share is None or not any(survivors for survivors, _ in both):
        return []
    counts = " against ".join("{} of {}".format(*count) for count in both)
    sentence = (
        f"{counts} without the extension; share different by {in_words(share)} "
        f"({direction(share, 'more', 'fewer', none=0.0)})."
    )
    return [Answer(f"{variant}: alive at the horizon?", sentence, title)]


def _errors(records: Sequence[Record], variant: str, title: str) -> Answer:
    parts = []
    for name, quantity in (
        ("Force error in distribution", a.force_error),
        ("out of it", a.force_error_out),
        ("energy error in distribution", a.energy_error),
        ("out of it", a.energy_error_out),
    ):
        ratio = a.ratio(records, variant, quantity)
        if ratio is not None:
            said = direction(ratio, "larger", "smaller")
            parts.append(f"{name} {in_words(ratio)} times ({said})")
    return Answer(f"{variant}: at what price?", f"{'; '.join(parts)}.", title)


def _against(
    records: Sequence[Record], variant: str, other: str, title: str
) -> list[Answer]:
    against = a.paired(records, variant, a.log_time, other)
    if against is None or against.seeds < FEWEST_SEEDS:
        return []
    ratio = against.exp()
    sentence = (
        f"{in_words(ratio)} times as long ({direction(ratio, 'longer', 'shorter')})."
    )
    return [Answer(f"{variant}: against {other}?", sentence, title)]


def _price_of(records: Sequence[Record]) -> list[Answer]:
    """The first chosen variant against the second, where nothing was chosen."""
    quantities = (a.log_time, a.log_force_error, a.log_energy_error)
    found = [
        a.paired(records, CHOSEN[0], quantity, CHOSEN[1]) for quantity in quantities
    ]
    if any(e is None or e.seeds < FEWEST_SEEDS for e in found):
        return []
    time, force, energy = (in_words(e.exp()) for e in found if e is not None)
    return [
        Answer(
            f"{CHOSEN[0]} or {CHOSEN[1]}?",
            f"The first against the second: time held {time}, force error in "
            f"distribution {force}, energy error {energy} times.",
            SECTIONS["confirmed"][0],
        )
    ]


def _by_condition(records: Sequence[Record], variant: str, title: str) -> Answer:
    conditions = _places(records)
    del conditions["all"]
    return Answer(f"{variant}: where?", _held(records, variant, conditions), title)


def _held(
    records: Sequence[Record], variant: str, places: dict[str, list[str] | None]
) -> str:
    parts = []
    for name, of in places.items():
        ratio = a.paired(records, variant, lambda r, c=of: a.log_time(r, c))
        if ratio is not None:
            parts.append(f"{name}: {in_words(ratio.exp())}")
    return f"Time held, ratio: {'; '.join(parts)}."


def _corrected(records: Sequence[Record]) -> list[Answer]:
    """The smallest p of all times to failure, corrected for their number (Holm)."""
    found = {}
    for variant in (*CHOSEN, CHEAPEST):
        for name, of in _places(records).items():
            changes = a.differences(records, variant, lambda r, c=of: a.log_time(r, c))
            if len(changes) >= FEWEST_SEEDS:
                found[f"{variant}, {name}"] = float(
                    stats.ttest_1samp(changes, 0).pvalue
                )
    if not found:
        return []
    best = min(found, key=found.__getitem__)
    corrected = min(multipletests(list(found.values()), method="holm")[1])
    said = "yes" if corrected < 0.05 else "no"
    return [
        Answer(
            "Does a difference in the time held survive a correction for their number?",
            f"**{said.capitalize()}**: the clearest of {len(found)} is {best}, "
            f"p = {found[best]:.3f}, corrected {corrected:.2f} (Holm).",
            SECTIONS["confirmed"][0],
        )
    ]


def _places(records: Sequence[Record]) -> dict[str, list[str] | None]:
    """All conditions together, then each."""
    conditions = records[0].conditions if records else ()
    return {"all": None, **{CONDITION_NAMES[c]: [c] for c in conditions}}


def _all_seeds(records: Sequence[Record], variant: str, title: str) -> list[Answer]:
    """Where, over the seeds that a choice was made by too."""
    if len(a.differences(records, variant, a.log_time)) < FEWEST_SEEDS:
        return []
    question = f"{variant}: over all seeds, those that it was chosen by too?"
    sentence = _held(records, variant, _places(records))
    return [Answer(question, sentence, title)]


def _relation(records: Sequence[Record]) -> list[Answer]:
    with_term = [r for r in records if r.variant in DECORRELATED]
    given = (a.force_error, a.force_error_out)
    less = ("they hold shorter", "models that are less correlated hold longer")
    questions = {
        "Is correlation related to stability over all models?": (
            "Spearman",
            (records, a.mean_correlation, a.log_time),
            less,
        ),
        "Is it among models that all have the term?": (
            "Spearman",
            (with_term, a.mean_correlation, a.log_time),
            less,
        ),
        "Does it add to what force errors in and out of distribution say?": (
            "Partial Spearman",
            (records, a.mean_correlation, a.log_time, given),
            less,
        ),
        "Does a static probe, the barrier of Hf-Hf scans, tell stability?": (
            "Spearman",
            (records, a.barrier, a.log_time),
            ("higher barriers hold longer", "they hold shorter"),
        ),
    }
    found = []
    for question, (name, of, words) in questions.items():
        try:
            rank = a.rank_correlation(*of)
        except UserError:
            continue  # too few models so far
        said = direction(rank, *words, none=0.0)
        sentence = f"{name} {in_words(rank)}: {said}."
        found.append(Answer(question, sentence, SECTIONS["explored"][0]))
    return found


def _choice(records: Sequence[Record]) -> list[Answer]:
    """Variants of all seeds in order; ratios of different seeds do not compare."""
    seeds = len(a.by_seed(records, a.BASELINE))
    times = {v: a.paired(records, v, a.log_time) for v in DECORRELATED}
    ranked = sorted(
        ((v, e.exp()) for v, e in times.items() if e is not None and e.seeds == seeds),
        key=lambda item: -item[1].value,
    )
    if not ranked:
        return []
    listed = ", ".join(
        f"{v} {e.value:.2f} [{e.low:.2f}, {e.high:.2f}]" for v, e in ranked
    )
    return [
        Answer(
            "Which schedule and coefficient?",
            f"By the time held, ratio to no extension, {seeds} seeds: {listed}.",
            SECTIONS["explored"][0],
        )
    ]


def _cheaper(
    records: Sequence[Record],
    section: str,
    question: str,
    variant: str,
    reference: str,
) -> list[Answer]:
    error, rho, time = (
        a.paired(records, variant, quantity, reference)
        for quantity in (a.log_force_error, a.mean_correlation, a.log_time)
    )
    if error is None or rho is None or time is None or time.seeds < FEWEST_SEEDS:
        return []
    return [
        Answer(
            question,
            f"{variant} against {reference}: force error {in_words(error.exp(), 3)} "
            f"times, mean \\|rho\\| different by {in_words(rho, 3)}, time held "
            f"{in_words(time.exp())} times.",
            section,
        )
    ]


def _forms(records: Sequence[Record]) -> list[Answer]:
    """What is penalised, against the term as it is."""
    found = {v: a.paired(records, v, a.log_time, "constant-0.3") for v in FORMS}
    listed = [
        f"{v} {in_words(e.exp())}"
        for v, e in found.items()
        if e is not None and e.seeds >= FEWEST_SEEDS
    ]
    if not listed:
        return []
    return [
        Answer(
            "Does another form of the term hold longer than constant-0.3?",
            f"Time held, ratio to it: {'; '.join(listed)}.",
            SECTIONS["forms"][0],
        )
    ]
