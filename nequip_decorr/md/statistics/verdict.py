"""The result of a comparison in words, no stronger than its numbers."""

from __future__ import annotations

from nequip_decorr.md.statistics.logrank import LogRank
from nequip_decorr.md.statistics.score import Interval
from nequip_decorr.md.statistics.survival import counted

#: With fewer pairs no outcome is unlikely enough: all six of six in favour of one
#: model has a probability of 2 * 0.5^6 = 0.03 if there is no difference, five 0.06.
MIN_PAIRS = 6

#: A log-rank test below this speaks where the score's interval does not. Half of 5 %,
#: because two tests get two chances.
LOG_RANK_LEVEL = 0.025

#: With fewer pairs its normal distribution is off: all six of six has z = 2.45, which
#: it takes for 0.014, and a probability of 0.03.
MIN_PAIRS_LOG_RANK = 7


def verdict(
    difference: Interval,
    log_rank: LogRank,
    n_pairs: int,
    names: tuple[str, str],
    *,
    early: bool = True,
) -> str:
    """A winner only where the interval excludes zero or the log-rank test is clear.

    The score is the mean share of the horizon, and its interval leaves room for
    replicas that might have survived to the end. Models that all fail in the first
    percent of the horizon differ little in it, however surely one fails first; the test
    of the rates of failure shows it.

    Args:
        difference: of the scores.
        log_rank: of the same pairs.
        n_pairs: how many.
        names: of both models.
        early: whether both survive less than half of the horizon.
    """
    numbers = (
        f"score difference {difference.value:+.2f} "
        f"[{difference.low:+.2f}, {difference.high:+.2f}]"
    )
    if n_pairs < MIN_PAIRS:
        return (
            f"no verdict: {counted(n_pairs, 'pair')}, at least {MIN_PAIRS} are needed "
            f"to compare {names[0]} and {names[1]}; {numbers}"
        )
    if difference.low > 0:
        return f"{names[0]} is more stable than {names[1]}: {numbers}"
    if difference.high < 0:
        return f"{names[1]} is more stable than {names[0]}: {numbers}"
    p_value, z = log_rank.p_value, log_rank.z
    enough = n_pairs >= MIN_PAIRS_LOG_RANK
    if enough and p_value is not None and z is not None and p_value < LOG_RANK_LEVEL:
        slower, faster = names if z < 0 else names[::-1]
        advice = (
            "compare the medians, or shorten the horizon"
            if early
            else "a longer horizon would show it"
        )
        return (
            f"{slower} fails at a lower rate than {faster} on these structures "
            f"(log-rank p = {p_value:.1g}), but the share of the horizon that it "
            f"survives is not shown to be larger: {numbers}; {advice}"
        )
    return (
        f"no difference shown between {names[0]} and {names[1]}: {numbers}; the "
        "interval does not exclude either order"
    )
