"""Numbers with their uncertainty, as text."""

from __future__ import annotations

from nequip_decorr.md.statistics.score import Interval
from nequip_decorr.md.statistics.time_ratio import TimeRatio


def bounded(interval: Interval, n_failures: int) -> str:
    """A share such as S(tau); without failures, its lower bound instead of 1."""
    if n_failures == 0:
        return f">= {interval.low:.2f}"
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def ratio_words(ratio: TimeRatio) -> str:
    """A ratio and its interval; ``>=`` or ``<=`` if only one limit is known."""
    value, low, high = (
        None if x is None else times(x) for x in (ratio.value, ratio.low, ratio.high)
    )
    if low is not None and high is not None:
        return f"{value} [{low}, {high}]"
    if low is not None or high is not None:
        bound = f">= {low}" if high is None else f"<= {high}"
        return bound if value is None else f"{value} [{bound}]"
    return "not known" if value is None else f"{value} [no limits]"


def error_words(error: float, standard_error: float | None) -> str:
    """An error with its standard error, if there is one."""
    if standard_error is None:
        return f"{error:.3f}"
    return f"{error:.3f} ± {standard_error:.3f}"


def times(ratio: float) -> str:
    """A ratio to two decimals, or two digits if it is far from one."""
    if ratio < 0.1:
        return f"{ratio:.2g}"
    return f"{ratio:.2f}" if ratio < 10 else f"{float(f'{ratio:.2g}'):.0f}"


def p_words(p_value: float | None) -> str:
    """A p-value to two digits, ``-`` if there is none."""
    return "-" if p_value is None else f"{p_value:.2g}"
