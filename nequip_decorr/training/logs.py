"""What the callback writes: names and values for loggers, lines for the terminal."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nequip_decorr.correlation.pooled import EdgeCorrelation

_LOG_NAMES = {
    "mean_abs": "mean_abs_rho",
    "mean_square_debiased": "mean_rho2_debiased",
    "rankme": "effective_rank",
    "dead_fraction": "dead_fraction",
}


def block_values(prefix: str, metric: EdgeCorrelation) -> dict[str, Tensor]:
    """Diagnosis of each block since the last reset, by the names that are logged.

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


def restart_line(
    before: dict[str, Any] | None, settings: dict[str, Any], step: int
) -> str:
    """What changed at a restart; ``before`` is None when the term was off."""
    if before is None:
        return f"turned on at step {step} of a restarted training"
    changes = [
        f"{key} {before.get(key)} -> {value}"
        for key, value in settings.items()
        if before.get(key) != value
    ]
    return f"restarted at step {step}, " + (
        "settings changed: " + ", ".join(changes) if changes else "unchanged"
    )


def idle_line(name: str, lacked: str, rows: str, epoch: int) -> str:
    """Says that a term had nothing to do, and what to look at.

    Args:
        name: of the term.
        lacked: see :meth:`nequip_decorr.correlation.sampled.SampledCorrelation.idle`.
        rows: ``edge`` or ``node``, what has the features.
        epoch: in which.
    """
    if lacked == "edges":
        what = "edges" if rows == "edge" else "atoms"
        return (
            f"'{name}' met no {what} in epoch {epoch} and had no effect; check the "
            f"cutoff and the training frames"
        )
    return (
        f"'{name}' met only constant channels in epoch {epoch} and had no effect; "
        f"choose other `layers` or `features`, or look at them with `nequip-decorr "
        f"inspect`"
    )
