"""What decorrelation is compared with: sharpness-aware minimisation and weight noise.

Both are named in the overrides of studies and found by ``nequip-train`` with the
repository in ``PYTHONPATH``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pytorch_optimizer import SAM

from nequip_decorr.errors import UserError


class SharpnessAware(SAM):  # type: ignore[misc] - the library has no types here
    """SAM (arXiv:2010.01412) around Adam, for Lightning's automatic optimisation.

    Allegro-Legato (arXiv:2303.08169) is Allegro trained so. Lightning passes a closure
    that computes loss and gradients; SAM needs them once before its step and once at
    the perturbed weights.

    .. code-block:: yaml

        optimizer:
          _target_: benchmarks.hfox.controls.SharpnessAware
          lr: 0.005
          rho: 0.005

    Args:
        params: weights.
        lr: learning rate of Adam.
        rho: radius of the perturbation of the weights.
    """

    def __init__(self, params: Any, lr: float, rho: float) -> None:
        super().__init__(params, torch.optim.Adam, rho=rho, lr=lr)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns the loss at the weights before it."""
        if closure is None:
            raise UserError("expected a closure, got None; SAM computes the loss twice")
        with torch.enable_grad():
            loss = closure()
        super().step(closure)
        return loss


class NoisyAdam(torch.optim.Adam):
    """Adam with its loss at randomly perturbed weights, a dropout-like control.

    Each weight tensor gets Gaussian noise of ``noise`` times its root mean square, then
    the loss is computed, and its own values back before the step.

    Args:
        params: weights.
        lr: learning rate.
        noise: relative size of the perturbation.
    """

    def __init__(self, params: Any, lr: float, noise: float) -> None:
        super().__init__(params, lr=lr)
        self.noise = noise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns the loss at the perturbed weights."""
        if closure is None:
            raise UserError(
                "expected a closure, got None; the loss needs noisy weights"
            )
        weights = [w for group in self.param_groups for w in group["params"]]
        kept = [w.clone() for w in weights]
        for w in weights:
            w.add_(torch.randn_like(w) * (self.noise * w.square().mean().sqrt()))
        with torch.enable_grad():
            loss = closure()
        for w, own in zip(weights, kept, strict=True):
            w.copy_(own)
        super().step()
        return loss
