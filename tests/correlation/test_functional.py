"""The functional core against looping references, invariances, gradient, bad input."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from nequip_decorr.correlation import functional
from nequip_decorr.correlation.functional import (
    as_blocks,
    correlation,
    covariance,
    debias,
    diagnose,
    live_channels,
    merge,
    moments,
    participation_ratio,
    penalty,
    rankme,
)
from nequip_decorr.errors import UserError
from tests.support import reference
from tests.support.features import gradient, looped, ordinary
from tests.support.reference import FLOAT64_TOLERANCE, holds_for

CHANNELS = ("plain", "plain", "plain", "zero", "constant", "copy", "faint", "offset")


@st.composite
def feature_blocks(draw, min_rows=0):
    """(N, L, C) on a grid, so that a variance is either 0 or of order its scale."""
    rows = draw(st.integers(min_rows, 24))
    layers = draw(st.integers(1, 3))
    channels = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.integers(-6, 7, size=(rows, layers, channels)) / 4
    for layer in range(layers):
        for c in range(channels):
            kind = draw(st.sampled_from(CHANNELS))
            if kind == "zero":
                x[:, layer, c] = 0
            elif kind == "constant":
                x[:, layer, c] = 0.3
            elif kind == "copy":
                x[:, layer, c] = -2 * x[:, layer, 0]
            elif kind == "faint":
                x[:, layer, c] *= 1e-8
            elif kind == "offset":
                x[:, layer, c] += 30
    return x


# --- against the reference ---


def test_the_constants_are_those_of_the_specification():
    assert functional.VARIANCE_FLOOR == reference.VARIANCE_FLOOR
    assert functional.DEAD_RELATIVE_TO_BLOCK == reference.DEAD_TO_BLOCK
    assert functional.DEAD_RELATIVE_TO_MEAN == reference.DEAD_TO_MEAN


@holds_for(feature_blocks())
def test_moments_and_covariance(x):
    m = moments(torch.tensor(x))
    rows, layers, channels = x.shape
    assert m.rows == rows
    assert m.weight == rows
    assert all(part.dtype == torch.float64 for part in m)
    for layer in range(layers):
        first = sum((x[k, layer] for k in range(rows)), np.zeros(channels))
        second = sum(
            (np.outer(x[k, layer], x[k, layer]) for k in range(rows)),
            np.zeros((channels, channels)),
        )
        np.testing.assert_allclose(m.first[layer], first, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(m.second[layer], second, rtol=1e-12, atol=1e-12)
        _, cov = reference.mean_and_covariance(x[:, layer])
        np.testing.assert_allclose(
            covariance(m)[layer], cov, rtol=FLOAT64_TOLERANCE, atol=1e-11
        )


@holds_for(feature_blocks(), st.sampled_from([0.0, 1e-4, 0.1]))
def test_live_channels_and_correlation(x, floor):
    m = moments(torch.tensor(x))
    for layer in range(x.shape[1]):
        alive = live_channels(m)[layer].nonzero().flatten().tolist()
        assert alive == reference.live(x[:, layer])
        np.testing.assert_allclose(
            correlation(m, floor)[layer],
            reference.correlation(x[:, layer], floor),
            atol=FLOAT64_TOLERANCE,
        )


@holds_for(
    feature_blocks(), st.sampled_from(["square", "abs"]), st.sampled_from([0.0, 1e-4])
)
def test_penalty(x, kind, floor):
    value, grad = gradient(torch.tensor(x), kind, floor)
    np.testing.assert_allclose(
        value, looped(torch.tensor(x), kind, floor), atol=FLOAT64_TOLERANCE
    )
    assert ((value >= 0) & (value <= 1)).all()
    assert grad.shape == x.shape
    assert grad.isfinite().all()


@holds_for(feature_blocks())
def test_diagnosis(x):
    found = diagnose(moments(torch.tensor(x)))
    for layer in range(x.shape[1]):
        for name, expected in reference.diagnosis(x[:, layer]).items():
            value = float(getattr(found, name)[layer])
            # an eigenvalue of 0 comes out as 1e-16, and RankMe takes its root
            tolerance = 1e-5 if name == "rankme" else 1e-7
            assert value == pytest.approx(expected, rel=tolerance, abs=tolerance), name


def test_a_diagnosis_is_float64_and_has_one_value_a_layer():
    for part in diagnose(moments(ordinary(0))):
        assert part.dtype == torch.float64
        assert part.shape == (2,)


@holds_for(st.floats(0, 1), st.integers(0, 1000))
def test_debias(mean_square, rows):
    found = debias(torch.tensor(mean_square).double(), torch.tensor(float(rows)))
    expected = reference.debias(float(torch.tensor(mean_square).double()), rows)
    assert float(found) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@holds_for(st.integers(1, 30), st.integers(1, 6), st.integers(0, 2**31))
def test_rankme_and_participation_ratio(rows, channels, seed):
    x = np.random.default_rng(seed).normal(size=(rows, channels))
    matrix = torch.tensor(x.T @ x)[None]
    assert float(rankme(matrix)) == pytest.approx(reference.rankme_of_rows(x), rel=1e-5)
    assert float(participation_ratio(matrix)) == pytest.approx(
        reference.participation_ratio(np.linalg.eigvalsh(x.T @ x)), rel=1e-9
    )


def test_effective_ranks_of_known_matrices():
    known = torch.zeros(4, 5, 5, dtype=torch.float64)
    known[0] = torch.eye(5)  # all alike: C
    known[1] = torch.ones(5, 5)  # one direction: 1
    known[2, :2, :2] = 3 * torch.eye(2)  # two directions: 2; the last is 0
    expected = torch.tensor([5.0, 1.0, 2.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(participation_ratio(known), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(rankme(known), expected, rtol=1e-5, atol=1e-5)


# --- invariances ---


@holds_for(
    st.integers(0, 2**31),
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=2),
    st.lists(st.floats(1e-3, 1e3) | st.floats(-1e3, -1e-3), min_size=2, max_size=2),
)
def test_scale_and_offset_of_a_layer_do_not_matter(seed, offsets, scales):
    x = ordinary(seed)
    a = torch.tensor(scales, dtype=torch.float64)[:, None]
    b = torch.tensor(offsets, dtype=torch.float64)[:, None]
    for kind in functional.PENALTIES:
        torch.testing.assert_close(
            # an offset in units of the deviation, as float64 has digits for
            penalty(moments(a * (x + b)), kind),
            penalty(moments(x), kind),
            rtol=0,
            atol=FLOAT64_TOLERANCE,
        )


@holds_for(st.integers(0, 2**31), st.randoms(use_true_random=False))
def test_order_and_sign_of_channels_and_order_of_rows_do_not_matter(seed, random):
    x = ordinary(seed)
    channels, rows = list(range(4)), list(range(30))
    random.shuffle(channels)
    random.shuffle(rows)
    signs = torch.tensor([random.choice([-1.0, 1.0]) for _ in channels]).double()
    for kind in functional.PENALTIES:
        expected = penalty(moments(x), kind)
        for other in (x[..., channels], x * signs, x[rows]):
            torch.testing.assert_close(
                penalty(moments(other), kind), expected, rtol=0, atol=FLOAT64_TOLERANCE
            )


@holds_for(st.integers(0, 2**31), st.lists(st.integers(0, 30), max_size=5))
def test_rows_may_be_split_and_merged_in_any_order(seed, borders):
    x = ordinary(seed)
    edges = [0, *sorted(borders), 30]
    parts = [moments(x[a:b]) for a, b in pairwise(edges)]
    for merged in (merge(*parts), merge(*reversed(parts))):
        for found, whole in zip(merged, moments(x), strict=True):
            torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-11)


@holds_for(st.integers(0, 2**31), st.floats(0.5, 20))
def test_weight_stands_for_repeated_rows(seed, weight):
    x = ordinary(seed)
    more = moments(ordinary(seed + 1))
    found = merge(moments(x, weight=weight), more)
    rows = torch.cat([x, ordinary(seed + 1)]).numpy()
    weights = np.array([weight] * 30 + [1.0] * 30)
    expected = [reference.penalty(rows[:, i], weights=weights) for i in range(2)]
    assert found.rows == 60
    assert float(found.weight) == pytest.approx(30 * weight + 30, rel=1e-12)
    np.testing.assert_allclose(penalty(found), expected, atol=FLOAT64_TOLERANCE)


@holds_for(st.integers(0, 2**31), st.integers(2, 8), st.integers(2, 40))
def test_participation_ratio_and_mean_square_are_one_number(seed, channels, rows):
    m = moments(ordinary(seed, rows, 1, channels))
    mean_square = penalty(m, "square", floor=0.0)
    torch.testing.assert_close(
        participation_ratio(correlation(m, floor=0.0)),
        channels / (1 + (channels - 1) * mean_square),
        rtol=FLOAT64_TOLERANCE,
        atol=0,
    )


def test_duplicated_channels_are_fully_correlated():
    one = ordinary(1, 50, 1, 1)
    m = moments(one * torch.tensor([1.0, -3.0, 0.5]).double())
    for kind in functional.PENALTIES:
        # floored, the channel of half the deviation counts for a little less
        assert 1 - 2e-3 < float(penalty(m, kind)) < 1
        assert float(penalty(m, kind, floor=0.0)) == pytest.approx(1.0, abs=1e-12)


def test_independent_channels_show_the_bias_of_few_rows_and_debias_removes_it():
    rows, channels, blocks = 20, 10, 400
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, blocks, channels, generator=generator, dtype=torch.float64)
    m = moments(x)
    raw = penalty(m, "square", floor=0.0)
    debiased = debias(raw, m.rows)
    standard_error = float(raw.std()) / blocks**0.5
    assert float(raw.mean()) == pytest.approx(1 / (rows - 1), abs=4 * standard_error)
    assert float(debiased.mean()) == pytest.approx(0, abs=4.5 * standard_error)
    # and it is worth doing: the bias is many standard errors
    assert 1 / (rows - 1) > 20 * standard_error


# --- gradient ---


@pytest.mark.parametrize("kind", functional.PENALTIES)
@pytest.mark.parametrize("floor", [0.0, 1e-4])
def test_gradient_is_that_of_finite_differences(kind, floor):
    x = ordinary(4, 7, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda y: penalty(moments(y), kind, floor), (x,), atol=1e-7, rtol=1e-5
    )


def test_gradient_of_each_moment_is_that_of_finite_differences():
    x = ordinary(5, 6, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda y: moments(y, weight=2.5)[1:], (x,), atol=1e-7, rtol=1e-5
    )


@holds_for(
    st.integers(0, 2**31),
    st.integers(2, 20),
    st.integers(2, 5),
    st.sampled_from(functional.PENALTIES),
    st.floats(-100, 100),
)
def test_gradient_is_that_of_naive_autograd(seed, rows, channels, kind, offset):
    x = (ordinary(seed, rows, 2, channels) + offset).requires_grad_()
    value, grad = gradient(x, kind)
    naive = reference.naive_penalty(x, kind)
    (expected,) = torch.autograd.grad(naive.sum(), x)
    torch.testing.assert_close(value, naive.detach(), rtol=0, atol=1e-8)
    torch.testing.assert_close(
        grad, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()) + 1e-12
    )


def test_gradient_of_merged_batches_is_that_of_all_rows():
    x = ordinary(6).requires_grad_()
    merged = merge(moments(x[:11]), moments(x[11:11]), moments(x[11:]))
    (found,) = torch.autograd.grad(penalty(merged).sum(), x)
    torch.testing.assert_close(found, gradient(x)[1], rtol=1e-9, atol=1e-12)


def test_a_second_derivative_is_refused():
    x = ordinary(7).requires_grad_()
    value = penalty(moments(x)).sum()
    with pytest.raises(RuntimeError, match="differentiable only once"):
        torch.autograd.grad(value, x, create_graph=True)
    raw = moments(x).second.sum()
    with pytest.raises(RuntimeError, match="differentiable only once"):
        torch.autograd.grad(raw, x, create_graph=True)


# --- bad input ---


def test_as_blocks_divides_the_channels():
    x = torch.arange(12.0).view(2, 6)
    assert as_blocks(x).shape == (2, 1, 6)
    assert as_blocks(x, 2)[1].tolist() == [[6, 7], [8, 9], [10, 11]]


@pytest.mark.parametrize("layer_dim", [4, 0, -2, 7])
def test_as_blocks_refuses_what_does_not_divide(layer_dim):
    with pytest.raises(UserError, match=f"divide the 6 channels.*got {layer_dim}"):
        as_blocks(torch.zeros(2, 6), layer_dim)


@pytest.mark.parametrize(
    "features",
    [torch.zeros(6), torch.zeros(2, 3, 6), torch.zeros(2, 6, dtype=torch.int64)],
)
def test_as_blocks_refuses_what_is_no_floating_matrix(features):
    with pytest.raises(UserError, match=r"expected floating features.*got torch\."):
        as_blocks(features)


def test_as_blocks_refuses_features_without_channels():
    with pytest.raises(UserError, match="the 0 channels"):
        as_blocks(torch.zeros(2, 0))


def test_an_unknown_penalty_is_named():
    with pytest.raises(UserError, match="to be one of square, abs, got 'cube'"):
        penalty(moments(ordinary(0)), "cube")
