"""Blocks of channels: irreps against loops, and their invariance."""

import numpy as np
import pytest
import torch
from e3nn.o3 import Irreps, rand_matrix
from hypothesis import strategies as st

from nequip_decorr.correlation.channels import (
    block_moments,
    irrep_blocks,
    scalar_blocks,
)
from nequip_decorr.correlation.functional import as_blocks, moments, penalty
from tests.support import reference
from tests.support.irreps import (
    FLOOR,
    concatenated,
    correlated,
    interleaved,
    looped,
    values,
)
from tests.support.reference import FLOAT64_TOLERANCE, holds_for

IRREPS = ("3x0e+2x1o+4x2e", "2x0o+3x1e+2x1o", "5x0e", "1x0e+3x1o+1x2e+2x3o")
NAN = float("nan")


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


def test_scalar_blocks_are_a_view_of_their_field():
    x = reference.mixed_features(0, 30, 3, 4)
    wide = torch.cat([torch.zeros(30, 2).double(), x], 1)
    blocks = scalar_blocks("x", 4, 3)
    shifted = [block._replace(start=block.start + 2) for block in blocks]
    expected = penalty(moments(as_blocks(x, 4)))
    assert torch.equal(values({"x": x}, blocks), expected)
    assert torch.equal(values({"x": wide}, shifted), expected)
    assert torch.equal(values({"x": x}, blocks[::-1]), expected.flip(0))
