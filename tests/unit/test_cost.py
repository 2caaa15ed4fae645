"""What a step of the term may not do, whatever the machine: mechanisms, not times."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import multiprocessing
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from nequip_decorr import EdgeCorrelation, EdgeDecorrelation
from nequip_decorr.blocks import Block, scalar_blocks
from nequip_decorr.sampled import MAX_CHANNELS, MAX_EDGES, SampledCorrelation

#: Operators that make the host wait for the device.
WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::item"}
#: What makes a tensor of Python numbers, which would be copied to the device.
WAITS |= {"aten::lift_fresh"}
PRODUCTS = {"aten::bmm", "aten::baddbmm", "aten::mm", "aten::matmul", "aten::addmm"}


class Count(TorchDispatchMode):
    """Counts operators by name, and the work of products."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.multiplications = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = func.name().split(".")[0]
        self.names.append(name)
        result = func(*args, **(kwargs or {}))
        if name in PRODUCTS:
            left = args[1] if name == "aten::baddbmm" else args[0]
            self.multiplications += result.numel() * left.shape[-1]
        return result


def count(metric: EdgeCorrelation, features: dict[str, torch.Tensor]) -> Count:
    """One step, forward and backward, as the callback drives it."""
    metric.dist_sync_on_step = True
    metric.checked_by_callback = True
    metric(features, {}).backward()  # lazy set-up is not counted
    with Count() as counted:
        metric(features, {}).backward()
    return counted


def term(edges: int, channels: int = 16, **options: Any) -> Count:
    """The loss term, on layers as Allegro has them."""
    features = torch.randn(edges, 3 * channels, requires_grad=True)
    blocks = scalar_blocks("x", channels, 3)
    return count(SampledCorrelation(blocks=blocks, **options), {"x": features})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_edges": 64, "max_channels": 8},
        {"layers": [0, 2]},
        {"layer_weights": [1.0, 2.0, 0.5]},
        {"penalty": "abs"},
    ],
)
def test_a_step_never_waits_for_the_device(options: dict[str, Any]) -> None:
    assert not WAITS & set(term(200, **options).names)


def test_nor_does_a_step_of_the_pooled_metric() -> None:
    x = torch.randn(200, 48, requires_grad=True)
    counted = count(EdgeCorrelation(layer_dim=16, max_edges=64), {"edge_features": x})
    assert not WAITS & set(counted.names)
    # no second update for the epoch's moments
    assert [n for n in counted.names if n in PRODUCTS] == ["aten::bmm", "aten::baddbmm"]


def products(counted: Count) -> list[str]:
    """Names of the products in order, but for those of vectors of one row."""
    return [name for name in counted.names if name in PRODUCTS]


def test_forward_has_one_product_of_rows_and_backward_one() -> None:
    # all layers in one batched product each way
    edges, channels, layers = 200, 16, 3
    counted = term(edges)
    assert products(counted) == ["aten::bmm", "aten::bmm"]
    assert counted.multiplications == 2 * layers * edges * channels**2


def test_layers_of_different_widths_are_one_product_too() -> None:
    # a NequIP GNN's radial weights
    widths = (64, 160, 256, 64)
    blocks = [Block(f"f{i}", width, i, str(i)) for i, width in enumerate(widths)]
    features = {
        f"f{i}": torch.randn(80, width, requires_grad=True)
        for i, width in enumerate(widths)
    }
    counted = count(SampledCorrelation(blocks=blocks), features)
    assert len(products(counted)) == 2
    assert counted.multiplications == 2 * 4 * 80 * MAX_CHANNELS**2


def test_a_step_takes_few_operators() -> None:
    # each is a kernel on a GPU, and microseconds of a small step on a CPU
    views = {"aten::unsqueeze", "aten::transpose", "aten::diagonal", "aten::view"}
    views |= {"aten::detach", "aten::slice", "aten::select", "aten::expand"}
    work = [name for name in term(200, max_edges=64).names if name not in views]
    assert len(work) < 80


def test_work_does_not_grow_with_edges_beyond_the_limit() -> None:
    few, many = term(MAX_EDGES + 1), term(20 * MAX_EDGES)
    assert few.names == many.names
    assert few.multiplications == many.multiplications


def test_work_does_not_grow_with_channels_beyond_the_limit() -> None:
    few, many = (term(50, channels) for channels in (MAX_CHANNELS + 1, 2048))
    assert few.names == many.names
    assert few.multiplications == many.multiplications


def test_the_callback_has_these_limits_unless_told_otherwise() -> None:
    settings = EdgeDecorrelation().state_dict()["settings"]
    assert settings["max_edges"] == MAX_EDGES
    assert settings["max_channels"] == MAX_CHANNELS


# --- two processes ---


def sync_on_rank(rank: int, folder: str) -> None:
    """Collectives of one step and their bytes, as torch's profiler saw them."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    found = []
    for edges, channels in ((1100, 48), (30_000, 48), (1100, 64), (1100, 300)):
        metric = SampledCorrelation(
            blocks=scalar_blocks("x", channels, 3), dist_sync_on_step=True
        )
        metric.checked_by_callback = True
        x = torch.randn(edges, 3 * channels, requires_grad=True)
        metric({"x": x}, {}).backward()
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
            metric({"x": x}, {}).backward()
        calls = [e for e in seen.events() if e.name == "gloo:all_reduce"]
        found.append([e.input_shapes for e in calls])
    torch.distributed.destroy_process_group()
    torch.save(found, f"{folder}/rank{rank}.pt")


@pytest.mark.slow
def test_ranks_sync_once_a_step_whatever_the_number_of_edges(tmp_path: Any) -> None:
    multiprocessing.spawn(sync_on_rank, (str(tmp_path),), nprocs=2)
    few, many, limit, wide = torch.load(tmp_path / "rank0.pt")
    # counts of edges, and sums of x and x x^T of three layers
    assert few == [[[2 + 3 * (48 + 48**2)]]]
    assert many == few
    assert limit == wide == [[[2 + 3 * (64 + 64**2)]]]
