"""The metrics that the callback adds to the loss and to the validation metrics."""

from __future__ import annotations

from typing import Any

from nequip_decorr.correlation.pooled import EdgeCorrelation
from nequip_decorr.correlation.sampled import SampledCorrelation
from nequip_decorr.training.features import Features
from nequip_decorr.training.options import Options


def new_term(options: Options, found: Features) -> SampledCorrelation:
    """The term of the loss: correlation of a sample of each batch."""
    term = SampledCorrelation(
        blocks=found.blocks,
        dist_sync_on_step=True,
        max_edges=options.sample.edges,
        max_channels=options.sample.channels,
        **_common(options),
    )
    term.checked_by_callback = True
    return term


def new_monitor(options: Options, found: Features) -> EdgeCorrelation:
    """The validation metric: correlation of all validation data."""
    metric = EdgeCorrelation(blocks=found.blocks, **_common(options))
    metric.checked_by_callback = True
    return metric


def _common(options: Options) -> dict[str, Any]:
    return {
        "layer_weights": options.layer_weights,
        "penalty": options.penalty.kind,
        "variance_floor": options.penalty.floor,
        "seed": options.sample.seed,
    }
