"""What a step of the term may not do, whatever the machine: mechanisms, not times."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nequip_decorr import EdgeCorrelation

#: Operators that make the host wait for the device.
WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::item"}


class Count(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names.append(func.name().split(".")[0])
        return func(*args, **(kwargs or {}))


def operators(edges: int, **options: Any) -> list[str]:
    """Operators of one step, forward and backward, as the callback drives it."""
    metric = EdgeCorrelation(layer_dim=16, **options)
    metric.dist_sync_on_step = True
    metric.checked_by_callback = True
    features = torch.randn(edges, 48, requires_grad=True)
    metric({"edge_features": features}, {}).backward()  # lazy set-up is not counted
    with Count() as counted:
        metric({"edge_features": features}, {}).backward()
    return counted.names


@pytest.mark.parametrize("options", [{}, {"max_edges": 64}, {"layers": [0, 2]}])
def test_a_step_never_waits_for_the_device(options: dict[str, Any]) -> None:
    assert not WAITS & set(operators(200, **options))


def test_forward_has_one_product_and_backward_one() -> None:
    # all layers in one batched product; no second update for the epoch's moments
    names = operators(200)
    assert names.count("aten::bmm") == 1
    assert names.count("aten::baddbmm") == 1
    assert not {"aten::mm", "aten::matmul", "aten::addmm"} & set(names)


def test_a_step_takes_few_operators() -> None:
    # each is a kernel on a GPU, and microseconds of a small step on a CPU
    assert len(operators(200, max_edges=64)) < 200


def test_work_does_not_grow_with_edges_beyond_the_cap() -> None:
    few, many = operators(200, max_edges=64), operators(20000, max_edges=64)
    assert len(few) == len(many)
