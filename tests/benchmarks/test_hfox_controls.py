"""The optimizers that decorrelation is compared with, against their definitions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.hfox.controls import NoisyAdam, SharpnessAware

LR = 0.1


def problem() -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Weights and a loss whose gradient differs from place to place."""
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    return weights, lambda w: (w**4).sum() + (w[0] * w[1]).square()


def step(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> Tensor:
    """One step as Lightning does it, with a closure."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    result = optimizer.step(closure)
    assert result is not None
    return result


def adam_step(weights: Tensor, gradient: Tensor) -> Tensor:
    """First step of Adam, in closed form."""
    return weights - LR * gradient / (gradient.abs() + 1e-8)


def test_sam_steps_by_the_gradient_at_the_worst_neighbour() -> None:
    rho = 0.5
    weights, loss = problem()
    start = weights.detach().clone()
    gradient = torch.func.grad(loss)(start)
    there = torch.func.grad(loss)(start + rho * gradient / gradient.norm())
    optimizer = SharpnessAware([weights], lr=LR, rho=rho)
    value = step(optimizer, lambda: loss(weights))
    torch.testing.assert_close(value.detach(), loss(start))
    torch.testing.assert_close(weights.detach(), adam_step(start, there))
    # Adam's own memory tells the gradient, not only its sign
    torch.testing.assert_close(optimizer.state[weights]["exp_avg"], 0.1 * there)


def test_noisy_adam_takes_the_gradient_elsewhere_and_steps_from_here() -> None:
    torch.manual_seed(3)
    noise = torch.randn(3, dtype=torch.float64)
    weights, loss = problem()
    start = weights.detach().clone()
    there = start + 0.2 * start.square().mean().sqrt() * noise
    gradient = torch.func.grad(loss)(there)
    torch.manual_seed(3)
    optimizer = NoisyAdam([weights], lr=LR, noise=0.2)
    value = step(optimizer, lambda: loss(weights))
    torch.testing.assert_close(value.detach(), loss(there))
    torch.testing.assert_close(weights.detach(), adam_step(start, gradient))
    torch.testing.assert_close(optimizer.state[weights]["exp_avg"], 0.1 * gradient)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda w: SharpnessAware([w], lr=LR, rho=0.1),
        lambda w: NoisyAdam([w], lr=LR, noise=0.1),
    ],
    ids=["sam", "noisy"],
)
def test_without_a_closure_there_is_no_step(
    optimizer: Callable[[Tensor], torch.optim.Optimizer],
) -> None:
    weights, _ = problem()
    with pytest.raises(ValueError, match="expected a closure"):
        optimizer(weights).step()
