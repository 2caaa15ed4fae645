"""The sampled loss term: its formula, draws, epochs and ranks."""

import pytest
import torch
from hypothesis import strategies as st

from nequip_decorr import EdgeCorrelation
from nequip_decorr.correlation.channels import Block
from nequip_decorr.correlation.sampled import SampledCorrelation
from nequip_decorr.correlation.sampling import (
    step_seed,
    subsample_channels,
    subsample_rows,
)
from nequip_decorr.errors import UserError
from tests.support import reference
from tests.support.blocks import BLOCKS, fields, naive, value_and_gradient
from tests.support.features import HARD
from tests.support.reference import (
    FLOAT32_GRADIENT_TOLERANCE,
    FLOAT32_TOLERANCE,
    holds_for,
)

NAN = float("nan")


@holds_for(
    st.integers(0, 2**31),
    st.integers(2, 40),
    st.sampled_from(["square", "abs"]),
    st.sampled_from([None, [0, 1, 0, 0, 0], [2, 0, 1, 0, 1]]),
    st.sampled_from([None, 10]),
    st.sampled_from([EdgeCorrelation, SampledCorrelation]),
)
def test_a_batch_is_the_formula(seed, edges, kind, weights, keep, metric_class):
    features = fields(seed, edges)
    metric = metric_class(
        blocks=BLOCKS, penalty=kind, max_edges=keep, layer_weights=weights
    )
    rows = torch.arange(edges)
    if keep and edges > keep:
        rows = subsample_rows(edges, keep, step_seed(0, 0))
    drawn = {key: x[rows] for key, x in features.items()}
    expected = naive(drawn, weights, kind)
    expected_grad = torch.autograd.grad(
        expected, list(features.values()), allow_unused=True, materialize_grads=True
    )
    found, grad = value_and_gradient(metric, features)
    assert found == pytest.approx(expected.item(), abs=1e-10)
    expected_grad = torch.cat([g.flatten() for g in expected_grad])
    torch.testing.assert_close(grad, expected_grad, rtol=1e-7, atol=1e-10)
    square = naive(drawn, weights, "square", floor=0.0).item()
    assert metric.last_mean_square().item() == pytest.approx(
        reference.debias(square, len(rows)), abs=1e-9
    )


@pytest.mark.parametrize("edges", [0, 1])
def test_without_edges_both_metrics_are_alike(edges):
    features = fields(0, edges)
    pooled, pooled_grad = value_and_gradient(EdgeCorrelation(blocks=BLOCKS), features)
    sampled, grad = value_and_gradient(SampledCorrelation(blocks=BLOCKS), features)
    assert 0 <= sampled <= 1
    assert sampled == pytest.approx(pooled, abs=1e-12)
    assert grad.isfinite().all()
    torch.testing.assert_close(grad, pooled_grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["square", "abs"])
@pytest.mark.parametrize(
    "name", [n for n in HARD if n not in {"many edges", "one channel"}]
)
def test_hard_features(name, kind):
    x = HARD[name][:, 0]
    expected = reference.penalty(x.double().numpy(), kind)
    metric = SampledCorrelation(penalty=kind)
    value, grad = value_and_gradient(
        metric, {"edge_features": x.clone().requires_grad_()}
    )
    assert value == pytest.approx(expected, abs=FLOAT32_TOLERANCE)
    assert 0 <= value <= 1
    pooled = {"edge_features": x.clone().requires_grad_()}
    _, other = value_and_gradient(EdgeCorrelation(penalty=kind), pooled)
    assert grad.isfinite().all()
    scale = float(x.abs().max()) if x.numel() else 1.0
    size = float((other * (scale or 1.0)).abs().max()) if len(other) else 0.0
    atol = FLOAT32_GRADIENT_TOLERANCE * max(size, 1 / max(len(x), 1)) / (scale or 1.0)
    torch.testing.assert_close(grad, other, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("edges", [1, 2, 48])
def test_constant_features_have_no_gradient(dtype, edges):
    x = torch.ones(edges, 6, dtype=dtype, requires_grad=True)
    value, grad = value_and_gradient(SampledCorrelation(), {"edge_features": x})
    assert value == 0
    assert torch.equal(grad, torch.zeros_like(grad))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layer_dim", [None, 6])
def test_half_precision_is_raised(dtype, layer_dim):
    x = reference.mixed_features(3, 30, 2, 6, dtype).requires_grad_()
    metric = SampledCorrelation(layer_dim=layer_dim)
    value, grad = value_and_gradient(metric, {"edge_features": x})
    wide = {"edge_features": x.detach().float()}
    assert value == SampledCorrelation(layer_dim=layer_dim)(wide, {}).item()
    assert grad.dtype == dtype


def test_it_is_once_differentiable():
    x = fields(0, 20)["a"]
    value = SampledCorrelation("a")({"a": x}, {})
    with pytest.raises(RuntimeError, match="differentiable only once"):
        torch.autograd.grad(value, x, create_graph=True)


# --- a sample of channels ---


@pytest.mark.parametrize(
    "blocks", [None, [Block("a", 6, i, str(i), 6 * i) for i in (0, 1)]]
)
def test_a_step_is_the_metric_of_the_channels_that_it_drew(blocks):
    features = fields(5, 25)
    options = {"blocks": blocks} if blocks else {"field": "a", "layer_dim": 6}
    metric = SampledCorrelation(**options, max_channels=4, seed=9)
    for step in range(3):
        value, grad = value_and_gradient(metric, {"a": features["a"]})
        drawn = subsample_channels(6, 4, step_seed(9, step))
        both = torch.cat([drawn, drawn + 6])
        x = features["a"].detach()[:, both].requires_grad_()
        expected, inside = value_and_gradient(EdgeCorrelation("x", 4), {"x": x})
        assert value == pytest.approx(expected, abs=1e-10)
        whole = torch.zeros(25, 12).double()
        whole[:, both] = inside.view(25, 8)
        torch.testing.assert_close(grad.view(25, 12), whole, rtol=1e-7, atol=1e-10)


def test_layers_of_many_widths_are_one_product_once_limited():
    widths = [8, 5, 12, 4]
    blocks = [Block(f"f{i}", width, i, str(i)) for i, width in enumerate(widths)]
    metric = SampledCorrelation(blocks=blocks, max_channels=4)
    features = {
        f"f{i}": reference.mixed_features(i, 30, 1, width).requires_grad_()
        for i, width in enumerate(widths)
    }
    value, _ = value_and_gradient(metric, features)
    expected = []
    for i, width in enumerate(widths):
        drawn = subsample_channels(width, 4, 0) if width > 4 else range(4)
        rows = features[f"f{i}"].detach()[:, list(drawn)]
        expected.append(reference.penalty(rows.numpy()))
    assert value == pytest.approx(sum(expected) / 4, abs=1e-9)


# --- an epoch ---


def test_an_epoch_is_the_mean_of_its_batches_by_their_edges():
    metric = SampledCorrelation("a", max_edges=8, max_channels=5)
    sizes = [5, 20, 0, 12]
    values = [metric(fields(n, n), {}).item() for n in sizes]
    expected = sum(v * n for v, n in zip(values, sizes, strict=True)) / sum(sizes)
    assert metric.compute().item() == pytest.approx(expected, abs=1e-12)
    metric.reset()
    metric.step = 7
    metric.update(fields(1, 20), {})
    alone = SampledCorrelation("a", max_edges=8, max_channels=5)
    alone.step = 7
    assert metric.compute().item() == alone(fields(1, 20), {}).item()
    assert not metric.compute().requires_grad


def test_an_epoch_without_edges_is_nought():
    metric = SampledCorrelation("a")
    metric(fields(0, 0), {})
    assert metric.compute().item() == 0


@pytest.mark.parametrize("metric_class", [EdgeCorrelation, SampledCorrelation])
def test_a_mean_square_needs_a_batch(metric_class):
    metric = metric_class("a")
    with pytest.raises(UserError, match="no batch has been seen yet"):
        metric.last_mean_square()


@pytest.mark.parametrize("bad", [1, 2.5, True, NAN, "64"])
def test_bad_limits_get_one_line(bad):
    with pytest.raises(
        UserError, match="`max_channels` to be a whole number >= 2 or null, got"
    ):
        SampledCorrelation(max_channels=bad)


@pytest.mark.parametrize("metric_class", [EdgeCorrelation, SampledCorrelation])
def test_what_is_not_finite_names_its_block(metric_class):
    features = fields(0, 20)
    with torch.no_grad():
        features["b"][3, 2] = NAN
    metric = metric_class(blocks=BLOCKS)
    message = "finite features in `b`, got NaN or infinity in layer 2_1o of step 0"
    with pytest.raises(FloatingPointError, match=message):
        metric(features, {})


@pytest.mark.parametrize(
    ("edges", "lacked"),
    [
        ([0, 0], "edges"),
        ([0, 9, 0], None),
        ([1, 1], "channels"),  # one edge correlates with nothing
        ([9], None),
    ],
)
def test_batches_that_lack_something_to_correlate(edges, lacked):
    metric = SampledCorrelation(blocks=BLOCKS[:2])
    for seed, count in enumerate(edges):
        metric(fields(seed, count), {})
    assert metric.idle() == lacked
    metric.reset()
    metric(fields(0, 20), {})
    assert metric.idle() is None


@pytest.mark.parametrize(("weights", "lacked"), [([1, 0], None), ([0, 1], "channels")])
def test_dead_channels_count_in_the_penalised_layers_only(weights, lacked):
    features = fields(3, 20)
    with torch.no_grad():
        features["a"][:, 6:] = 0.7
    metric = SampledCorrelation(blocks=BLOCKS[:2], layer_weights=weights)
    metric(features, {})
    assert metric.idle() == lacked
