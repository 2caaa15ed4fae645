"""What the options of :class:`nequip_decorr.EdgeCorrelation` must be."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Any

from nequip_decorr.correlation.functional import PENALTIES
from nequip_decorr.errors import UserError


def check_options(metric: Any) -> None:
    """Raise a UserError for options out of range; shapes are known with the data."""
    if metric.layer_dim is not None and not (
        is_whole(metric.layer_dim) and metric.layer_dim >= 1
    ):
        raise UserError(
            f"expected a positive `layer_dim` or null, got {metric.layer_dim!r}"
        )
    layers = metric.layers
    if layers is not None and not all(map(is_whole, layers)):
        raise UserError(
            f"expected `layers` to be a list of whole numbers, got {layers}"
        )
    if layers is not None and len(set(layers)) != len(layers or [0]):
        raise UserError(
            f"expected `layers` to name different layers, got {layers}; leave it null "
            f"for all"
        )
    weights = metric.layer_weights
    if weights is not None and not (
        all(is_finite(w) and w >= 0 for w in weights) and sum(weights) > 0
    ):
        raise UserError(
            f"expected finite `layer_weights` >= 0, not all 0, got {weights}"
        )
    if metric.penalty not in PENALTIES:
        raise UserError(
            f"expected `penalty` to be one of {PENALTIES}, got '{metric.penalty}'"
        )
    if not (is_finite(metric.variance_floor) and 0 <= metric.variance_floor <= 1):
        raise UserError(
            f"expected `variance_floor` between 0 and 1, got {metric.variance_floor!r}"
        )
    if metric.max_edges is not None and not (
        is_whole(metric.max_edges) and metric.max_edges >= 2
    ):
        raise UserError(
            f"expected a whole `max_edges` of at least 2 or null, got "
            f"{metric.max_edges!r}"
        )
    if not is_whole(metric.seed):
        raise UserError(f"expected a whole `seed`, got {metric.seed!r}")


def is_whole(value: Any) -> bool:
    """Whether a value is an integer, and not a boolean."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether a value is a number, and neither a boolean nor NaN or infinity."""
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


def as_list(name: str, value: Any) -> list[Any] | None:
    """A list of an option's values, or None.

    Raises:
        UserError: when it is something else, naming the option.
    """
    if value is None:
        return None
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    raise UserError(f"expected `{name}` to be a list or null, got {value!r}")


def plain(value: Any) -> Any:
    """A list of any sequence but a string, as checkpoints keep it; else the value."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return value
