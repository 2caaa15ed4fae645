"""The questions of a study, fixed before its first training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from nequip_decorr.md.results import KINDS
from nequip_decorr.study.config import Primary, Study
from nequip_decorr.study.plan import Plan

#: Quantities of which a study knows neither a condition nor a test set.
ALONE = ("correlation", "training time")


@dataclass(frozen=True)
class Question:
    """How does a variant compare with the baseline?

    Attributes:
        variant: the variant in question.
        quantity: ``time``, ``error``, ``correlation`` or ``training time``.
        where: MD condition or test set; None for the quantities in :data:`ALONE`.
        what: kind of event or metric.
        primary: whether its p-value is not corrected for multiple questions.
    """

    variant: str
    quantity: str
    where: str | None = None
    what: str | None = None
    primary: bool = False

    @property
    def text(self) -> str:
        """In words."""
        if self.quantity == "time":
            event = (
                "an explosion" if self.what == "explosion" else "unphysical geometry"
            )
            return f"{self.variant}: time to {event}, {self.where}"
        if self.quantity == "error":
            return f"{self.variant}: {self.what}, {self.where}"
        return f"{self.variant}: {self.quantity}"


def questions(study: Study, plan: Plan) -> dict[str, Any]:
    """Questions, and how they will be answered, as written to the folder.

    Test metrics are known only after a model has been tested, so the questions about
    them are written as a rule, corrected together with all other questions.
    """
    return {
        "plan": plan.checksum,
        "baseline": study.baseline,
        "primary": None if study.primary is None else asdict(primary(study.primary)),
        "secondary": [asdict(q) for q in secondary(study)],
        "rule": (
            "Unit: training seed; differences from the baseline within a seed, "
            "Student's interval over seeds (95 %). The primary question has an "
            "unadjusted p; all others, and every RMSE on every test set (every error, "
            "if there is no RMSE), are corrected together by Holm. No verdict from "
            "fewer than three seeds."
        ),
    }


def primary(asked: Primary) -> Question:
    """The primary question."""
    if asked.test is not None:
        return Question(asked.variant, "error", asked.test, asked.metric, primary=True)
    return Question(asked.variant, "time", asked.condition, asked.event, primary=True)


def secondary(study: Study) -> Iterator[Question]:
    """All other questions that are known before a model is tested."""
    first = None if study.primary is None else primary(study.primary)
    for variant in list(study.variants)[1:]:
        for simulation in study.md:
            if simulation.is_drift:
                continue
            for condition in simulation.conditions:
                for kind in KINDS:
                    found = Question(variant, "time", condition, kind)
                    if replace(found, primary=True) != first:
                        yield found
        for quantity in ALONE:
            yield Question(variant, quantity)


def read_questions(data: Mapping[str, Any]) -> list[Question]:
    """The questions stored in a folder, the primary one first."""
    found = [] if data["primary"] is None else [Question(**data["primary"])]
    return found + [Question(**each) for each in data["secondary"]]
