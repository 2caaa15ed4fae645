"""The questions of the benchmark and their answers in words, from the records.

The words depend on intervals alone, so other numbers give other words.
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

#: What is asked of MD out of distribution, and where. They are not pooled in a verdict.
QUESTIONS = {
    "at unseen compositions": ("hfo1.56_1200K", "hfo1.12_1200K"),
    "in hotter HfO2": ("hfo2_2400K",),
}
#: With fewer, an interval is meaningless.
FEWEST_SEEDS = 3
#: What makes the term cheaper: a question, the variant, and what it is compared with.
CHEAPER = {
    "Does it matter that a step draws 1024 edges, not all (about 2700)?": (
        "cosine-down",
        "cosine-all-edges",
    ),
    "Does it matter that the term enters only every fourth step?": (
        "cosine-every-4",
        "cosine-down",
    ),
    "And with a constant coefficient?": (CHEAPEST, "constant-0.3"),
}
#: Sections of a choice and of its confirmation on other seeds, and what was chosen.
POOLED = {
    ("explored", "confirmed"): CHEAPEST,
    ("longer", "longer-confirmed"): "constant-0.3",
}


@dataclass(frozen=True)
class Answer:
    """One question, the sentence that answers it, and the section it comes from."""

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
    if time is None or time.seeds < FEWEST_SEEDS:
        return []
    found = [
        *_stability(records, variant, title),
        *_survivors(records, variant, title),
        _by_condition(records, variant, title),
        _errors(records, variant, title),
    ]
    beyond = a.beyond_error(records, variant)
    if beyond is not None and beyond.seeds >= FEWEST_SEEDS:
        ratio = beyond.exp()
        found.append(
            Answer(
                f"{variant}: more stable than its force error alone explains?",
                f"**{direction(ratio, 'Yes', 'No, less').capitalize()}**: "
                f"{in_words(ratio)} times the time to failure of models of equal force "
                "error without the term.",
                title,
            )
        )
    for other in ("sam", "epochs-40"):
        found += _against(records, variant, other, title)
    return found


def _stability(records: Sequence[Record], variant: str, title: str) -> list[Answer]:
    """One answer for unseen compositions, one for a higher temperature."""
    found = []
    for question, conditions in QUESTIONS.items():
        chosen = [c for c in conditions if c in records[0].conditions]
        time = a.paired(records, variant, lambda r, c=chosen: a.log_time(r, c))
        mean = a.paired(records, variant, lambda r, c=chosen: a.mean_time(r, c))
        if time is None or mean is None or not chosen:
            continue
        ratio = time.exp()
        sentence = (
            f"**{direction(ratio, 'Longer', 'Shorter').capitalize()}**: "
            f"{in_words(ratio)} times the time to failure without the extension "
            f"(geometric mean); mean time different by {in_words(mean)} ps "
            f"({direction(mean, 'longer', 'shorter', none=0.0)})."
        )
        asked = f"{variant}: is MD stable for longer {question}?"
        found.append(Answer(asked, sentence, title))
    return found


def _survivors(records: Sequence[Record], variant: str, title: str) -> list[Answer]:
    """Where there are any. Replicas of one model are not independent, so the interval
    is over seeds.
    """
    share = a.paired(records, variant, a.surviving_share)
    with_term, without = (a.by_seed(records, v) for v in (variant, a.BASELINE))
    common = with_term.keys() & without.keys()
    both = [a.survivors(of[seed] for seed in common) for of in (with_term, without)]
    if share is None or not any(survived for survived, _ in both):
        return []
    counts = " against ".join("{} of {}".format(*count) for count in both)
    sentence = (
        f"{counts} without the extension; difference in the share {in_words(share)} "
        f"({direction(share, 'more', 'fewer', none=0.0)})."
    )
    return [Answer(f"{variant}: do replicas survive to the horizon?", sentence, title)]


def _errors(records: Sequence[Record], variant: str, title: str) -> Answer:
    parts = []
    for name, quantity in (
        ("forces in distribution", a.force_error),
        ("forces out of it", a.force_error_out),
        ("energies in distribution", a.energy_error),
        ("energies out of it", a.energy_error_out),
    ):
        ratio = a.ratio(records, variant, quantity)
        if ratio is not None:
            said = direction(ratio, "larger", "smaller")
            parts.append(f"{name} {in_words(ratio)} ({said})")
    sentence = f"Ratio of errors: {'; '.join(parts)}."
    return Answer(f"{variant}: at what cost in accuracy?", sentence, title)


def _against(
    records: Sequence[Record], variant: str, other: str, title: str
) -> list[Answer]:
    against = a.paired(records, variant, a.log_time, other)
    if against is None or against.seeds < FEWEST_SEEDS:
        return []
    ratio = against.exp()
    sentence = (
        f"{in_words(ratio)} times its time to failure "
        f"({direction(ratio, 'longer', 'shorter')})."
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
            f"Ratios of the first to the second: time to failure {time}, force error "
            f"in distribution {force}, energy error {energy}.",
            SECTIONS["confirmed"][0],
        )
    ]


def _by_condition(records: Sequence[Record], variant: str, title: str) -> Answer:
    conditions = _places(records)
    del conditions["all"]
    return Answer(
        f"{variant}: in which condition?", _times(records, variant, conditions), title
    )


def _times(
    records: Sequence[Record], variant: str, places: dict[str, list[str] | None]
) -> str:
    parts = []
    for name, of in places.items():
        ratio = a.paired(records, variant, lambda r, c=of: a.log_time(r, c))
        if ratio is not None:
            parts.append(f"{name}: {in_words(ratio.exp())}")
    return f"Time to failure, ratio: {'; '.join(parts)}."


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
            "Is a difference significant after correction for multiple comparisons?",
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
    """In which condition, over all seeds."""
    if len(a.differences(records, variant, a.log_time)) < FEWEST_SEEDS:
        return []
    question = f"{variant}: over all seeds, including those used to choose it?"
    sentence = _times(records, variant, _places(records))
    return [Answer(question, sentence, title)]


def _relation(records: Sequence[Record]) -> list[Answer]:
    with_term = [r for r in records if r.variant in DECORRELATED]
    given = (a.force_error, a.force_error_out)
    less = ("less correlated models fail sooner", "less correlated models fail later")
    questions = {
        "Is correlation related to stability over all models?": (
            "Spearman",
            (records, a.mean_correlation, a.log_time),
            less,
        ),
        "And among models trained with the term?": (
            "Spearman",
            (with_term, a.mean_correlation, a.log_time),
            less,
        ),
        "Does it add information to force errors in and out of distribution?": (
            "Partial Spearman",
            (records, a.mean_correlation, a.log_time, given),
            less,
        ),
        "Does a static probe, the barrier in Hf-Hf bond scans, predict stability?": (
            "Spearman",
            (records, a.barrier, a.log_time),
            ("models with higher barriers fail later", "they fail sooner"),
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
    """Variants that have all seeds, best first."""
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
            f"Time to failure, ratio to no extension, {seeds} seeds: {listed}.",
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
            f"Ratios of {variant} to {reference}: force error "
            f"{in_words(error.exp(), 3)}, time to failure {in_words(time.exp())}; "
            f"difference in mean \\|rho\\| {in_words(rho, 3)}.",
            section,
        )
    ]


def _forms(records: Sequence[Record]) -> list[Answer]:
    """Other forms of the term against the package's."""
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
            "Is another form of the term more stable than constant-0.3?",
            f"Ratio of times to failure: {'; '.join(listed)}.",
            SECTIONS["forms"][0],
        )
    ]
