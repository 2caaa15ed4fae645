"""The functional core on hard features, in float32."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

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
from tests.support import reference
from tests.support.features import HARD, gradient, hard, looped, ordinary
from tests.support.reference import FLOAT32_GRADIENT_TOLERANCE, FLOAT32_TOLERANCE


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
    x = hard().to(dtype)
    value, grad = gradient(x)
    torch.testing.assert_close(value, gradient(x.float())[0], rtol=0, atol=0)
    assert grad.dtype == dtype
    assert grad.isfinite().all()


def test_autocast_does_not_reach_the_moments():
    x = hard()
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


class Products(TorchDispatchMode):
    """Notes how float32 products are set on a GPU when one runs; may interrupt it."""

    def __init__(self, error=None):
        super().__init__()
        self.settings, self.error = [], error

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.bmm.default and args[0].dtype == torch.float32:
            self.settings.append(torch.backends.cuda.matmul.fp32_precision)
            if self.error is not None:
                raise self.error
        return func(*args, **(kwargs or {}))


def on_a_gpu(products):
    """Moments of tensors without values, which can be on a GPU that is not there."""
    with FakeTensorMode(), products, torch.no_grad():
        moments(torch.empty(40, 2, 6, device="cuda", dtype=torch.float32))
    return products.settings


@pytest.mark.parametrize("general", ["tf32", "ieee"])
def test_products_are_not_in_tf32_which_stays_as_configured(precision, general):
    # as nequip's set_global_state and TF32Scheduler do it on a GPU
    precision.cuda.matmul.fp32_precision = "none"
    precision.fp32_precision = general
    assert on_a_gpu(Products()) == ["ieee"]
    assert precision.cuda.matmul.fp32_precision == general
    for later in ("ieee", "tf32"):
        precision.fp32_precision = later
        assert precision.cuda.matmul.fp32_precision == later


def test_tf32_set_for_products_alone_comes_back_even_after_an_error(precision):
    precision.fp32_precision = "ieee"
    precision.cuda.matmul.fp32_precision = "tf32"
    interrupted = Products(KeyError())
    with pytest.raises(KeyError):
        on_a_gpu(interrupted)
    assert interrupted.settings == ["ieee"]
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
