"""Other forms of the term, against their definitions in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nequip.data import AtomicDataDict
from scipy import stats

from benchmarks.hfox.forms import FORMS, OtherForm
from nequip_decorr import EdgeCorrelation

EDGES, CHANNELS, LAYERS = 500, 6, 2
X = AtomicDataDict.EDGE_FEATURES_KEY


@pytest.fixture
def preds() -> dict[str, torch.Tensor]:
    """Edge features that fade with the envelope and differ by pair of elements."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    envelope = torch.rand(EDGES, 1, generator=generator)
    types = torch.randint(0, 2, (2, EDGES), generator=generator)
    own = randn(EDGES, LAYERS * CHANNELS) @ randn(LAYERS * CHANNELS, LAYERS * CHANNELS)
    by_pair = randn(4, LAYERS * CHANNELS)[2 * types[0] + types[1]]
    return {
        X: (own + 3 * by_pair) * envelope,
        AtomicDataDict.EDGE_CUTOFF_KEY: envelope,
        AtomicDataDict.EDGE_TYPE_KEY: types,
        AtomicDataDict.ATOM_TYPE_KEY: torch.tensor([0, 1]),
    }


def metric(form: str, max_edges: int | None = None) -> OtherForm:
    return OtherForm(form=form, layer_dim=CHANNELS, max_edges=max_edges)


def mean_square(rows: np.ndarray) -> float:
    """Mean squared Pearson correlation over pairs of columns."""
    rho = np.corrcoef(rows, rowvar=False)
    return float(np.mean(rho[~np.eye(CHANNELS, dtype=bool)] ** 2))


def layers(preds: dict[str, torch.Tensor]) -> list[np.ndarray]:
    x = preds[X].double().numpy()
    return [x[:, :CHANNELS], x[:, CHANNELS:]]


def test_plain_is_the_term_of_the_package(preds: dict[str, torch.Tensor]) -> None:
    results = []
    for each in (metric("plain"), EdgeCorrelation(field=X, layer_dim=CHANNELS)):
        x = preds[X].clone().requires_grad_()
        value = each({**preds, X: x}, {})
        value.backward()
        results.append((value, x.grad))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=0)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-8)


def test_without_envelope_is_the_partial_correlation(
    preds: dict[str, torch.Tensor],
) -> None:
    u = preds[AtomicDataDict.EDGE_CUTOFF_KEY].double().numpy()[:, 0]

    def left(column: np.ndarray) -> np.ndarray:
        line = stats.linregress(u, column)
        return column - line.intercept - line.slope * u

    expected = np.mean(
        [
            mean_square(np.stack([left(column) for column in x.T], axis=1))
            for x in layers(preds)
        ]
    )
    plain = np.mean([mean_square(x) for x in layers(preds)])
    assert abs(plain - expected) > 1e-3
    assert float(metric("envelope")(preds, {})) == pytest.approx(expected, rel=1e-3)


def test_by_element_pair_takes_a_mean_each(preds: dict[str, torch.Tensor]) -> None:
    pair = (2 * preds[AtomicDataDict.EDGE_TYPE_KEY][0]).numpy()
    pair = pair + preds[AtomicDataDict.EDGE_TYPE_KEY][1].numpy()
    values = []
    for x in layers(preds):
        for kind in range(4):
            x[pair == kind] -= x[pair == kind].mean(axis=0)
        values.append(mean_square(x))
    assert float(metric("pairs")(preds, {})) == pytest.approx(np.mean(values), rel=1e-3)
    # a pair that the batch does not have is no column of zeros
    only = {**preds, AtomicDataDict.EDGE_TYPE_KEY: torch.zeros(2, EDGES).long()}
    torch.testing.assert_close(
        metric("pairs")(only, {}), metric("plain")(only, {}), rtol=1e-4, atol=0
    )


def test_decorr_in_its_closed_form(preds: dict[str, torch.Tensor]) -> None:
    values = []
    for x in layers(preds):
        cov = np.cov(x, rowvar=False)
        participation = np.trace(cov) ** 2 / np.sum(cov**2)
        values.append(np.sqrt(2 - 2 * np.sqrt(participation / CHANNELS)))
    value = float(metric("decorr")(preds, {}))
    assert value == pytest.approx(np.mean(values), rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_the_edges_that_are_drawn_have_their_own_regressors(
    form: str, preds: dict[str, torch.Tensor]
) -> None:
    drawn = torch.randperm(EDGES, generator=torch.Generator().manual_seed(0))[:60]
    part = {
        key: value[:, drawn] if key == AtomicDataDict.EDGE_TYPE_KEY else value[drawn]
        for key, value in preds.items()
        if key != AtomicDataDict.ATOM_TYPE_KEY
    } | {AtomicDataDict.ATOM_TYPE_KEY: preds[AtomicDataDict.ATOM_TYPE_KEY]}
    found = metric(form, max_edges=60)
    torch.testing.assert_close(found(preds, {}), metric(form)(part, {}))
    # others for the next batch
    assert float(found(preds, {})) != float(metric(form)(part, {}))


def test_an_epoch_is_the_mean_of_its_batches(preds: dict[str, torch.Tensor]) -> None:
    half = {**preds, X: preds[X] ** 2}
    found = metric("plain")
    values = [float(found(batch, {})) for batch in (preds, half)]
    assert float(found.compute()) == pytest.approx(np.mean(values))
