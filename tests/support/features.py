"""Features to correlate: ordinary ones, and those that are hard on float32."""

import torch

from nequip_decorr.correlation.functional import as_blocks, moments, penalty
from tests.support import reference


def ordinary(seed, rows=30, layers=2, channels=4, dtype=torch.float64):
    x = reference.mixed_features(seed, rows, layers, channels, dtype)
    return as_blocks(x, channels)


def gradient(x, kind="square", floor=reference.VARIANCE_FLOOR):
    x = x.detach().requires_grad_()
    value = penalty(moments(x), kind, floor)
    (grad,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), grad


def looped(x, kind="square", floor=reference.VARIANCE_FLOOR):
    x = x.double().numpy()
    return [reference.penalty(x[:, i], kind, floor) for i in range(x.shape[1])]


def hard(rows=40, channels=6, seed=8):
    return ordinary(seed, rows, 1, channels, torch.float32)


def with_channel(x, values):
    x = x.clone()
    x[..., 2] = values
    return x


HARD = {
    "no edges": hard(0),
    "one edge": hard(1),
    "two edges": hard(2),
    "fewer edges than channels": hard(4, 12),
    "one channel": hard(40, 1),
    "a zero channel": with_channel(hard(), 0.0),
    "a constant channel": with_channel(hard(), 0.1),
    "a large constant channel": with_channel(hard(601), 12345.678),
    "all zero": torch.zeros(40, 1, 6),
    "all constant": torch.full((601, 1, 6), 0.1),
    "duplicated channels": hard()[..., [0, 1, 0, 2, 1, 0]],
    "all duplicated": hard()[..., [0, 0, 0, 0]],
    "a faint channel": hard() * torch.tensor([1, 1, 1e-12, 1, 1, 1]),
    "a weak channel": hard() * torch.tensor([1, 1, 1e-3, 1, 1, 1]),
    "scale 1e-20": 1e-20 * hard(),
    "scale 1e+15": 1e15 * hard(),
    "mean 1000 deviations": hard() + 2000,
    "an outlier": torch.cat([hard(), torch.full((1, 1, 6), 1e6)]),
    "many edges": hard(100_003, 3),
}
# whatever torch's default dtype: NequIP sets it to float64 for the process
HARD = {name: x.to(torch.float32) for name, x in HARD.items()}
