"""Float64 references that loop, written from the formulas, and what tests share.

Nothing here is imported from the package: the constants are restated on purpose.
"""

from math import exp, log, sqrt
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings

#: relative to a quantity of order 1, on float64 features of moderate mean
FLOAT64_TOLERANCE = 1e-9
#: on float32 features, whatever their scale, and for means up to 1000 deviations
FLOAT32_TOLERANCE = 2e-6
#: relative to the largest entry of the gradient, on float32 features
FLOAT32_GRADIENT_TOLERANCE = 1e-5
#: between one process and two, float32 features
RANKS_TOLERANCE = 1e-6

VARIANCE_FLOOR = 1e-4
DEAD_TO_BLOCK = 1e-8
DEAD_TO_MEAN = 1e-12


def holds_for(*strategies):
    """A property test: the same examples in every run."""

    def decorate(test):
        run = settings(deadline=None, derandomize=True, max_examples=50)
        return run(given(*strategies)(test))

    return decorate


def mean_and_covariance(x, weights=None):
    """Two-pass mean ``(C,)`` and covariance ``(C, C)`` over N of rows ``(N, C)``."""
    rows, channels = x.shape
    w = np.ones(rows) if weights is None else weights
    total = 0.0
    mean = np.zeros(channels)
    cov = np.zeros((channels, channels))
    for k in range(rows):
        total += w[k]
    if total == 0:
        return mean, cov
    for i in range(channels):
        for k in range(rows):
            mean[i] += w[k] * x[k, i] / total
    for i in range(channels):
        for j in range(channels):
            for k in range(rows):
                cov[i, j] += w[k] * (x[k, i] - mean[i]) * (x[k, j] - mean[j]) / total
    return mean, cov


def live(x, weights=None):
    """Indices of the channels of ``(N, C)`` that vary."""
    mean, cov = mean_and_covariance(x, weights)
    channels = len(mean)
    average = sum(cov[i, i] for i in range(channels)) / channels
    return [
        i
        for i in range(channels)
        if cov[i, i] > DEAD_TO_BLOCK * average
        and cov[i, i] > DEAD_TO_MEAN * mean[i] ** 2
    ]


def correlation(x, floor=VARIANCE_FLOOR, weights=None):
    """R ``(C, C)`` of one block ``(N, C)``, 0 where a channel is dead."""
    _, cov = mean_and_covariance(x, weights)
    channels = x.shape[1]
    average = sum(cov[i, i] for i in range(channels)) / channels
    r = np.zeros((channels, channels))
    alive = live(x, weights)
    for i in alive:
        for j in alive:
            vi = cov[i, i] + floor * average
            vj = cov[j, j] + floor * average
            r[i, j] = cov[i, j] / sqrt(vi) / sqrt(vj)
    return r


def penalty(x, kind="square", floor=VARIANCE_FLOOR, weights=None):
    """Mean over pairs of live channels of one block ``(N, C)``."""
    r = correlation(x, floor, weights)
    alive = live(x, weights)
    pairs = [(i, j) for i in alive for j in alive if i < j]
    if not pairs:
        return 0.0
    return sum(
        r[i, j] ** 2 if kind == "square" else abs(r[i, j]) for i, j in pairs
    ) / len(pairs)


def debias(mean_square, rows):
    if rows <= 2:
        return 0.0
    return 1 - (1 - mean_square) * (rows - 1) / (rows - 2)


def rankme_of_rows(x):
    """RankMe as its paper has it: singular values of the matrix of rows itself."""
    singular = np.linalg.svd(x, compute_uv=False)
    if not singular.sum() > 0:
        return 0.0
    entropy = 0.0
    for s in singular:
        p = s / singular.sum()
        if p > 0:
            entropy -= p * log(p)
    return exp(entropy)


def participation_ratio(eigenvalues):
    return sum(eigenvalues) ** 2 / sum(e * e for e in eigenvalues)


def diagnosis(x):
    """Every field of a Diagnosis, of one block ``(N, C)``, over live channels only."""
    rows, channels = x.shape
    alive = live(x)
    count = len(alive)
    fields = {
        "mean_abs": penalty(x, "abs", floor=0.0),
        "rms": sqrt(penalty(x, "square", floor=0.0)),
        "maximum": 0.0,
        "mean_square_debiased": 0.0,
        "rankme": 0.0,
        "participation_ratio": 0.0,
        "dead_fraction": (channels - count) / channels,
    }
    if not count:
        return fields
    r = correlation(x, floor=0.0)
    if count > 1:
        fields["maximum"] = max(abs(r[i, j]) for i in alive for j in alive if i != j)
        fields["mean_square_debiased"] = debias(fields["rms"] ** 2, rows)
    mean, cov = mean_and_covariance(x)
    standard = np.array([(x[:, i] - mean[i]) / sqrt(cov[i, i]) for i in alive]).T
    values = np.linalg.eigvalsh(standard.T @ standard / rows)
    fields["rankme"] = rankme_of_rows(standard)
    fields["participation_ratio"] = participation_ratio(values)
    return fields


def naive_penalty(x, kind="square", floor=VARIANCE_FLOOR):
    """The penalty ``(L,)`` of ``(N, L, C)`` by plain autograd; all channels alive."""
    values = []
    for block in x.unbind(dim=1):
        z = block - block.mean(dim=0)
        cov = z.T @ z / len(z)
        variance = cov.diag()
        floored = variance + floor * variance.mean()
        r = cov / torch.sqrt(floored[:, None] * floored[None, :])
        off = r[~torch.eye(len(r), dtype=torch.bool)]
        values.append((off**2 if kind == "square" else off.abs()).mean())
    return torch.stack(values)


def mixed_features(seed, rows, layers, channels, dtype=torch.float64):
    """Rows ``(N, L * C)`` that are partly correlated, seeded."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, layers, channels))
    mix = np.eye(channels) + 0.7 * rng.normal(size=(layers, channels, channels))
    x = np.einsum("nlc,lcd->nld", x, mix) + rng.normal(size=(layers, channels))
    return torch.tensor(x.reshape(rows, layers * channels), dtype=dtype)


TYPE_NAMES = ["Hf", "O"]
R_MAX = 3.0
_MODEL = {
    "seed": 1,
    "model_dtype": "float32",
    "type_names": TYPE_NAMES,
    "r_max": R_MAX,
    "l_max": 1,
    "avg_num_neighbors": 10.0,
    "per_type_energy_scales": 1.0,
    "per_type_energy_shifts": 0.0,
}
ALLEGRO = {
    "_target_": "allegro.model.AllegroModel",
    **_MODEL,
    "num_layers": 2,
    "num_scalar_features": 4,
    "num_tensor_features": 2,
    "radial_chemical_embed": {
        "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
        "num_bessels": 4,
    },
    "scalar_embed_mlp_hidden_layers_width": 8,
    "allegro_mlp_hidden_layers_width": 8,
    "readout_mlp_hidden_layers_width": 8,
}
NEQUIP_GNN = {
    "_target_": "nequip.model.NequIPGNNModel",
    **_MODEL,
    "num_layers": 1,
    "num_features": 4,
    "radial_mlp_width": 8,
}


def build(config):
    """A real model, as NequIP's training module builds it."""
    from hydra.utils import get_method
    from nequip.utils.global_state import set_global_state

    set_global_state()
    options = dict(config)
    return get_method(options.pop("_target_"))(**options)


def hafnia_frame():
    """A batch of one frame of hafnium oxide with its neighbour list and labels."""
    from ase.io import read
    from nequip.data import AtomicDataDict, compute_neighborlist_, from_ase

    atoms = read(Path(__file__).parents[1] / "data" / "hfo2.extxyz", index=0)
    data = from_ase(atoms)
    data[AtomicDataDict.ATOM_TYPE_KEY] = torch.tensor(
        [TYPE_NAMES.index(symbol) for symbol in atoms.get_chemical_symbols()]
    )
    data = compute_neighborlist_(data, r_max=R_MAX)
    return AtomicDataDict.batched_from_list([data])
