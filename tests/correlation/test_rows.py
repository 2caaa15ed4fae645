"""Drawn rows: the gradient of a dense draw, at the cost of the rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nequip.train import EnergyForceLoss
from torch.profiler import ProfilerActivity, profile

from nequip_decorr.correlation.channels import scalar_blocks
from nequip_decorr.correlation.rows import has_gradient
from nequip_decorr.correlation.sampled import SampledCorrelation
from nequip_decorr.training import nequip_internals
from nequip_decorr.training.features import find_features
from tests.support import reference
from tests.support.operators import SPARSE_ROWS, Operators
from tests.training.test_feature_kinds import MODELS, outputs

LIMIT = 40


def metric_of(blocks: Any, together: bool = True) -> SampledCorrelation:
    """The loss term as the callback makes it, with few rows."""
    metric = SampledCorrelation(blocks=blocks, max_edges=LIMIT)
    metric.checked_by_callback = True
    metric.differentiated_with_energy = together
    return metric


def gradients(kind: str, together: bool) -> tuple[dict[str, torch.Tensor], int]:
    """Of a real model's weights, as a training has them; and of how many draws."""
    model = MODELS[kind]()
    model.zero_grad()
    found = find_features(model, kind)
    preds = outputs(model, found)
    metric = metric_of(found.blocks, together)
    with Operators() as counted:
        loss = preds["forces"].square().mean() + preds["total_energy"].mean()
        (loss + metric(preds, {})).backward()
    sparse = counted.names.count(SPARSE_ROWS)
    weights = {
        n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
    }
    return weights, sparse


@pytest.mark.parametrize("kind", MODELS)
def test_a_models_gradient_is_that_of_a_dense_draw(kind: str) -> None:
    expected, none = gradients(kind, together=False)
    found, sparse = gradients(kind, together=True)
    assert none == 0
    fields = {block.field for block in find_features(MODELS[kind](), kind).blocks}
    assert sparse == len(fields)
    assert found.keys() == expected.keys()
    for name, grad in found.items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-6)


def in_a_loss(
    edges: int, with_term: bool, energy: str = "total_energy"
) -> torch.Tensor:
    """Gradient of weights whose features enter an energy, and the term."""
    torch.manual_seed(1)
    inputs, weights = torch.randn(edges, 5), torch.randn(5, 12, requires_grad=True)
    features = inputs @ weights
    loss = features.square().mean()
    if with_term:
        preds = {"x": features, energy: loss}
        loss = loss + metric_of(scalar_blocks("x", 4, 3))(preds, {})
    loss.backward()
    assert weights.grad is not None
    return weights.grad


def test_no_gradient_is_made_of_the_edges_that_were_not_drawn() -> None:
    edges = 10_000

    def large(with_term: bool, energy: str = "total_energy") -> int:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            in_a_loss(edges, with_term, energy)
        sizes = [event.self_cpu_memory_usage for event in seen.events()]
        return sum(size >= 4 * 12 * edges for size in sizes)

    assert large(with_term=True) == large(with_term=False) > 0
    # and that one sees it where it is made
    assert large(with_term=True, energy="unknown") > large(with_term=False)


def test_it_is_dense_where_the_energy_does_not_depend_on_the_features() -> None:
    weights = torch.randn(5, 12, requires_grad=True)
    features = torch.randn(60, 5) @ weights
    preds = {"x": features, "total_energy": (2 * weights).sum()}
    with Operators() as counted:
        metric_of(scalar_blocks("x", 4, 3))(preds, {}).backward()
    assert SPARSE_ROWS not in counted.names
    assert weights.grad is not None


def test_outputs_of_a_compiled_function_do_not_lead_to_each_other() -> None:
    @torch.compile(backend="aot_eager")
    def model(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = x.sin()
        return features, features.square().sum()

    weights = torch.randn(60, 12, requires_grad=True)
    features, energy = model(weights)
    assert not has_gradient(features, energy)
    preds = {"x": features, "total_energy": energy}
    (energy + metric_of(scalar_blocks("x", 4, 3))(preds, {})).backward()
    assert weights.grad is not None
    assert not weights.grad.is_sparse


def test_what_leads_where() -> None:
    leaf = torch.randn(3, requires_grad=True)
    x = leaf.sin()
    first, second = x.split([1, 2])
    energy = (first * 2).exp().sum()
    assert has_gradient(x, energy)
    assert has_gradient(first, energy)
    assert not has_gradient(second, energy)  # of the same operator
    assert not has_gradient(energy, x)
    assert not has_gradient(leaf, energy)
    assert not has_gradient(x, torch.ones(()))


def test_a_second_derivative_is_refused() -> None:
    features = torch.randn(60, 12, requires_grad=True) * 1.0
    preds = {"x": features, "total_energy": features.exp().sum()}
    value = metric_of(scalar_blocks("x", 4, 3))(preds, {})
    with pytest.raises(RuntimeError, match="differentiable only once"):
        torch.autograd.grad(value, features, create_graph=True)


def test_whether_a_loss_has_the_gradient_of_the_energy() -> None:
    reference.build(reference.ALLEGRO)  # sets NequIP's global state
    for per_atom in (True, False):
        loss = EnergyForceLoss(per_atom_energy=per_atom)
        assert nequip_internals.has_energy_term(loss)
        forces = {"forces_mse": 1.0}
        loss.set_coeffs(forces)  # as LossCoefficientScheduler does
        assert not nequip_internals.has_energy_term(loss)
