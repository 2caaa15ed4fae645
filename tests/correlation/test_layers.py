"""EdgeCorrelation of layers with several blocks of channels."""

import pytest
import torch
from e3nn.o3 import Irreps
from torch import multiprocessing

from nequip_decorr import EdgeCorrelation
from nequip_decorr.correlation.channels import (
    Block,
    block_moments,
    block_weights,
    irrep_blocks,
)
from nequip_decorr.correlation.functional import diagnose
from nequip_decorr.errors import UserError
from tests.support.irreps import by_hand, layered, layered_features
from tests.support.reference import FLOAT64_TOLERANCE, RANKS_TOLERANCE


def test_pairs_are_what_counts_in_a_layer():
    blocks = [
        *irrep_blocks("a", Irreps("5x0e+2x1o"), 0, "0"),
        *irrep_blocks("b", Irreps("3x0e"), 1, "1"),
    ]
    weights = block_weights(blocks)
    assert weights == pytest.approx([10 / 22, 1 / 22, 1 / 2])
    weights = block_weights(blocks, [1.0, 3.0])
    assert weights == pytest.approx([10 / 44, 1 / 44, 3 / 4])
    assert block_weights(blocks, [2, 0]) == pytest.approx([10 / 11, 1 / 11, 0])


@pytest.mark.parametrize(
    "blocks",
    [
        [],
        [Block("x", 1)],
        [Block("x", 3, layer=1)],
        [Block("x", 3), Block("x", 3, layer=-1)],
    ],
    ids=["none", "one channel", "no layer 0", "counted from the end"],
)
def test_layers_without_pairs_are_refused(blocks):
    with pytest.raises(UserError, match=r"expected layers 0, 1, \.\.\. with blocks"):
        EdgeCorrelation(blocks=blocks)


@pytest.mark.parametrize("kind", ["square", "abs"])
def test_a_batch_and_an_epoch_of_layers_that_differ(kind):
    metric = EdgeCorrelation(blocks=layered(), penalty=kind)
    for seed in (0, 10):
        value = metric(layered_features(seed, 15), {})
        expected = sum(by_hand([seed], 15, kind)) / 3
        assert value.item() == pytest.approx(expected, abs=FLOAT64_TOLERANCE)
    expected = sum(by_hand([0, 10], 15, kind)) / 3
    assert metric.compute().item() == pytest.approx(expected, abs=FLOAT64_TOLERANCE)
    metric.reset()
    metric(layered_features(20, 15), {})
    expected = sum(by_hand([20], 15, kind)) / 3
    assert metric.compute().item() == pytest.approx(expected, abs=FLOAT64_TOLERANCE)


def test_layers_and_their_weights():
    metric = EdgeCorrelation(blocks=layered(), layer_weights=[1.0, 0.0, 3.0])
    value = metric(layered_features(0, 15), {})
    a, _, c = by_hand([0], 15)
    assert value.item() == pytest.approx((3 * c + a) / 4, abs=FLOAT64_TOLERANCE)
    with pytest.raises(
        UserError, match=r"`layer_weights` for each of the 3 layers, got 1"
    ):
        EdgeCorrelation(blocks=layered(), layer_weights=[1.0])


def test_the_diagnosis_is_in_the_order_of_the_blocks():
    metric = EdgeCorrelation(blocks=layered())
    fields = layered_features(0, 25)
    metric(fields, {})
    found = metric.diagnosis()
    for index, block in enumerate(layered()):
        alone = diagnose(block_moments(fields, [block]))
        for part, expected in zip(found, alone, strict=True):
            torch.testing.assert_close(part[index], expected[0], rtol=1e-9, atol=1e-9)


def test_a_subsample_draws_the_same_edges_of_every_field():
    x = {key: torch.eye(40).double() for key in ("a", "b")}
    blocks = [Block("a", 40), Block("b", 40, 1, "1"), Block("b", 20, 1, "1b")]
    metric = EdgeCorrelation(blocks=blocks, max_edges=10)
    metric(x, {})
    a, b = metric.first.bool()
    assert int(a.sum()) == 10
    assert torch.equal(a, b)
    assert torch.equal(metric.first_1[0].bool(), a[:20])
    assert metric.weight.item() == pytest.approx(40)


def test_fields_that_do_not_fit_are_named():
    metric = EdgeCorrelation(blocks=layered())
    fields = layered_features(0, 15)
    with pytest.raises(UserError, match=r"expected the model to output `f1`, got"):
        metric({"f0": fields["f0"], "f2": fields["f2"]}, {})
    fields["f1"] = fields["f1"][:, :3]
    with pytest.raises(UserError, match=r"`f1` of shape \(rows, 4 or more\), got"):
        metric(fields, {})


def on_rank(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    metric = EdgeCorrelation(blocks=layered(), dist_sync_on_step=True)
    seed, edges = (0, 15) if rank == 0 else (10, 15)
    fields = {k: x.requires_grad_() for k, x in layered_features(seed, edges).items()}
    value = metric(fields, {})
    value.backward()
    late = EdgeCorrelation(blocks=layered())
    if rank == 1:
        late(layered_features(0, 15), {})
    grads = [x.grad for x in fields.values()]
    result = (value.item(), grads, metric.compute().item(), late.compute().item())
    torch.distributed.destroy_process_group()
    torch.save(result, f"{folder}/rank{rank}.pt")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*before the ``update``:UserWarning")
def test_two_ranks_equal_one_process(tmp_path):
    multiprocessing.spawn(on_rank, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    one, two = (layered_features(seed, 15) for seed in (0, 10))
    whole = {k: torch.cat([one[k], two[k]]).requires_grad_() for k in one}
    metric = EdgeCorrelation(blocks=layered())
    value = metric(whole, {})
    expected = torch.autograd.grad(value, list(whole.values()))
    alone = sum(by_hand([0], 15)) / 3
    for rank, (found, grads, epoch, late) in enumerate(ranks):
        assert found == pytest.approx(value.item(), abs=RANKS_TOLERANCE)
        assert epoch == pytest.approx(value.item(), abs=RANKS_TOLERANCE)
        assert late == pytest.approx(alone, abs=RANKS_TOLERANCE)
        for grad, both in zip(grads, expected, strict=True):
            part = both[15 * rank : 15 * (rank + 1)]
            torch.testing.assert_close(grad, part, rtol=0, atol=RANKS_TOLERANCE)
