"""EdgeCorrelation as the only term of NequIP's manager, and features for it."""

import torch
from nequip.train import MetricsManager

from nequip_decorr import EdgeCorrelation
from nequip_decorr.correlation.functional import as_blocks
from tests.support import reference

CHANNELS = 4


LAYERS = 3


def features(seed, edges=30, dtype=torch.float64, layers=LAYERS):
    return reference.mixed_features(seed, edges, layers, CHANNELS, dtype)


def looped(x, kind="square", floor=reference.VARIANCE_FLOOR):
    blocks = as_blocks(x, CHANNELS).double().numpy()
    return [
        reference.penalty(blocks[:, i], kind, floor) for i in range(blocks.shape[1])
    ]


def managed(coeff=1.0, **options):
    """The metric as the only term of NequIP's manager: (manager, metric)."""
    metric = EdgeCorrelation(layer_dim=CHANNELS, **options)
    entry = {"name": "ec", "field": None, "metric": metric, "coeff": coeff}
    return MetricsManager([entry]), metric


def step(manager, x):
    return manager({"edge_features": x}, {}, prefix="train/")["train/ec"]


def drawn_rows(total, step=0, **options):
    """Which rows the metric draws, seen from outside: each row is its own channel."""
    metric = EdgeCorrelation(**options)
    metric.step = step
    metric({"edge_features": torch.eye(total, dtype=torch.float64)}, {})
    drawn = metric.first[0] > 0.5
    assert drawn.sum() == min(total, options.get("max_edges") or total)
    return drawn
