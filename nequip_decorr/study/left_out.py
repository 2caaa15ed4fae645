"""Training seeds that are not part of an answer, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from nequip_decorr.study.models import Model
from nequip_decorr.study.questions import Question

#: Stage that answers the questions about a quantity.
STAGES = {"error": "test", "correlation": "inspect", "training time": "train"}

NOT_DONE = "not done"


def left_out(
    question: Question, sides: Sequence[Mapping[int, Model]], used: Collection[int]
) -> dict[int, str]:
    """Seeds of the study without a part in an answer: ``{3: "decorr: train failed"}``.

    Args:
        question: the question.
        sides: models of the variant and of the baseline, by seed.
        used: seeds in the answer.
    """
    planned = sorted(set[int]().union(*sides))
    return {
        seed: "; ".join(_reasons(question, sides, seed))
        for seed in planned
        if seed not in used
    }


def _reasons(
    question: Question, sides: Sequence[Mapping[int, Model]], seed: int
) -> list[str]:
    models = [side[seed] for side in sides if seed in side]
    found = [
        f"{model.variant}: {why}"
        for model in models
        if (why := _reason(question, model)) is not None
    ]
    return found or ["values that cannot be compared"]


def _reason(question: Question, model: Model) -> str | None:
    """Why a model has no value; None if it has one."""
    if _is_known(question, model):
        return None
    failed = [stage for stage in model.failed if stage in _needed(question, model)]
    if failed:
        return f"{', '.join(failed)} failed"
    if question.quantity == "training time" and model.checkpoint is not None:
        return "interrupted"
    return NOT_DONE


def _is_known(question: Question, model: Model) -> bool:
    if question.quantity == "time":
        return bool(model.replicas.get(str(question.where)))
    if question.quantity == "error":
        return str(question.what) in model.errors.get(str(question.where), {})
    if question.quantity == "correlation":
        return bool(model.layers)
    return model.train_s is not None


def _needed(question: Question, model: Model) -> Iterator[str]:
    """Stages without which a question about a model has no answer."""
    yield "train"
    if question.quantity == "time":
        yield from (stage for stage in model.failed if stage.startswith("compile"))
        yield f"md-{str(question.where).rpartition('@')[0]}"
    else:
        yield STAGES[question.quantity]
