"""What the callback writes: names and values for loggers, lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nequip_decorr.correlation.pooled import EdgeCorrelation
from nequip_decorr.nested import flat
from nequip_decorr.training.schedules import Planned, Schedule

_LOG_NAMES = {
    "mean_abs": "mean_abs_rho",
    "mean_square_debiased": "mean_rho2_debiased",
    "rankme": "effective_rank",
    "dead_fraction": "dead_fraction",
}


#: Channels of a block beyond which the monitor's time, quadratic in them, matters.
WIDE = 1024


def block_values(prefix: str, metric: EdgeCorrelation) -> dict[str, Tensor]:
    """Diagnosis of each block since the last reset, by the logged names.

    Raises:
        UserError: before the first batch.
    """
    diagnosis = metric.diagnosis()
    count = diagnosis.rms.shape[0]
    names = [block.name for block in metric.blocks or []] or list(
        map(str, range(count))
    )
    return {
        f"{prefix}_layer{name}_{logged}": getattr(diagnosis, field)[index]
        for index, name in enumerate(names)
        for field, logged in _LOG_NAMES.items()
    }


def wide_line(name: str, channels: int) -> str:
    """The monitor's cost, where features are wide."""
    return (
        f"{name}: the monitor correlates {channels} channels with each other at each "
        f"validation, which may take longer than the validation itself; "
        f"`nequip_decorr.monitor: false` switches it off"
    )


def start_line(version: str, features: str, schedule: Schedule) -> str:
    """What is decorrelated, and how strongly."""
    what = ""
    if schedule.coeff == 0:
        what = " (monitor only)"
    elif isinstance(schedule, Planned) and schedule.relative:
        what = " times the rest of the loss"
    return (
        f"nequip_decorr {version}: {features}; schedule {schedule.kind}, coefficient "
        f"{schedule.coeff}{what}"
    )


def restart_line(
    before: Mapping[str, Any] | None, settings: Mapping[str, Any], step: int
) -> str:
    """What changed at a restart; ``before`` is None when the term was off.

    Options that only one of two kinds of schedule has are left out: the kind is named.
    """
    if before is None:
        return f"turned on at step {step} of a restarted training"
    old = flat(before)
    changes = [
        f"{key} {old[key]} -> {value}"
        for key, value in flat(settings).items()
        if key in old and old[key] != value
    ]
    return f"restarted at step {step}, " + (
        "settings changed: " + ", ".join(changes) if changes else "settings unchanged"
    )


def off_line(name: str, delay: float, end: float) -> str:
    """Says that a term is never turned on."""
    return (
        f"'{name}' is never turned on: its `schedule.delay` {delay} is not before the "
        f"end of the training at {end:g}"
    )


def idle_line(name: str, lacked: str, rows: str, epoch: int) -> str:
    """Says that a term had no effect in an epoch, and what to check.

    Args:
        name: of the term.
        lacked: see :meth:`nequip_decorr.correlation.sampled.SampledCorrelation.idle`.
        rows: ``edge`` or ``node``, what the rows of the features are.
        epoch: number of the epoch.
    """
    if lacked == "edges":
        what = "edges" if rows == "edge" else "atoms"
        return (
            f"'{name}' found no {what} in epoch {epoch} and had no effect; check the "
            f"cutoff and the training frames"
        )
    return (
        f"'{name}' found only constant channels in epoch {epoch} and had no effect; "
        f"change `layer_weights` or `features`, or check the model with `nequip-decorr "
        f"inspect`"
    )
