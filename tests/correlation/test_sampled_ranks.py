"""The sampled loss term on two gloo processes equals one process with all edges."""

import pytest
import torch
from torch import multiprocessing

from nequip_decorr import EdgeCorrelation
from nequip_decorr.correlation.sampled import SampledCorrelation
from tests.support.blocks import BLOCKS, fields, value_and_gradient
from tests.support.reference import RANKS_TOLERANCE

#: name: (options, edges on rank 0, on rank 1)
RANKS = {
    "all": ({"max_channels": None}, (13, 40), (8, 2)),
    "channels": ({"max_channels": 4}, (13, 40), (8, 2)),
    "abs of some layers": (
        {"penalty": "abs", "layer_weights": [1.0, 0, 0, 3.0, 0]},
        (13,),
        (8,),
    ),
    "an empty rank": ({"max_channels": 4}, (20, 0), (0, 9)),
    "no edges": ({}, (0,), (0,)),
    "one edge": ({}, (30,), (1,)),
}


def train_on_rank(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    results = {}
    for case, (options, *ranks) in RANKS.items():
        metric = SampledCorrelation(blocks=BLOCKS, dist_sync_on_step=True, **options)
        steps = [
            value_and_gradient(metric, fields(100 * rank + i, edges, torch.float32))
            for i, edges in enumerate(ranks[rank])
        ]
        mean_square = metric.last_mean_square().item()
        idle = metric.idle()
        assert metric.edges == sum(ranks[rank])  # of this rank again
        results[case] = (steps, mean_square, metric.compute().item(), idle)
    for edges in (20, 1 + 19 * rank):
        constant = torch.ones(edges, 6, dtype=torch.float64, requires_grad=True)
        metric = SampledCorrelation("x", dist_sync_on_step=True)
        value, grad = value_and_gradient(metric, {"x": constant})
        assert value == 0 and not grad.any()
        assert metric.idle() == "channels"
    features = fields(100 * rank, 13 + rank, torch.float32)
    results["drawn"] = [
        value_and_gradient(
            kind(blocks=BLOCKS, dist_sync_on_step=True, max_edges=10, **options),
            features,
        )
        for kind, options in (
            (EdgeCorrelation, {}),
            (SampledCorrelation, {"max_channels": None}),
        )
    ]
    torch.distributed.destroy_process_group()
    torch.save(results, f"{folder}/rank{rank}.pt")


@pytest.mark.slow
def test_two_ranks_have_values_and_gradients_of_one_process(tmp_path):
    multiprocessing.spawn(train_on_rank, (str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    for each in found:
        (expected, expected_grad), (value, grad) = each["drawn"]
        assert value == pytest.approx(expected, abs=RANKS_TOLERANCE)
        torch.testing.assert_close(grad, expected_grad, rtol=0, atol=RANKS_TOLERANCE)
    for case, (options, *ranks) in RANKS.items():
        metric = SampledCorrelation(blocks=BLOCKS, **options)
        for i, counts in enumerate(zip(*ranks, strict=True)):
            parts = [
                fields(100 * rank + i, edges, torch.float32)
                for rank, edges in enumerate(counts)
            ]
            whole = {
                key: torch.cat([part[key] for part in parts]).detach().requires_grad_()
                for key in ("a", "b")
            }
            value = metric(whole, {})
            grads = torch.autograd.grad(value, list(whole.values()))
            size = max((float(g.abs().max()) for g in grads if len(g)), default=0.0)
            for rank, each in enumerate(found):
                got, grad = each[case][0][i]
                assert got == pytest.approx(value.item(), abs=RANKS_TOLERANCE)
                own = torch.cat([g.split(list(counts))[rank].flatten() for g in grads])
                torch.testing.assert_close(
                    grad, own, rtol=0, atol=RANKS_TOLERANCE * size
                )
        mean_square, epoch = metric.last_mean_square().item(), metric.compute().item()
        for each in found:
            assert each[case][3] == ("edges" if case == "no edges" else None)
            assert each[case][1] == pytest.approx(mean_square, abs=RANKS_TOLERANCE)
            assert each[case][2] == pytest.approx(epoch, abs=RANKS_TOLERANCE)
