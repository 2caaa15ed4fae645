"""The functional core on hard features, in float32, and the draw of a subsample."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from scipy import stats

from nequip_decorr.correlation import functional
from nequip_decorr.correlation.functional import (
    as_blocks,
    correlation,
    covariance,
    diagnose,
    live_channels,
    merge,
    moments,
    penalty,
)
from nequip_decorr.correlation.gradients import without_tf32
from nequip_decorr.correlation.sampling import subsample_rows
from nequip_decorr.errors import UserError
from tests.correlation.test_functional import gradient, looped, ordinary
from tests.support import reference
from tests.support.reference import (
    FLOAT32_GRADIENT_TOLERANCE,
    FLOAT32_TOLERANCE,
    holds_for,
)


def _hard(rows=40, channels=6, seed=8):
    return ordinary(seed, rows, 1, channels, torch.float32)


def _with_channel(x, values):
    x = x.clone()
    x[..., 2] = values
    return x


HARD = {
    "no edges": _hard(0),
    "one edge": _hard(1),
    "two edges": _hard(2),
    "fewer edges than channels": _hard(4, 12),
    "one channel": _hard(40, 1),
    "a zero channel": _with_channel(_hard(), 0.0),
    "a constant channel": _with_channel(_hard(), 0.1),
    "a large constant channel": _with_channel(_hard(601), 12345.678),
    "all zero": torch.zeros(40, 1, 6),
    "all constant": torch.full((601, 1, 6), 0.1),
    "duplicated channels": _hard()[..., [0, 1, 0, 2, 1, 0]],
    "all duplicated": _hard()[..., [0, 0, 0, 0]],
    "a faint channel": _hard() * torch.tensor([1, 1, 1e-12, 1, 1, 1]),
    "a weak channel": _hard() * torch.tensor([1, 1, 1e-3, 1, 1, 1]),
    "scale 1e-20": 1e-20 * _hard(),
    "scale 1e+15": 1e15 * _hard(),
    "mean 1000 deviations": _hard() + 2000,
    "an outlier": torch.cat([_hard(), torch.full((1, 1, 6), 1e6)]),
    "many edges": _hard(100_003, 3),
}
# whatever torch's default dtype: NequIP sets it to float64 for the process
HARD = {name: x.to(torch.float32) for name, x in HARD.items()}


@pytest.mark.parametrize("floor", [0.0, reference.VARIANCE_FLOOR])
@pytest.mark.parametrize("kind", functional.PENALTIES)
@pytest.mark.parametrize("name", [name for name in HARD if name != "many edges"])
def test_hard_features(name, kind, floor):
    x = HARD[name]
    value, grad = gradient(x, kind, floor)
    assert 0 <= float(value) <= 1
    assert grad.dtype == torch.float32
    assert grad.shape == x.shape
    assert grad.isfinite().all()
    np.testing.assert_allclose(
        value, looped(x, kind, floor), rtol=0, atol=FLOAT32_TOLERANCE
    )


@pytest.mark.parametrize("name", [name for name in HARD if name != "no edges"])
def test_gradient_on_hard_features_is_that_in_float64(name):
    x = HARD[name]
    scale = float(x.abs().max()) or 1.0
    found = gradient(x)[1].double() * scale
    expected = gradient(x.double() / scale)[1]
    # of the order of 1/(rows * deviation) where it is not 0 for a reason
    natural = 1 / (len(x) * float((x.double() / scale).std()) + 1e-300)
    size = max(float(expected.abs().max()), min(natural, 1.0))
    torch.testing.assert_close(
        found, expected, rtol=0, atol=FLOAT32_GRADIENT_TOLERANCE * size
    )


def test_many_float32_edges_are_summed_accurately():
    x = HARD["many edges"]
    expected = np.corrcoef(x[:, 0].double().numpy().T)
    np.testing.assert_allclose(
        correlation(moments(x), floor=0.0)[0], expected, rtol=0, atol=FLOAT32_TOLERANCE
    )


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e15, 1e30])
@pytest.mark.parametrize("offset", [0, 1000])
def test_the_stated_accuracy_of_float32_moments(scale, offset):
    x = scale * (ordinary(9, 500, 1, 5, torch.float32) + offset)
    found = covariance(moments(x))[0] / scale**2
    # of the float32 numbers as they are, in float64
    expected = np.cov((x[:, 0].double() / scale).numpy().T, bias=True)
    largest = float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize("seed", range(3))
def test_a_constant_float32_channel_is_dead_however_many_rows(seed):
    rng = np.random.default_rng(seed)
    x = ordinary(seed, 20_000, 1, 4, torch.float32)
    x[..., 1] = float(rng.normal() * 10 ** rng.uniform(-6, 6))
    batches = [moments(part) for part in x.split(777)]
    for m in (moments(x), merge(*batches)):
        assert live_channels(m).tolist() == [[True, False, True, True]]


def test_a_fading_channel_has_a_fading_gradient():
    norms = []
    for sigma in (1e-2, 1e-4, 1e-6, 0.0):
        x = ordinary(10, 200, 1, 4)
        x[..., 0] *= sigma
        norms.append(float(gradient(x)[1][..., 0].norm()))
    assert all(a > b for a, b in pairwise(norms))
    assert norms[-1] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_raised_to_float32(dtype):
    x = _hard().to(dtype)
    value, grad = gradient(x)
    torch.testing.assert_close(value, gradient(x.float())[0], rtol=0, atol=0)
    assert grad.dtype == dtype
    assert grad.isfinite().all()


def test_autocast_does_not_reach_the_moments():
    x = _hard()
    expected = gradient(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradient(x)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.fixture
def precision():
    """torch's settings of TF32, which exist without a GPU, put back afterwards."""
    before = torch.backends.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    yield torch.backends
    torch.backends.fp32_precision, torch.backends.cuda.matmul.fp32_precision = before


@pytest.mark.parametrize("general", ["tf32", "ieee"])
def test_tf32_is_off_inside_and_as_configured_afterwards(precision, general):
    # as nequip's set_global_state and TF32Scheduler do it on a GPU
    precision.cuda.matmul.fp32_precision = "none"
    precision.fp32_precision = general
    with without_tf32():
        assert precision.cuda.matmul.fp32_precision == "ieee"
        assert precision.fp32_precision == general
    assert precision.cuda.matmul.fp32_precision == general
    for later in ("ieee", "tf32"):
        precision.fp32_precision = later
        assert precision.cuda.matmul.fp32_precision == later


def test_tf32_set_for_products_alone_comes_back_even_after_an_error(precision):
    precision.fp32_precision = "ieee"
    precision.cuda.matmul.fp32_precision = "tf32"
    with pytest.raises(KeyError), without_tf32():
        assert precision.cuda.matmul.fp32_precision == "ieee"
        raise KeyError
    assert precision.cuda.matmul.fp32_precision == "tf32"


def test_features_need_not_be_contiguous():
    wide = reference.mixed_features(11, 30, 2, 8)
    strided = wide[:, ::2]
    torch.testing.assert_close(
        penalty(moments(as_blocks(strided, 4))),
        penalty(moments(as_blocks(strided.contiguous(), 4))),
        rtol=0,
        atol=1e-14,
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_shows_in_its_own_layer_only(bad):
    x = ordinary(12, layers=3)
    x[5, 1, 2] = bad
    m = moments(x)
    assert penalty(m).isnan().tolist() == [False, True, False]
    for part in diagnose(m):
        assert part.isnan().tolist() == [False, True, False]


# --- rows ---


@holds_for(st.integers(1, 500), st.data())
def test_subsample_is_of_distinct_rows_and_reproducible(total, data):
    keep = data.draw(st.integers(1, total))
    seed = data.draw(st.integers(0, 2**32 - 1))
    rows = subsample_rows(total, keep, seed)
    assert rows.shape == (keep,)
    assert rows.dtype == torch.int64
    assert len(set(rows.tolist())) == keep
    assert 0 <= int(rows.min()) <= int(rows.max()) < total
    assert torch.equal(rows, subsample_rows(total, keep, seed))
    if keep == total:
        assert sorted(rows.tolist()) == list(range(total))


def test_subsample_differs_between_seeds_and_leaves_the_global_generator():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    draws = {tuple(subsample_rows(1000, 10, seed).tolist()) for seed in range(50)}
    assert len(draws) == 50
    assert torch.equal(torch.get_rng_state(), before)


def test_each_row_is_drawn_equally_often():
    total, keep, draws = 23, 7, 12_000
    # one row of each draw: draws are independent, rows within a draw are not
    picked = [int(subsample_rows(total, keep, s)[s % keep]) for s in range(draws)]
    counts = np.bincount(picked, minlength=total)
    assert stats.chisquare(counts).pvalue > 1e-3
    # and every position of a draw, by the binomial spread of an inclusion
    included = torch.cat([subsample_rows(total, keep, s) for s in range(4000)])
    p = keep / total
    z = (included.bincount(minlength=total) - 4000 * p) / (4000 * p * (1 - p)) ** 0.5
    assert float(z.abs().max()) < 4


@pytest.mark.parametrize(("total", "keep"), [(5, 6), (5, 0), (0, 0), (5, -1)])
def test_subsample_refuses_impossible_sizes(total, keep):
    with pytest.raises(UserError, match=rf"between 1 and all of {total} .*got {keep}"):
        subsample_rows(total, keep, 0)
