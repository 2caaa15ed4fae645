"""What a step of the term costs, whatever the machine: work is counted, not timed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import multiprocessing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from nequip_decorr import EdgeCorrelation, EdgeDecorrelation
from nequip_decorr.correlation.base import CorrelationMetric
from nequip_decorr.correlation.channels import Block, scalar_blocks
from nequip_decorr.correlation.sampled import (
    MAX_CHANNELS,
    MAX_EDGES,
    SampledCorrelation,
)
from tests.support.irreps import layered, layered_features


class Work(TorchDispatchMode):
    """Counts what is run, but for views."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.operators = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.operators += not func.is_view
        return func(*args, **(kwargs or {}))


def step(metric: CorrelationMetric, features: dict[str, torch.Tensor]) -> None:
    """Forward and backward, as the callback drives it."""
    metric.dist_sync_on_step = True
    metric.checked_by_callback = True
    metric(features, {}).backward()


def work(metric: CorrelationMetric, features: dict[str, torch.Tensor]) -> Work:
    """Work of one step."""
    step(metric, features)  # what is set up once is not counted
    with Work() as counted, FlopCounterMode(display=False) as flops:
        step(metric, features)
    counted.flops = flops.get_total_flops()
    return counted


def allegro(edges: int, channels: int = 16) -> dict[str, torch.Tensor]:
    """Features of three layers as Allegro has them."""
    return {"x": torch.randn(edges, 3 * channels, requires_grad=True)}


def term(edges: int, channels: int = 16, **options: Any) -> Work:
    """Work of the loss term on them."""
    blocks = scalar_blocks("x", channels, 3)
    metric = SampledCorrelation(blocks=blocks, **options)
    return work(metric, allegro(edges, channels))


def without_values(metric: CorrelationMetric) -> None:
    """A step on tensors without values: who asks for one, as `.item()` does, raises."""
    step(metric, allegro(200))
    with FakeTensorMode(allow_non_fake_inputs=True):
        step(metric, allegro(200))


def one_product_each_way(layers: int, rows: int, channels: int) -> int:
    """Multiplications and additions of x^T x and of its gradient.

    And of one product of the penalty's matrix and a vector, which has two gradients.
    """
    return 2 * (2 * layers * rows * channels**2) + 3 * (2 * layers * channels**2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_edges": 64, "max_channels": 8},
        {"layer_weights": [1, 0, 1]},
        {"layer_weights": [1.0, 2.0, 0.5]},
        {"penalty": "abs"},
    ],
)
def test_a_step_never_waits_for_the_device(options: dict[str, Any]) -> None:
    without_values(SampledCorrelation(blocks=scalar_blocks("x", 16, 3), **options))


def test_nor_does_a_step_of_the_pooled_metric() -> None:
    without_values(EdgeCorrelation(layer_dim=16, field="x", max_edges=64))


def test_a_step_of_the_pooled_metric_has_no_second_product_for_the_epoch() -> None:
    counted = work(EdgeCorrelation(layer_dim=16, field="x", max_edges=64), allegro(200))
    assert counted.flops == one_product_each_way(3, 64, 16)


def test_forward_has_one_product_of_rows_and_backward_one() -> None:
    assert term(200).flops == one_product_each_way(3, 200, 16)


def test_layers_of_different_widths_have_the_products_of_the_drawn_channels() -> None:
    # a NequIP GNN's radial weights
    widths = (64, 160, 256, 64)
    blocks = [Block(f"f{i}", width, i, str(i)) for i, width in enumerate(widths)]
    features = {
        f"f{i}": torch.randn(80, width, requires_grad=True)
        for i, width in enumerate(widths)
    }
    counted = work(SampledCorrelation(blocks=blocks), features)
    assert counted.flops == one_product_each_way(4, 80, MAX_CHANNELS)


def test_layers_of_weight_0_cost_nothing() -> None:
    counted = term(200, layer_weights=[1.0, 0.0, 0.0])
    assert counted.flops == one_product_each_way(1, 200, 16)


def test_a_step_takes_few_operators() -> None:
    # each is a kernel on a GPU, and microseconds of a small step on a CPU
    assert term(200, max_edges=64).operators < 120


def test_products_do_not_grow_with_edges_beyond_the_limit() -> None:
    few, many = term(MAX_EDGES + 1), term(20 * MAX_EDGES)
    assert many.flops == few.flops
    assert many.operators == few.operators


def test_products_grow_with_edges_without_a_limit() -> None:
    for edges in (2000, 4000):
        flops = term(edges, max_edges=None).flops
        assert flops == one_product_each_way(3, edges, 16)


def test_products_do_not_grow_with_channels_beyond_the_limit() -> None:
    few, many = (term(50, channels) for channels in (MAX_CHANNELS + 1, 2048))
    assert many.flops == few.flops
    assert many.operators == few.operators


def test_the_callback_has_these_limits_unless_told_otherwise() -> None:
    sample = EdgeDecorrelation().state_dict()["settings"]["sample"]
    assert sample["edges"] == MAX_EDGES
    assert sample["channels"] == MAX_CHANNELS


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


def test_a_step_makes_one_product_each_way_for_blocks_alike():
    metric = EdgeCorrelation(blocks=layered(), max_edges=10)
    fields = {k: x.requires_grad_() for k, x in layered_features(0, 15).items()}
    groups: dict[tuple[int, int], int] = {}
    for block in layered():
        shape = (block.channels, block.dim)
        groups[shape] = groups.get(shape, 0) + 1
    assert len(groups) < len(layered())
    products = sum(
        2 * count * (10 * dim) * channels**2
        for (channels, dim), count in groups.items()
    )
    # a matrix times a vector in the penalty, and its two gradients
    small = 3 * sum(2 * count * c**2 for (c, _), count in groups.items())
    # forward x^T x; backward the same work, once
    assert work(metric, fields).flops == 2 * products + small
