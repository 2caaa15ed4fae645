"""The result of a comparison in words, no stronger than its numbers."""

from __future__ import annotations

from collections.abc import Mapping

from nequip_decorr.md.results import KINDS
from nequip_decorr.md.statistics.time_ratio import TimeRatio
from nequip_decorr.md.statistics.units import MIN_UNITS
from nequip_decorr.md.statistics.wording import p_words, ratio_words
from nequip_decorr.wording import counted

#: Sign-flip p-values from here on do not support a verdict of the interval.
LEVEL = 0.05

#: What a comparison of two models says nothing about. The share is that of 1494
#: comparisons in the benchmark on hafnium oxide.
NOT_THE_RECIPE = (
    "this compares these two models, not the recipes used to train them: in our "
    "benchmark, two training seeds of one recipe differ in about 60 % of such "
    "comparisons"
)

#: Events of each kind, in words.
EVENTS = {"unphysical": "unphysical geometries", "explosion": "explosions"}

#: What a longer time to an event of each kind means.
LATER = {
    "unphysical": "{} keeps a physical geometry for longer",
    "explosion": "{} explodes later",
}


def verdict(ratio: TimeRatio, failures: tuple[int, int], names: tuple[str, str]) -> str:
    """A winner if and only if the interval of the time ratio excludes one.

    Args:
        ratio: ratio of the times to failure, first / second.
        failures: number of failures of the first and the second model.
        names: names of both models.
    """
    if ratio.units < MIN_UNITS:
        return (
            f"no verdict: {counted(ratio.units, 'structure')}, at least {MIN_UNITS} "
            f"are needed to compare {names[0]} and {names[1]}"
        )
    if not any(failures):
        return f"no event in {names[0]} or {names[1]}: no difference shown"
    if ratio.method == "log times" and ratio.value is not None and ratio.low is None:
        return (
            f"no verdict: the time ratio, {ratio_words(ratio)}, is the same for every "
            "structure: times are too coarse to tell how much it varies"
        )
    if ratio.longer is None:
        why = _why_open(ratio, failures, names)
        return f"no difference shown between {names[0]} and {names[1]}: {why}"
    better, worse = names if ratio.longer == 0 else names[::-1]
    factor = ratio_words(ratio if ratio.longer == 0 else ratio.inverse)
    return f"{better} is more stable than {worse}: it lasts {factor} times as long"


def _why_open(
    ratio: TimeRatio, failures: tuple[int, int], names: tuple[str, str]
) -> str:
    """Why the interval of a time ratio does not exclude one."""
    if ratio.low is None and ratio.high is None:
        n_events = " and ".join(
            f"{n} in {name}" for n, name in zip(failures, names, strict=True)
        )
        return f"too few events for a time ratio ({n_events})"
    if ratio.value is None:
        return f"the time ratio is only known to be {ratio_words(ratio)}"
    return f"the interval of the time ratio, {ratio_words(ratio)}, includes 1"


def doubts(ratio: TimeRatio) -> list[str]:
    """A note if the exact test over structures does not support the winner."""
    p_value = ratio.sign_flip_p
    if ratio.longer is None or p_value is None or p_value < LEVEL:
        return []
    return [
        "a close call: the exact sign-flip test over structures gives p = "
        f"{p_words(p_value)}"
    ]


def agreement(longer: Mapping[str, int | None], names: tuple[str, str]) -> str | None:
    """How the verdicts for the two kinds of event differ; None if they agree.

    Args:
        longer: by kind of event, 0 or 1 for the model shown to last longer, or None;
            only kinds that were followed and happened.
        names: of both models.
    """
    if set(longer) != set(KINDS) or len(set(longer.values())) == 1:
        return None
    shown = {kind: names[index] for kind, index in longer.items() if index is not None}
    if len(shown) == 1:
        ((kind, name),) = shown.items()
        (other,) = set(KINDS) - {kind}
        return (
            f"the verdicts differ: {LATER[kind].format(name)}; for {EVENTS[other]} no "
            "difference is shown, which does not mean that the two kinds differ"
        )
    said = ", ".join(LATER[kind].format(name) for kind, name in shown.items())
    return f"the two kinds disagree: {said}"
