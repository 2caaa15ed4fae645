"""Other forms of the term, against their definitions in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nequip.data import AtomicDataDict
from scipy import stats

from benchmarks.hfox.forms import FORMS, OtherForm
from nequip_decorr.correlation.channels import scalar_blocks
from nequip_decorr.correlation.sampled import SampledCorrelation
from nequip_decorr.correlation.sampling import step_seed, subsample_rows

EDGES, CHANNELS, LAYERS = 500, 6, 2


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
        "x": (own + 3 * by_pair) * envelope,
        AtomicDataDict.EDGE_CUTOFF_KEY: envelope,
        AtomicDataDict.EDGE_TYPE_KEY: types,
        AtomicDataDict.ATOM_TYPE_KEY: torch.tensor([0, 1]),
    }


def metric(form: str, max_edges: int | None = None) -> OtherForm:
    found = OtherForm(
        form=form, blocks=scalar_blocks("x", CHANNELS, LAYERS), max_edges=max_edges
    )
    found.checked_by_callback = True
    return found


def mean_square(rows: np.ndarray) -> float:
    """Mean squared Pearson correlation over pairs of columns."""
    rho = np.corrcoef(rows, rowvar=False)
    return float(np.mean(rho[~np.eye(CHANNELS, dtype=bool)] ** 2))


def layers(preds: dict[str, torch.Tensor]) -> list[np.ndarray]:
    x = preds["x"].double().numpy()
    return [x[:, :CHANNELS], x[:, CHANNELS:]]


def test_plain_is_the_term_of_the_package(preds: dict[str, torch.Tensor]) -> None:
    ours = SampledCorrelation(blocks=metric("plain").blocks, max_edges=100)
    ours.checked_by_callback = True
    results = []
    for each in (metric("plain", max_edges=100), ours):
        x = preds["x"].clone().requires_grad_()
        value = each({**preds, "x": x}, {})
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
    drawn = metric(form, max_edges=60)
    rows = subsample_rows(EDGES, 60, step_seed(drawn.seed, drawn.step))
    part = {
        key: value[:, rows] if key == AtomicDataDict.EDGE_TYPE_KEY else value[rows]
        for key, value in preds.items()
        if key != AtomicDataDict.ATOM_TYPE_KEY
    } | {AtomicDataDict.ATOM_TYPE_KEY: preds[AtomicDataDict.ATOM_TYPE_KEY]}
    torch.testing.assert_close(drawn(preds, {}), metric(form)(part, {}))
