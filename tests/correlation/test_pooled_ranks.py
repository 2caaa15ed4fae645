"""EdgeCorrelation on two gloo processes equals one process that has all edges."""

from functools import cache

import pytest
import torch
from torch import multiprocessing

from nequip_decorr.correlation.functional import (
    as_blocks,
    diagnose,
    merge,
    moments,
    penalty,
)
from tests.support.pooled import (
    CHANNELS,
    LAYERS,
    drawn_rows,
    features,
    looped,
    managed,
    step,
)
from tests.support.reference import RANKS_TOLERANCE

pytestmark = pytest.mark.slow

#: name: (options, rows of each batch on rank 0, on rank 1)
RANKS = {
    "ragged": ({}, (13, 40, 5), (8, 2, 31)),
    "empty rank": ({}, (20, 17), (0, 0)),
    "an empty batch each": ({}, (0, 9), (11, 0)),
    "one edge in all": ({}, (0,), (1,)),
    "no edges": ({}, (0,), (0,)),
    "abs of two layers": (
        {"penalty": "abs", "layer_weights": [1.0, 0.0, 3.0]},
        (13, 6),
        (8, 7),
    ),
    "subsampled": ({"max_edges": 6, "seed": 2}, (13, 40), (3, 25)),
}
INPUTS = 5


def raw_inputs(case):
    """Inputs (edges, INPUTS) of each batch and rank, float32."""
    _, *ranks = RANKS[case]
    rng = torch.Generator().manual_seed(17)
    return [
        [
            torch.randn(rows, INPUTS, generator=rng, dtype=torch.float32)
            for rows in batches
        ]
        for batches in ranks
    ]


def weights():
    rng = torch.Generator().manual_seed(18)
    return torch.randn(INPUTS, LAYERS * CHANNELS, generator=rng, dtype=torch.float32)


def train_on_rank(rank, folder):
    """What NequIP's training step does with the term, on one of two ranks."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    results = {}
    for case, (options, *_) in RANKS.items():
        manager, metric = managed(**options)
        metric.dist_sync_on_step = True  # as NequIP's training module sets it
        w = weights().requires_grad_()
        values = []
        for x in raw_inputs(case)[rank]:
            value = step(manager, x @ w)
            values.append(value.item())
            value.backward()
        epoch = manager.compute()["ec"].item()
        rows = metric.rows.clone()
        diagnosis = metric.diagnosis()
        assert metric.rows == rows  # local again after the epoch's sum over ranks
        grad = torch.zeros_like(w) if w.grad is None else w.grad
        results[case] = (values, grad, epoch, diagnosis.rms)
    validation, metric = managed()
    for i in range(2 if rank == 1 else 0):
        step(validation, features(i))
    results["validation"] = (validation.compute()["ec"].item(), metric.diagnosis().rms)
    torch.distributed.destroy_process_group()
    torch.save(results, f"{folder}/rank{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("ranks"))
    multiprocessing.spawn(train_on_rank, (folder,), nprocs=2)
    return [torch.load(f"{folder}/rank{rank}.pt") for rank in (0, 1)]


@cache
def in_one_process(case):
    """The same by plain pooling of all edges, without the metric."""
    options, *ranks = RANKS[case]
    w = weights().requires_grad_()
    kind = options.get("penalty", "square")
    share = torch.tensor(options.get("layer_weights", [1.0] * LAYERS)).double()
    draw = {k: options[k] for k in options.keys() & {"max_edges", "seed"}}

    def value(parts):
        return (penalty(merge(*parts), kind) * share).sum() / share.sum()

    total, values, everything = 0.0, [], []
    for number in range(len(ranks[0])):
        parts = []
        for batches in raw_inputs(case):
            x = as_blocks(batches[number] @ w, CHANNELS)
            drawn = drawn_rows(len(x), number, **draw) if draw else slice(None)
            weight = len(x) / draw["max_edges"] if draw else 1.0
            parts.append(moments(x[drawn], max(weight, 1.0)))
        everything += parts
        values.append(value(parts))
        total = total + values[-1]
    (grad,) = torch.autograd.grad(total, w)
    rms = diagnose(merge(*everything)).rms
    return [v.item() for v in values], grad, value(everything).item(), rms


@pytest.mark.parametrize("case", list(RANKS))
def test_two_ranks_have_the_values_of_one_process(ranks, case):
    values, _, epoch, rms = in_one_process(case)
    for rank in ranks:
        assert rank[case][0] == pytest.approx(values, abs=RANKS_TOLERANCE)
        assert rank[case][2] == pytest.approx(epoch, abs=RANKS_TOLERANCE)
        torch.testing.assert_close(
            rank[case][3], rms.detach(), rtol=0, atol=RANKS_TOLERANCE
        )


@pytest.mark.parametrize("case", list(RANKS))
def test_two_ranks_have_the_gradient_of_one_process(ranks, case):
    _, expected, _, _ = in_one_process(case)
    found = ranks[0][case][1] + ranks[1][case][1]
    size = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=RANKS_TOLERANCE * size)
    if case in {"one edge in all", "no edges"}:
        assert size == 0
    else:
        assert size > 1e-3


def test_a_rank_may_have_no_validation_batch_at_all(ranks):
    pooled = torch.cat([features(0), features(1)])
    rms = [value**0.5 for value in looped(pooled, floor=0.0)]
    for rank in ranks:
        value, per_layer = rank["validation"]
        assert value == pytest.approx(sum(looped(pooled)) / LAYERS, abs=1e-9)
        assert per_layer.tolist() == pytest.approx(rms, abs=1e-9)
