"""Answers to the questions of a study, worded from p-values and intervals alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log
from typing import Any

import numpy as np

from nequip_decorr.md.results import KINDS
from nequip_decorr.md.statistics.time_ratio import MIN_FAILED
from nequip_decorr.md.statistics.times import PairedTimes, Times, first_events
from nequip_decorr.md.statistics.units import MIN_UNITS
from nequip_decorr.study.left_out import left_out
from nequip_decorr.study.models import Model
from nequip_decorr.study.questions import Question
from nequip_decorr.study.statistics import (
    LEVEL,
    POWER,
    Effect,
    comparable,
    holm,
    power,
    ratio_effect,
    seeds_for_power,
    time_effect,
)

#: Effects for which the power of a study is reported, as ratios.
REFERENCE = {"time": (1.3, 2.0)}
OTHERS = (1.05, 1.2)

#: Words for a quantity that is larger, and smaller, than the baseline's.
WORDS = {
    "time": ("longer", "shorter"),
    "error": ("larger", "smaller"),
    "correlation": ("more correlated", "less correlated"),
    "training time": ("longer", "shorter"),
}

#: How the verdict begins where replicas ended before the event in question could come.
NOT_FOLLOWED = "not followed"

#: Times that differ by less are the same.
ROUNDING = 1 + 1e-9

#: The training seed, and the same replica of both models.
Pair = tuple[int, dict[str, Any], dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    """The answer to a question from the models so far.

    Attributes:
        question: what was asked.
        effect: the ratio to the baseline; None if nothing can be compared yet.
        p_value: unadjusted for the primary question, corrected for their number for
            all others. None with fewer than three seeds.
        verdict: one or two words.
        power: for each ratio, the probability that a study of this size detects it;
            None if the spread over seeds is unknown.
        seeds_needed: to detect the observed effect with power 0.8; None if unknown or
            more than a thousand.
        events: replicas with the event in the variant and in the baseline (MD only).
        left_out: seeds of the study that are not part of the answer, and why.
        notes: what limits the answer.
    """

    question: Question
    effect: Effect | None
    p_value: float | None = None
    verdict: str = "not known yet"
    power: dict[str, float] | None = None
    seeds_needed: int | None = None
    events: tuple[str, str] | None = None
    left_out: dict[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        if self.effect is None:
            return f"{self.question.text}: {self.verdict}"
        said = f"{self.question.text}: {in_words(self.effect, len(self.left_out))}"
        if self.p_value is not None:
            corrected = "" if self.question.primary else ", corrected"
            said += f", p = {self.p_value:.2g}{corrected}"
        return f"{said}: {self.verdict}"


def in_words(effect: Effect, left_out: int = 0) -> str:
    """A ratio with its interval and number of seeds, some of which were left out."""
    seeds = seeds_in_words(effect.seeds, left_out)
    if effect.value is None and effect.low is None and effect.high is None:
        return f"ratio not known ({seeds})"
    value = "" if effect.value is None else f"{effect.value:.3g} "
    if effect.low is None and effect.high is None:
        return f"{value}times the baseline's ({seeds}, no interval)"
    if effect.high is None:
        bound = f">= {effect.low:.3g}"
    elif effect.low is None:
        bound = f"<= {effect.high:.3g}"
    else:
        bound = f"{effect.low:.3g}, {effect.high:.3g}"
    return f"{value}[{bound}] times the baseline's ({seeds})"


def seeds_in_words(used: int, left_out: int) -> str:
    """How many seeds are in an answer: "8 seeds", or "6 of 8 seeds"."""
    planned = used + left_out
    return f"{part_of_seeds(used, left_out)} seed{'s' if planned != 1 else ''}"


def part_of_seeds(used: int, left_out: int) -> str:
    """The same without the noun: "8", or "6 of 8"."""
    return f"{used} of {used + left_out}" if left_out else str(used)


def answers(
    asked: Sequence[Question],
    found: Sequence[Model],
    baseline: str,
    variants: Sequence[str],
) -> list[Answer]:
    """Answer all questions, including those about errors that are known by now.

    Args:
        asked: questions fixed before the first training.
        found: all models.
        baseline: the variant with which the others are compared.
        variants: all variants.
    """
    questions = list(asked)
    questions += [q for q in error_questions(found, variants[1:]) if q not in asked]
    first = next((q for q in asked if q.primary), None)
    if first is not None:  # an error that is the primary question is asked once
        questions = [
            q for q in questions if q.primary or replace(q, primary=True) != first
        ]
    wall = on_gpu(found)
    given = [_answer(question, found, baseline, wall) for question in questions]
    return _judged(given)


def on_gpu(found: Sequence[Model]) -> bool:
    """Whether trainings had a GPU: their price is then wall time, and else CPU time."""
    return any(model.train_gpu for model in found)


def error_questions(found: Sequence[Model], variants: Sequence[str]) -> list[Question]:
    """Questions on the RMSE (or all errors if there is none) on each test set."""
    metrics = {
        (test, metric)
        for model in found
        for test, errors in model.errors.items()
        for metric in errors
    }
    squares = {(test, metric) for test, metric in metrics if metric.endswith("_rmse")}
    chosen = sorted(squares or metrics)
    return [
        Question(v, "error", test, metric) for v in variants for test, metric in chosen
    ]


def _answer(
    question: Question, found: Sequence[Model], baseline: str, wall: bool
) -> Answer:
    sides = [
        {m.seed: m for m in found if m.variant == name}
        for name in (question.variant, baseline)
    ]
    if question.quantity == "time":
        return _time_answer(question, *sides)
    values = [
        {
            seed: value
            for seed, model in side.items()
            if (value := _value(question, model, wall)) is not None
        }
        for side in sides
    ]
    missing = left_out(question, sides, comparable(*values))
    return Answer(question, ratio_effect(*values), left_out=missing)


def _value(question: Question, model: Model, wall: bool) -> float | None:
    if question.quantity == "error":
        return model.errors.get(str(question.where), {}).get(str(question.what))
    if question.quantity == "correlation":
        return model.correlation
    return model.train_wall_s if wall else model.train_s


def _time_answer(
    question: Question, models: dict[int, Model], others: dict[int, Model]
) -> Answer:
    condition, kind = str(question.where), str(question.what)
    pairs: list[Pair] = []
    for seed in sorted(models.keys() & others.keys()):
        sides = [
            {
                (r["structure"], r["seed"]): r
                for r in side[seed].replicas.get(condition, [])
            }
            for side in (models, others)
        ]
        for key in sorted(sides[0].keys() & sides[1].keys()):
            pairs.append((seed, sides[0][key], sides[1][key]))
    seeds = [seed for seed, _, _ in pairs]
    missing = left_out(question, (models, others), set(seeds))
    if not pairs:
        return Answer(question, None, left_out=missing)
    one = next(m for m in models.values() if condition in m.horizon_ps)
    horizon_ps, step_ps = one.horizon_ps[condition], one.timestep_fs[condition] / 1000
    _, numbers = np.unique(seeds, return_inverse=True)
    first = _times([ours[kind] for _, ours, _ in pairs], horizon_ps)
    second = _times([theirs[kind] for _, _, theirs in pairs], horizon_ps)
    counts = [f"{int(t.failed.sum())}/{len(t.failed)}" for t in (first, second)]
    answer = Answer(question, None, events=(counts[0], counts[1]), left_out=missing)
    ended = (
        np.array([ended_by_the_other(r, kind, horizon_ps) for _, r, _ in pairs]),
        np.array([ended_by_the_other(r, kind, horizon_ps) for _, _, r in pairs]),
    )
    n_ended = [int(side.sum()) for side in ended]
    if kind == "explosion" and any(n_ended):
        # censoring must be independent of the event, and this is not
        return replace(
            answer,
            verdict=f"{NOT_FOLLOWED}: an unphysical geometry ended {sum(n_ended)} of "
            f"{2 * len(pairs)} replicas before an explosion could; set `until: "
            "explosion` to compare",
        )
    # the replicas of a simulation are at one temperature
    together = np.zeros_like(numbers)
    paired = PairedTimes(first, second, numbers, together, horizon_ps, step_ps)
    notes: tuple[str, ...] = ()
    if any(n_ended):
        either = time_effect(first_events(paired, ended))
        notes = (
            f"{n_ended[0]} of {len(pairs)} replicas, and {n_ended[1]} of the "
            "baseline's, exploded before the geometry became unphysical: censored "
            f"there. With these counted as events too, {in_words(either)}",
        )
    if not first.failed.any() and not second.failed.any():
        return replace(answer, verdict="no event in either", notes=notes)
    return replace(answer, effect=time_effect(paired), notes=notes)


def _times(events: Sequence[dict[str, Any]], horizon_ps: float) -> Times:
    return Times(
        np.array([min(event["time_ps"], horizon_ps) for event in events]),
        # the last step may end after the horizon
        np.array(
            [e["happened"] and e["time_ps"] <= horizon_ps * ROUNDING for e in events]
        ),
    )


def ended_by_the_other(
    replica: Mapping[str, Any], kind: str, horizon_ps: float
) -> bool:
    """Whether an event of the other kind ended a replica before the horizon."""
    other = next(k for k in KINDS if k != kind)
    cut: bool = replica[kind]["time_ps"] < horizon_ps / ROUNDING
    return cut and replica[other]["happened"] and not replica[kind]["happened"]


def _judged(given: Sequence[Answer]) -> list[Answer]:
    """Correct the p-values and set the verdicts."""
    p_values = {
        answer.question: answer.effect.p_value
        for answer in given
        if answer.effect is not None and answer.effect.p_value is not None
    }
    others = [question for question in p_values if not question.primary]
    corrected = holm([p_values[question] for question in others])
    p_values |= dict(zip(others, corrected, strict=True))
    return [_finished(answer, p_values.get(answer.question)) for answer in given]


def _finished(answer: Answer, p_value: float | None) -> Answer:
    effect = answer.effect
    if effect is None:
        return answer
    if effect.seeds < MIN_UNITS:
        return replace(answer, verdict="no verdict from fewer than three seeds")
    if p_value is None:
        return replace(answer, verdict="no verdict: the same ratio in every seed")
    larger, smaller = WORDS[answer.question.quantity]
    verdict = "no difference shown"
    if p_value < LEVEL and not effect.direction:
        # by hazards, ratios that are not rejected may lie on both sides of others
        verdict += ": the interval includes 1"
    if p_value < LEVEL and effect.direction:
        verdict = larger if effect.direction > 0 else smaller
    elif effect.direction:
        verdict = "no difference shown after correction"
    found = replace(answer, p_value=p_value, verdict=verdict)
    if effect.spread is None or effect.value is None:
        return found
    ratios = REFERENCE.get(answer.question.quantity, OTHERS)
    spread = effect.spread
    powers = {f"{r:g}": power(log(r), spread, effect.seeds) for r in ratios}
    needed = seeds_for_power(log(effect.value), spread)
    return replace(found, power=powers, seeds_needed=needed)


def power_in_words(answer: Answer) -> str | None:
    """Power of the study, and the seeds that the observed effect would need."""
    if answer.effect is None or answer.p_value is None:
        return None
    if answer.effect.method == "hazards":
        return (
            f"power not known: fewer than {100 * MIN_FAILED:.0f} % of the replicas of "
            "a variant had the event, so there is no ratio for single seeds"
        )
    if not answer.power:
        return None
    shown = ", ".join(f"{p:.2f} for x{ratio}" for ratio, p in answer.power.items())
    said = f"power with {answer.effect.seeds} seeds: {shown}"
    if answer.verdict.startswith("no difference"):
        needed = answer.seeds_needed
        said += (
            f"; detecting the observed effect takes {needed} seeds"
            if needed is not None
            else "; detecting the observed effect takes more than 1000 seeds"
        )
        said += f" (power {POWER:g})"
    return said
