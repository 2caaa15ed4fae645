"""Which rows and channels a step draws."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from scipy import stats

from nequip_decorr import EdgeCorrelation
from nequip_decorr.correlation.functional import as_blocks, moments
from nequip_decorr.correlation.sampled import SampledCorrelation
from nequip_decorr.correlation.sampling import subsample_channels, subsample_rows
from nequip_decorr.errors import UserError
from tests.support import reference
from tests.support.pooled import (
    CHANNELS,
    LAYERS,
    drawn_rows,
    features,
    looped,
    managed,
    step,
)
from tests.support.reference import FLOAT64_TOLERANCE, holds_for


@holds_for(st.integers(1, 500), st.data())
def test_subsample_is_of_distinct_rows_and_reproducible(total, data):
    keep = data.draw(st.integers(1, total))
    seed = data.draw(st.integers(0, 2**32 - 1))
    rows = subsample_rows(total, keep, seed)
    assert rows.shape == (keep,)
    assert rows.dtype == torch.int64
    assert len(set(rows.tolist())) == keep
    assert 0 <= int(rows.min()) <= int(rows.max()) < total
    assert torch.equal(rows, subsample_rows(total, keep, seed))
    if keep == total:
        assert sorted(rows.tolist()) == list(range(total))


def test_subsample_differs_between_seeds_and_leaves_the_global_generator():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    draws = {tuple(subsample_rows(1000, 10, seed).tolist()) for seed in range(50)}
    assert len(draws) == 50
    assert torch.equal(torch.get_rng_state(), before)


def test_each_row_is_drawn_equally_often():
    total, keep, draws = 23, 7, 12_000
    # one row of each draw: draws are independent, rows within a draw are not
    picked = [int(subsample_rows(total, keep, s)[s % keep]) for s in range(draws)]
    counts = np.bincount(picked, minlength=total)
    assert stats.chisquare(counts).pvalue > 1e-3
    # and every position of a draw, by the binomial spread of an inclusion
    included = torch.cat([subsample_rows(total, keep, s) for s in range(4000)])
    p = keep / total
    z = (included.bincount(minlength=total) - 4000 * p) / (4000 * p * (1 - p)) ** 0.5
    assert float(z.abs().max()) < 4


@pytest.mark.parametrize(("total", "keep"), [(5, 6), (5, 0), (0, 0), (5, -1)])
def test_subsample_refuses_impossible_sizes(total, keep):
    with pytest.raises(UserError, match=rf"between 1 and all of {total} .*got {keep}"):
        subsample_rows(total, keep, 0)


def test_every_pair_of_channels_is_drawn_equally_often():
    total, keep, draws = 7, 3, 6000
    included = dict.fromkeys(itertools.combinations(range(total), 2), 0)
    for seed in range(draws):
        drawn = sorted(subsample_channels(total, keep, seed).tolist())
        assert len(set(drawn)) == keep
        for pair in itertools.combinations(drawn, 2):
            included[pair] += 1
    p = keep * (keep - 1) / (total * (total - 1))
    for count in included.values():
        assert stats.binomtest(count, draws, p).pvalue > 1e-4 / len(included)


def test_the_mean_over_steps_is_that_of_all_channels_within_the_stated_bound():
    x = reference.mixed_features(11, 60, 1, 12)
    metric = SampledCorrelation(max_channels=6)
    values = []
    for number in range(2000):
        metric.step = number
        with torch.no_grad():
            values.append(metric({"edge_features": x}, {}).item())
    found = torch.tensor(values)
    expected = reference.penalty(x.numpy())
    standard_error = float(found.std()) / len(values) ** 0.5
    # the floor's mean variance is that of the channels drawn: 1e-4 of R
    assert abs(float(found.mean()) - expected) < 4 * standard_error + 1e-4
    r = reference.correlation(x.numpy())
    sigma = (r[~torch.eye(12, dtype=torch.bool).numpy()] ** 2).std()
    assert 0 < float(found.std()) < sigma * (2 / 6) ** 0.5


def test_a_subsample_is_reproducible_and_differs_between_steps_and_seeds():
    x = {"edge_features": features(0, 200).requires_grad_()}

    def values(seed, steps=4):
        metric = EdgeCorrelation(max_edges=20, seed=seed)
        return [metric(x, {}).item() for _ in range(steps)]

    assert values(0) == values(0)
    assert len(set(values(0) + values(1) + values(-1))) == 12
    metric = EdgeCorrelation(max_edges=20)
    metric.step = 3
    assert metric(x, {}).item() == values(0)[3]
    assert metric.step == 4


def test_fewer_edges_than_the_limit_are_all_used():
    manager, metric = managed(max_edges=30)
    assert step(manager, features(0, 30)).item() == pytest.approx(
        sum(looped(features(0, 30))) / LAYERS, abs=FLOAT64_TOLERANCE
    )
    assert metric.weight == metric.rows == 30


def test_a_subsample_stands_for_its_batch():
    metric = EdgeCorrelation(max_edges=12, seed=5)
    big, small = features(0, 60), features(1, 10)
    drawn = drawn_rows(60, max_edges=12, seed=5)
    metric({"edge_features": big}, {})
    metric({"edge_features": small}, {})
    assert metric.rows == 22
    assert metric.weight.item() == pytest.approx(70, rel=1e-14)
    rows = torch.cat([big[drawn], small]).numpy()
    weights = torch.tensor([5.0] * 12 + [1.0] * 10).numpy()
    assert metric.compute().item() == pytest.approx(
        reference.penalty(rows, weights=weights), abs=FLOAT64_TOLERANCE
    )


def test_subsampled_moments_are_unbiased():
    x = features(0, 37)
    whole = moments(as_blocks(x, CHANNELS))
    _, metric = managed(max_edges=10)
    x.requires_grad_()
    draws = []
    for _ in range(1500):
        metric({"edge_features": x}, {})
        draws.append(torch.cat([p.flatten() for p in metric.last_batches[0][1:]]))
    draws = torch.stack(draws)
    expected = torch.cat([p.flatten() for p in whole[1:]])
    standard_error = draws.std(dim=0) / len(draws) ** 0.5
    deviation = (draws.mean(dim=0) - expected).abs()
    # of 61 numbers, seeded
    assert (deviation <= 4 * standard_error + 1e-9).all()
    assert (standard_error[1:] < 0.2 * draws.std(dim=0)[1:]).all()
