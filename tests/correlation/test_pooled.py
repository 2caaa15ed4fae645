"""EdgeCorrelation through NequIP's own MetricsManager."""

import copy
import inspect
import pickle
import textwrap

import pytest
import torch
import yaml
from hydra.utils import instantiate
from hypothesis import strategies as st
from nequip.data import AtomicDataDict

from nequip_decorr import EdgeCorrelation
from nequip_decorr.correlation.functional import as_blocks, diagnose, moments
from nequip_decorr.errors import UserError
from tests.support import reference
from tests.support.pooled import CHANNELS, LAYERS, features, looped, managed, step
from tests.support.reference import FLOAT64_TOLERANCE, holds_for

NAN, INF = float("nan"), float("inf")


# --- value ---


@pytest.mark.parametrize("kind", ["square", "abs"])
@pytest.mark.parametrize("floor", [0.0, reference.VARIANCE_FLOOR, 0.1])
def test_a_batch_gives_the_mean_over_layers(kind, floor):
    manager, _ = managed(penalty=kind, variance_floor=floor)
    value = step(manager, features(0))
    expected = sum(looped(features(0), kind, floor)) / LAYERS
    assert value.item() == pytest.approx(expected, abs=FLOAT64_TOLERANCE)
    assert manager.metrics_values_step["ec"] == value.item()


def test_the_whole_field_is_one_block_by_default():
    metric = EdgeCorrelation()
    value = metric({"edge_features": features(0)}, {})
    expected = reference.penalty(features(0).numpy())
    assert value.item() == pytest.approx(expected, abs=FLOAT64_TOLERANCE)


def test_another_field():
    metric = EdgeCorrelation("edge_embedding", CHANNELS)
    x = features(1)
    value = metric({"edge_embedding": x, "edge_features": 0 * x}, {})
    assert value.item() == pytest.approx(sum(looped(x)) / LAYERS, abs=1e-9)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1.0, 0.0, 0.0], lambda v: v[0]),
        ([0, 1.0, 3.0], lambda v: (3 * v[2] + v[1]) / 4),
        ([1.0, 0.0, 5.0], lambda v: (v[0] + 5 * v[2]) / 6),
        ([2, 2, 2], lambda v: sum(v) / 3),
    ],
)
def test_weights_of_layers(weights, expected):
    manager, metric = managed(layer_weights=weights)
    x = features(2)
    found = [step(manager, x), manager.compute()["ec"], metric.compute()]
    assert [float(v) for v in found] == pytest.approx(
        [expected(looped(x))] * 3, abs=FLOAT64_TOLERANCE
    )
    assert metric.diagnosis().rms.tolist() == pytest.approx(
        [v**0.5 for v in looped(x, floor=0.0)], abs=FLOAT64_TOLERANCE
    )


def test_layers_of_weight_0_have_no_gradient():
    x = features(2).requires_grad_()
    manager, _ = managed(layer_weights=[0, 1, 0])
    step(manager, x).backward()
    per_layer = x.grad.view(-1, LAYERS, CHANNELS).abs().amax(dim=(0, 2))
    assert per_layer[[0, 2]].tolist() == [0, 0]
    assert per_layer[1] > 0


@holds_for(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.integers(0, 2**31))
def test_an_epoch_is_that_of_all_its_edges(sizes, seed):
    manager, metric = managed()
    batches = [features(seed + i, edges) for i, edges in enumerate(sizes)]
    values = [step(manager, x).item() for x in batches]
    for value, x in zip(values, batches, strict=True):
        assert value == pytest.approx(sum(looped(x)) / LAYERS, abs=1e-9)
        assert 0 <= value <= 1
    pooled = torch.cat(batches)
    expected = sum(looped(pooled)) / LAYERS
    assert manager.compute()["ec"].item() == pytest.approx(expected, abs=1e-9)
    whole = diagnose(moments(as_blocks(pooled, CHANNELS)))
    for found, part in zip(metric.diagnosis(), whole, strict=True):
        torch.testing.assert_close(found, part, rtol=1e-6, atol=1e-6)


def test_an_epoch_is_not_the_mean_of_its_batches():
    manager, _ = managed()
    values = [step(manager, features(i, 6)).item() for i in range(8)]
    assert manager.compute()["ec"].item() < 0.7 * sum(values) / 8


def test_update_and_forward_accumulate_alike():
    by_forward, by_update = EdgeCorrelation(), EdgeCorrelation()
    for i in range(3):
        preds = {"edge_features": features(i).requires_grad_()}
        by_forward(preds, {})
        by_update.update(preds, {})
    assert by_forward.compute() == by_update.compute()
    assert not by_update.compute().requires_grad
    assert torch.equal(by_forward.second, by_update.second)
    assert not by_forward.second.requires_grad


def test_reset_forgets_the_epoch():
    manager, metric = managed()
    step(manager, features(0))
    manager.compute()
    manager.reset()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert metric.compute().item() == 0
    manager.reset()
    step(manager, features(1))
    expected = sum(looped(features(1))) / LAYERS
    assert manager.compute()["ec"].item() == pytest.approx(expected, abs=1e-9)


def test_compute_is_not_stale_after_another_batch():
    manager, _ = managed()
    step(manager, features(0))
    first = manager.compute()["ec"].item()
    step(manager, features(1))
    assert manager.compute()["ec"].item() != first


def test_the_gradient_is_that_of_the_batch_alone():
    manager, _ = managed()
    step(manager, features(0).requires_grad_())
    x = features(1).requires_grad_()
    step(manager, x).backward()
    naive = reference.naive_penalty(as_blocks(x, CHANNELS)).mean()
    (expected,) = torch.autograd.grad(naive, x)
    torch.testing.assert_close(x.grad, expected, rtol=1e-7, atol=1e-10)


def test_without_gradient():
    manager, metric = managed()
    with torch.no_grad():
        value = step(manager, features(0).requires_grad_())
    assert not value.requires_grad
    assert metric.step == 0
    with torch.inference_mode():
        step(manager, features(1))
    step(manager, features(2))
    pooled = torch.cat([features(i) for i in range(3)])
    expected = sum(looped(pooled)) / LAYERS
    assert manager.compute()["ec"].item() == pytest.approx(expected, abs=1e-9)


# --- in NequIP's manager ---


def test_coefficients_and_extra_state():
    manager, metric = managed(coeff=3.0)
    assert manager.entries["ec"].coeff == 1.0
    x = features(0).requires_grad_()
    values = manager({"edge_features": x}, {})
    assert values["weighted_sum"].requires_grad
    assert values["weighted_sum"].item() == values["ec"].item()
    manager.set_coeffs({"ec": None})
    assert "weighted_sum" not in manager({"edge_features": x}, {})
    state = manager.state_dict()
    assert list(state) == ["_extra_state"]
    other, _ = managed()
    other.load_state_dict(state, strict=True)
    assert other.entries["ec"].coeff is None
    assert other.metrics_values_step == manager.metrics_values_step
    assert metric.state_dict() == {}
    assert list(metric.parameters()) == list(metric.buffers()) == []


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda metric: metric.clone(),
        lambda metric: pickle.loads(pickle.dumps(metric)),
    ],
    ids=["deepcopy", "clone", "pickle"],
)
def test_copies_go_on_where_they_are_and_apart(copied):
    metric = EdgeCorrelation(
        layer_dim=CHANNELS, layer_weights=[0, 1, 0], max_edges=12, seed=3
    )
    metric({"edge_features": features(0).requires_grad_()}, {})
    before = metric.compute().item()
    other = copied(metric)
    x = {"edge_features": features(1)}
    assert other(x, {}).item() == metric(x, {}).item()
    assert float(other.compute()) == metric.compute().item() != before
    other.reset()
    assert metric.update_called


def test_two_metrics_can_be_merged():
    a, b = EdgeCorrelation(), EdgeCorrelation()
    a.update({"edge_features": features(0)}, {})
    b.update({"edge_features": features(1)}, {})
    a.merge_state(b)
    expected = reference.penalty(torch.cat([features(0), features(1)]).numpy())
    assert float(a.compute()) == pytest.approx(expected, abs=FLOAT64_TOLERANCE)


def test_casting_a_module_does_not_touch_the_float64_sums():
    manager, metric = managed()
    step(manager, features(0))
    expected = metric.compute()
    manager.float()
    manager.half()
    assert metric.second.dtype == torch.float64
    assert metric.compute().item() == float(expected)


def test_the_yaml_of_the_docstring_is_a_loss():
    text = inspect.getdoc(EdgeCorrelation)
    block = text.split(".. code-block:: yaml\n")[1].split("\nArgs:")[0]
    config = yaml.safe_load(textwrap.dedent(block))["training_module"]["loss"]
    loss = instantiate(config, type_names=["Hf", "O"])
    assert list(loss) == ["per_atom_energy_mse", "forces_mse", "edge_correlation"]
    # the docstring says so: 1 + 1 + 0.3 is rescaled to 1
    assert [e.coeff for e in loss.entries.values()] == pytest.approx(
        [1 / 2.3, 1 / 2.3, 0.3 / 2.3]
    )
    x = torch.randn(50, 128, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    frame = {
        AtomicDataDict.TOTAL_ENERGY_KEY: torch.zeros(1, 1),
        AtomicDataDict.FORCE_KEY: torch.zeros(5, 3),
        AtomicDataDict.NUM_NODES_KEY: torch.tensor([5]),
    }
    values = loss({**frame, "edge_features": x}, frame)
    values["weighted_sum"].backward()
    blocks = x.detach().double().view(50, 2, 64).numpy()
    expected = (reference.penalty(blocks[:, 0]) + reference.penalty(blocks[:, 1])) / 2
    assert values["edge_correlation"].item() == pytest.approx(expected, abs=1e-6)
    assert values["weighted_sum"].item() == pytest.approx(expected * 0.3 / 2.3)
    assert float(x.grad.abs().max()) > 0


# --- bad input ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_dim": 0}, "`layer_dim` to be a whole number >= 1 or null, got 0"),
        ({"layer_dim": -4}, "`layer_dim` to be a whole number >= 1 or null, got -4"),
        (
            {"layer_dim": 64.0},
            "`layer_dim` to be a whole number >= 1 or null, got 64.0",
        ),
        (
            {"layer_dim": "64"},
            "`layer_dim` to be a whole number >= 1 or null, got '64'",
        ),
        ({"layer_weights": 1.0}, "`layer_weights` to be a list or null, got 1.0"),
        ({"layer_weights": ["a"]}, r"finite `layer_weights`.*got \['a'\]"),
        (
            {"variance_floor": "low"},
            "`variance_floor` to be a finite number >= 0 and <= 1, got 'low'",
        ),
        ({"layer_weights": [-1.0, 2.0]}, r"`layer_weights` >= 0.*got \[-1.0, 2.0\]"),
        ({"layer_weights": [0.0, 0.0]}, r"not all 0, got \[0.0, 0.0\]"),
        ({"layer_weights": [NAN, 1.0]}, r"finite `layer_weights`.*got \[nan, 1.0\]"),
        ({"layer_weights": [INF]}, r"finite `layer_weights`.*got \[inf\]"),
        ({"penalty": "cube"}, "to be one of square, abs, got 'cube'"),
        (
            {"variance_floor": -1e-4},
            "`variance_floor` to be a finite number >= 0 and <= 1, got -0.0001",
        ),
        (
            {"variance_floor": NAN},
            "`variance_floor` to be a finite number >= 0 and <= 1, got nan",
        ),
        (
            {"variance_floor": 2},
            "`variance_floor` to be a finite number >= 0 and <= 1, got 2",
        ),
        ({"max_edges": 1}, "`max_edges` to be a whole number >= 2 or null, got 1"),
        ({"max_edges": 2.5}, "`max_edges` to be a whole number >= 2 or null, got 2.5"),
        ({"max_edges": NAN}, "`max_edges` to be a whole number >= 2 or null, got nan"),
        (
            {"max_edges": True},
            "`max_edges` to be a whole number >= 2 or null, got True",
        ),
        ({"seed": 1.5}, "whole `seed`, got 1.5"),
    ],
)
def test_bad_options_get_one_line(options, message):
    with pytest.raises(UserError, match=message) as error:
        EdgeCorrelation(**options)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("expected ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_weights": [1.0, 1.0]}, "each of the 3 layers, got 2"),
        ({"field": "edge_feature"}, r"output `edge_feature`, got only \['edge_f"),
    ],
)
def test_options_that_the_features_do_not_fit(options, message):
    manager, _ = managed(**options)
    with pytest.raises(UserError, match=message):
        step(manager, features(0))


def test_a_width_that_the_features_do_not_have():
    metric = EdgeCorrelation(layer_dim=5)
    with pytest.raises(UserError, match="divide the 12 channels of the features, go"):
        metric({"edge_features": features(0)}, {})


def test_a_single_channel_has_nothing_to_correlate_with():
    with pytest.raises(UserError, match=r"two channels or more, got \[\(0, 1\)"):
        EdgeCorrelation(layer_dim=1)({"edge_features": features(0)}, {})


def test_a_diagnosis_needs_a_batch():
    with pytest.raises(UserError, match=r"no batch has been seen yet"):
        EdgeCorrelation().diagnosis()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("weights", [None, [1, 0, 0]])
def test_features_that_are_not_finite_stop_the_training(bad, weights):
    manager, metric = managed(layer_weights=weights)
    step(manager, features(0).requires_grad_())
    broken = features(1)
    broken[7, 2 * CHANNELS] = bad
    broken.requires_grad_()
    with pytest.raises(
        FloatingPointError, match=r"layer 2 of step 1;.*the weights are unchanged"
    ) as e:
        step(manager, broken)
    assert "`edge_features`" in str(e.value)
    assert "\n" not in str(e.value)
    # the callback looks at the value that NequIP has read from the device anyway
    metric.checked_by_callback = True
    value = step(manager, broken)
    assert not value.isfinite()
    with pytest.raises(FloatingPointError, match="layer 2 of step 9, epoch 4;"):
        metric.check_finite(value.item(), "step 9, epoch 4")


def test_finite_values_pass_the_check():
    metric = EdgeCorrelation()
    metric.check_finite(0.5, "step 0")
    with pytest.raises(FloatingPointError, match=r"layer \? of step 0"):
        metric.check_finite(NAN, "step 0")
