"""Blocks of channels: irreps against loops, invariance, layers of several blocks."""

import numpy as np
import pytest
import torch
from e3nn.o3 import Irreps, rand_matrix
from hypothesis import strategies as st
from torch import multiprocessing

from nequip_decorr import EdgeCorrelation
from nequip_decorr.correlation.channels import (
    Block,
    block_moments,
    block_weights,
    group_blocks,
    irrep_blocks,
    scalar_blocks,
)
from nequip_decorr.correlation.functional import as_blocks, diagnose, moments, penalty
from nequip_decorr.errors import UserError
from tests.correlation.test_cost import work
from tests.support import reference
from tests.support.reference import FLOAT64_TOLERANCE, RANKS_TOLERANCE, holds_for

IRREPS = ("3x0e+2x1o+4x2e", "2x0o+3x1e+2x1o", "5x0e", "1x0e+3x1o+1x2e+2x3o")
FLOOR = reference.VARIANCE_FLOOR
NAN = float("nan")


def correlated(seed, edges, irreps):
    """Features of each irrep, [(edges, mul, dim)], channels partly alike."""
    rng = np.random.default_rng(seed)
    parts = []
    for mul, ir in Irreps(irreps):
        mix = np.eye(mul) + 0.7 * rng.normal(size=(mul, mul))
        x = rng.normal(size=(edges, mul, ir.dim))
        offset = rng.normal(size=mul)[:, None] if (ir.l, ir.p) == (0, 1) else 0.0
        parts.append(np.einsum("cd,edm->ecm", mix, x) + offset)
    return parts


def concatenated(parts):
    """E3nn's layout (edges, width), written out component by component."""
    rows = []
    for edge in range(len(parts[0])):
        rows.append([value for x in parts for channel in x[edge] for value in channel])
    return torch.tensor(np.array(rows).reshape(len(rows), -1))


def interleaved(parts):
    """Allegro's layout (edges, channels, components of all irreps)."""
    edges, channels, _ = parts[0].shape
    x = np.zeros((edges, channels, sum(x.shape[2] for x in parts)))
    for edge in range(edges):
        for channel in range(channels):
            x[edge, channel] = [v for part in parts for v in part[edge, channel]]
    return torch.tensor(x)


def looped(x, centred, kind="square", floor=FLOOR):
    """Penalty of one irrep (edges, channels, components) by its formula."""
    if centred:
        return reference.penalty(x[:, :, 0], kind, floor)
    edges, channels, dim = x.shape
    gram = np.zeros((channels, channels))
    for i in range(channels):
        for j in range(channels):
            for e in range(edges):
                for m in range(dim):
                    gram[i, j] += x[e, i, m] * x[e, j, m]
    average = sum(gram[i, i] for i in range(channels)) / channels
    total, pairs = 0.0, 0
    for i in range(channels):
        for j in range(i):
            vi, vj = gram[i, i] + floor * average, gram[j, j] + floor * average
            rho = gram[i, j] / (vi * vj) ** 0.5
            total += rho**2 if kind == "square" else abs(rho)
            pairs += 1
    return total / pairs


def values(fields, blocks, kind="square", floor=FLOOR):
    """Penalty of each block, in the order of the blocks."""
    found = torch.zeros(len(blocks), dtype=torch.float64)
    for group in group_blocks(blocks):
        m = block_moments(fields, [blocks[i] for i in group])
        found[group] = penalty(m, kind, floor)
    return found


# --- one field of irreps ---


@holds_for(
    st.integers(0, 2**31),
    st.integers(2, 12),
    st.sampled_from(IRREPS),
    st.sampled_from(["square", "abs"]),
    st.sampled_from([0.0, FLOOR]),
)
def test_each_irrep_is_that_of_loops(seed, edges, irreps, kind, floor):
    parts = correlated(seed, edges, irreps)
    blocks = irrep_blocks("x", Irreps(irreps))
    expected = [
        looped(x, (ir.l, ir.p) == (0, 1), kind, floor)
        for x, (mul, ir) in zip(parts, Irreps(irreps), strict=True)
        if mul > 1
    ]
    found = values({"x": concatenated(parts)}, blocks, kind, floor)
    assert found.tolist() == pytest.approx(expected, abs=FLOAT64_TOLERANCE)


@holds_for(st.integers(0, 2**31), st.integers(2, 12), st.integers(2, 4))
def test_allegros_layout_is_that_of_loops(seed, edges, channels):
    irreps = [f"{channels}x{ir}" for ir in ("0e", "1o", "0o", "2e")]
    parts = correlated(seed, edges, "+".join(irreps))
    blocks = irrep_blocks("x", Irreps("0e+1o+0o+2e"), strided=channels)
    assert [b.name for b in blocks] == ["0_0e", "0_1o", "0_0o", "0_2e"]
    found = values({"x": interleaved(parts)}, blocks)
    expected = [looped(x, index == 0) for index, x in enumerate(parts)]
    assert found.tolist() == pytest.approx(expected, abs=FLOAT64_TOLERANCE)


def test_neighbours_of_one_irrep_are_one_block_and_others_are_told_apart():
    blocks = irrep_blocks("x", Irreps("2x0e+3x0e+2x1o+1x2e+2x0e"), 4, "4_messages")
    names = ["4_messages_0e_1", "4_messages_1o", "4_messages_0e_2"]
    assert [b.name for b in blocks] == names
    assert [b.channels for b in blocks] == [5, 2, 2]
    assert [b.start for b in blocks] == [0, 5, 16]
    assert [b.centred for b in blocks] == [True, False, True]
    assert {b.layer for b in blocks} == {4}


def test_one_channel_alone_makes_no_block():
    assert irrep_blocks("x", Irreps("1x0e+1x1o")) == []
    assert irrep_blocks("x", Irreps("0e+1o"), strided=1) == []


def rotated(x, irreps, rotation):
    return x @ Irreps(irreps).D_from_matrix(rotation).T.to(x.dtype)


def rotations(seed, count):
    """Rotations and rotations with inversion, (count, 3, 3)."""
    torch.manual_seed(seed)
    signs = 1 - 2 * (torch.arange(count) % 2)
    return rand_matrix(count, dtype=torch.float64) * signs[:, None, None]


@pytest.mark.parametrize("irreps", IRREPS)
@pytest.mark.parametrize("per", ["frame", "edge"])
def test_rotating_and_inverting_changes_nothing(irreps, per):
    edges, frames = 40, 5
    x = concatenated(correlated(7, edges, irreps))
    blocks = irrep_blocks("x", Irreps(irreps))
    group = torch.arange(edges) * frames // edges if per == "frame" else None
    turns = rotations(3, frames if per == "frame" else edges)
    rows = turns if group is None else turns[group]
    turned = torch.stack([rotated(x[i], irreps, rows[i]) for i in range(edges)])
    assert not torch.allclose(turned, x) or irreps == "5x0e"
    torch.testing.assert_close(
        values({"x": turned}, blocks), values({"x": x}, blocks), rtol=0, atol=1e-9
    )


def test_centring_a_vector_would_break_the_invariance():
    irreps = "4x1o"
    rng = np.random.default_rng(5)
    parts = correlated(7, 40, irreps)
    parts[0] += rng.normal(size=(1, 4, 3))
    x = concatenated(parts)
    turned = torch.stack(
        [
            rotated(row, irreps, turn)
            for row, turn in zip(x, rotations(3, 40), strict=True)
        ]
    )
    (block,) = irrep_blocks("x", Irreps(irreps))
    for centred, same in ((False, True), (True, False)):
        one = [block._replace(centred=centred)]
        change = float(values({"x": turned}, one) - values({"x": x}, one))
        assert (abs(change) < 1e-9) == same


def test_gradient_of_tensor_moments_is_that_of_finite_differences():
    blocks = irrep_blocks("x", Irreps("2x0e+2x1o"))
    x = concatenated(correlated(1, 5, "2x0e+2x1o")).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda y: values({"x": y}, blocks), (x,), atol=1e-7, rtol=1e-5
    )


@pytest.mark.parametrize("edges", [0, 1, 2])
def test_few_edges(edges):
    blocks = irrep_blocks("x", Irreps("2x0e+3x1o"))
    x = concatenated(correlated(1, 4, "2x0e+3x1o"))[:edges].float().requires_grad_()
    found = values({"x": x}, blocks)
    found.sum().backward()
    assert ((found >= 0) & (found <= 1)).all()
    assert x.grad.isfinite().all()


def test_rows_count_once_whatever_their_components():
    blocks = irrep_blocks("x", Irreps("3x1o"))
    m = block_moments({"x": concatenated(correlated(1, 14, "3x1o"))}, blocks, 2.5)
    assert (float(m.rows), float(m.weight)) == (14, pytest.approx(35))
    assert not m.first.any()


# --- layers of several blocks ---


def test_scalar_blocks_are_a_view_of_their_field():
    x = reference.mixed_features(0, 30, 3, 4)
    wide = torch.cat([torch.zeros(30, 2).double(), x], 1)
    blocks = scalar_blocks("x", 4, 3)
    shifted = [block._replace(start=block.start + 2) for block in blocks]
    expected = penalty(moments(as_blocks(x, 4)))
    assert torch.equal(values({"x": x}, blocks), expected)
    assert torch.equal(values({"x": wide}, shifted), expected)
    assert torch.equal(values({"x": x}, blocks[::-1]), expected.flip(0))


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


LAYERS = ("3x0e+2x1o", "4x0e", "3x0e+4x1o")


def layered():
    """Blocks of three layers; the first and the fourth go into one product."""
    blocks = []
    for layer, irreps in enumerate(LAYERS):
        blocks += irrep_blocks(f"f{layer}", Irreps(irreps), layer, f"{layer}_messages")
    return blocks


def layered_features(seed, edges):
    return {
        f"f{layer}": concatenated(correlated(seed + layer, edges, irreps))
        for layer, irreps in enumerate(LAYERS)
    }


def by_hand(seeds, edges, kind="square"):
    """Value of each layer, over all batches, by loops."""
    found = []
    for layer, irreps in enumerate(LAYERS):
        total, pairs = 0.0, 0
        batches = [correlated(s + layer, edges, irreps) for s in seeds]
        for x, (mul, ir) in zip(
            [np.concatenate(b) for b in zip(*batches, strict=True)],
            Irreps(irreps),
            strict=True,
        ):
            weight = mul * (mul - 1) // 2
            total += weight * looped(x, ir.l == 0, kind)
            pairs += weight
        found.append(total / pairs)
    return found


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
    with pytest.raises(UserError, match=r"`layer_weights` for each of 3 layers, got 1"):
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


def test_the_debiased_mean_of_the_last_batch():
    metric = EdgeCorrelation(blocks=layered(), variance_floor=0.1)
    with pytest.raises(UserError, match=r"expected a batch .* got none"):
        metric.last_mean_square()
    fields = layered_features(0, 25)
    metric(fields, {})
    squares = values(fields, layered(), floor=0.0).tolist()
    mean = sum(w * v for w, v in zip(block_weights(layered()), squares, strict=True))
    expected = reference.debias(mean, 25)
    assert float(metric.last_mean_square()) == pytest.approx(expected, abs=1e-9)


def test_the_gradient_reaches_every_field_and_is_that_of_autograd():
    def naive(x, mul, dim, centred):
        x = x.view(len(x), mul, dim)
        x = x - x.mean(0) if centred else x
        gram = torch.einsum("eim,ejm->ij", x, x)
        v = gram.diag() + FLOOR * gram.diag().mean()
        r = gram / (v[:, None] * v[None, :]).sqrt()
        off = r[~torch.eye(mul, dtype=torch.bool)]
        return (off**2).sum()

    fields = {k: x.requires_grad_() for k, x in layered_features(3, 15).items()}
    total = 0.0
    for layer, irreps in enumerate(LAYERS):
        start, summed, pairs = 0, 0.0, 0
        for mul, ir in Irreps(irreps):
            part = fields[f"f{layer}"][:, start : start + mul * ir.dim]
            summed = summed + naive(part, mul, ir.dim, ir.l == 0)
            pairs += mul * (mul - 1)
            start += mul * ir.dim
        total = total + summed / pairs / 3
    expected = torch.autograd.grad(total, list(fields.values()))
    value = EdgeCorrelation(blocks=layered())(fields, {})
    found = torch.autograd.grad(value, list(fields.values()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10)


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
    # forward x^T x; backward the same work, once
    assert work(metric, fields).flops == 2 * products


def test_what_is_not_finite_names_its_block():
    fields = layered_features(0, 15)
    fields["f2"][3, 9] = NAN  # of the vectors
    metric = EdgeCorrelation(blocks=layered())
    message = r"finite features in `f2`, got NaN .* in layer 2_messages_1o of step 0"
    with pytest.raises(FloatingPointError, match=message):
        metric(fields, {})


def test_fields_that_do_not_fit_are_named():
    metric = EdgeCorrelation(blocks=layered())
    fields = layered_features(0, 15)
    with pytest.raises(UserError, match=r"expected the model to output `f1`, got"):
        metric({"f0": fields["f0"], "f2": fields["f2"]}, {})
    fields["f1"] = fields["f1"][:, :3]
    with pytest.raises(UserError, match=r"`f1` of shape \(rows, 4 or more\), got"):
        metric(fields, {})


# --- two processes ---


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
