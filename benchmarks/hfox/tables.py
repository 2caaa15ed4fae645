"""Tables of RESULTS.md, README.md and docs/evidence.md, from the studies.

Each condition stands alone: unseen compositions and a higher temperature are different
questions. Ratios, intervals and p-values are those of ``nequip-decorr study``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import mean

import numpy as np
from scipy import stats

from nequip_decorr.md.statistics.units import student_interval
from nequip_decorr.study.answers import Answer, answers
from nequip_decorr.study.models import Model
from nequip_decorr.study.report.result import Findings

from ..pages import head as table_head
from ..pages import in_units, line

Studies = Mapping[str, Findings]
#: What a table shows of a variant of a study.
Cell = Callable[[Findings, str], str]
#: Label, study and variant.
Row = tuple[str, str, str]

#: Heading -> condition of MD and test set of the same composition and temperature.
CONDITIONS = {
    "HfO1.56, 1200 K": ("HfO1.56@1200K", "hfo1.56_1200K"),
    "HfO1.12, 1200 K": ("HfO1.12@1200K", "hfo1.12_1200K"),
    "HfO2, 2400 K": ("HfO2@2400K", "hfo2_2400K"),
}


def ratio(
    quantity: str, where: str | None, what: str | None, found: Findings, variant: str
) -> str:
    """Ratio to the baseline; of the baseline its value. ``where`` may be ``in``."""
    if where == "in":
        where = in_distribution(found)
    asked = (quantity, where, what)
    given = [
        a
        for a in found.answers
        if (a.question.quantity, a.question.where, a.question.what) == asked
    ]
    if variant == found.variants[0]:
        effect = given[0].effect if given else None
        if effect is None or effect.baseline is None:
            return "-"
        return in_units(quantity, what, effect.baseline, digits=2)
    return shown(next((a for a in given if a.question.variant == variant), None))


def shown(answer: Answer | None) -> str:
    """A ratio; bold where its interval excludes 1, starred where its p-value does."""
    effect = answer.effect if answer else None
    if answer is None or effect is None or effect.value is None:
        return "-"
    value = f"{effect.value:.2f}"
    if effect.low is None or effect.high is None:
        return value
    if effect.direction:
        star = "\\*" if answer.p_value is not None and answer.p_value < 0.05 else ""
        value = f"**{value}**{star}"
    return f"{value} [{effect.low:.2f}, {effect.high:.2f}]"


def in_distribution(found: Findings) -> str:
    """The test set of the composition and the temperatures of the training."""
    outside = [test for _, test in CONDITIONS.values()]
    tests = (test for model in found.models for test in model.errors)
    return next(test for test in tests if test not in outside)


def survivors(condition: str, found: Findings, variant: str) -> str:
    """Replicas that reached the horizon."""
    ends = [
        replica["censored_by"]
        for model in found.models
        if model.variant == variant
        for replica in model.replicas.get(condition, [])
    ]
    return f"{ends.count('horizon')} of {len(ends)}"


def drift(found: Findings, variant: str) -> str:
    """Mean size of the NVE drift, and how many of its replicas failed."""
    every = [m.drift.get("nve", []) for m in found.models if m.variant == variant]
    slopes = [slope for model in every for slope in model]
    known = [abs(slope) for slope in slopes if slope is not None]
    said = f"{mean(known):.3f}" if known else "-"
    failed = len(slopes) - len(known)
    return f"{said}; {failed} of {len(slopes)} failed" if failed else said


def seeds(found: Findings, variant: str) -> str:
    """How many models there are."""
    return str(sum(model.variant == variant for model in found.models))


def of_conditions(quantity: str, what: str) -> dict[str, Cell]:
    """A column for each condition."""
    return {
        heading: partial(ratio, quantity, names[quantity == "error"], what)
        for heading, names in CONDITIONS.items()
    }


TIMES = of_conditions("time", "unphysical")
SURVIVORS: dict[str, Cell] = {
    heading: partial(survivors, condition)
    for heading, (condition, _) in CONDITIONS.items()
}
FORCES, ENERGIES = (
    {
        "in distribution": partial(ratio, "error", "in", metric),
        **of_conditions("error", metric),
    }
    for metric in ("forces_rmse", "per_atom_energy_rmse")
)
TRAINING: dict[str, Cell] = {
    "mean abs(rho)": partial(ratio, "correlation", None, None),
    "CPU time of training": partial(ratio, "training time", None, None),
    "NVE drift, meV/atom/ps": drift,
}


def table(
    studies: Studies, rows: Iterable[Row], columns: Mapping[str, Cell], head: str = ""
) -> str:
    """A table in Markdown; the label may hold several cells."""
    lines = table_head([*head.split(" | "), *columns])
    for label, study, variant in rows:
        cells = [cell(studies[study], variant) for cell in columns.values()]
        lines.append(line([label, *cells]))
    return "\n".join(lines)


def everything(studies: Studies) -> list[Row]:
    """Every variant of every study; the label is the study, the variant and seeds."""
    return [
        (f"{name} | {variant} | {seeds(found, variant)}", name, variant)
        for name, found in studies.items()
        for variant in found.variants
    ]


def with_survivors(studies: Studies) -> list[Row]:
    """Rows of the studies in which a replica reached the horizon."""
    return [
        row
        for row in everything(studies)
        if any(
            replica["censored_by"] == "horizon"
            for model in studies[row[1]].models
            for replicas in model.replicas.values()
            for replica in replicas
        )
    ]


def together(studies: Studies, both: Mapping[tuple[str, ...], str]) -> str:
    """Times of a variant over the seeds of several studies."""
    lines = table_head(["study", "variant", "seeds", *CONDITIONS])
    for names, variant in both.items():
        parts = [studies[name] for name in names]
        models = [model for part in parts for model in part.models]
        asked = [
            answer.question
            for answer in parts[0].answers
            if (answer.question.variant, answer.question.what)
            == (variant, "unphysical")
        ]
        found = answers(asked, models, parts[0].variants[0], [])
        given = {each.question.where: replace(each, p_value=None) for each in found}
        cells = [" and ".join(names), variant]
        cells.append(str(len({m.seed for m in models if m.variant == variant})))
        cells += [shown(given[condition]) for condition, _ in CONDITIONS.values()]
        lines.append(line(cells))
    return "\n".join(lines)


def ranks(found: Findings, condition: str, variants: Sequence[str]) -> str:
    """Spearman's correlation of mean |rho| and time to failure, within a seed.

    Averaged over seeds by Fisher's z, with Student's interval.
    """
    values = []
    for seed in found.registered.seeds:
        models = [m for m in found.models if m.seed == seed and m.variant in variants]
        rho = [model.correlation for model in models]
        values.append(stats.spearmanr(rho, [log_time(m, condition) for m in models])[0])
    z = student_interval(np.arctanh(np.clip(values, -0.999, 0.999)))
    value, low, high = np.tanh([z.value, z.low, z.high])
    said = f"{value:.2f}" if low <= 0 <= high else f"**{value:.2f}**"
    return f"{said} [{low:.2f}, {high:.2f}]"


def log_time(model: Model, condition: str) -> float:
    """Mean log time until an unphysical geometry, of at least a time step."""
    step_ps = model.timestep_fs[condition] / 1000
    times = [each["unphysical"]["time_ps"] for each in model.replicas[condition]]
    return float(np.mean(np.log(np.maximum(times, step_ps))))


def rank_table(found: Findings) -> str:
    """:func:`ranks` over all variants, and over those that were decorrelated."""
    overrides = found.registered.identity["variants"]
    ours = [
        variant
        for variant in found.variants
        if "nequip_decorr" in str(overrides[variant]["overrides"])
    ]
    rows = {"all variants": found.variants, "those with the term": ours}
    lines = table_head(["", *CONDITIONS])
    for label, variants in rows.items():
        cells = [ranks(found, name, variants) for name, _ in CONDITIONS.values()]
        lines.append(line([f"{label} ({len(variants)})", *cells]))
    return "\n".join(lines)
