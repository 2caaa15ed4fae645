from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nequip_decorr.md.statistics.units import (
    MIN_SIGN_FLIP,
    sign_flip_p,
    student_interval,
    student_t,
    t_limit,
    unit_means,
)

VALUES = np.random.default_rng(4).normal(0.5, 1.0, size=(3, 9))


def test_means_of_units_of_any_size():
    found = unit_means(np.array([[1.0, 2.0, 6.0, 9.0]]), np.array([0, 1, 0, 0]))
    assert found == pytest.approx(np.array([[16 / 3, 2.0]]))


def test_interval_and_t_are_scipys():
    for row in VALUES:
        expected = stats.ttest_1samp(row, 0.0)
        interval = student_interval(row)
        assert (interval.low, interval.high) == pytest.approx(
            expected.confidence_interval(0.95)
        )
        assert interval.value == pytest.approx(row.mean())
        assert (abs(student_t(row)) > t_limit(9)) == (expected.pvalue < 0.05)
    expected = stats.ttest_1samp(VALUES, 0.0, axis=1).statistic
    assert student_t(VALUES) == pytest.approx(expected)


def test_t_of_values_that_do_not_differ():
    assert student_t(np.zeros(5)) == 0
    assert student_t(np.full(5, -2.0)) == -np.inf
    # one unit: nothing is known of its spread, and no t is too large
    assert student_t(np.ones(1)) == t_limit(1) == np.inf
    assert student_interval(np.ones(1)).low == -np.inf


@pytest.mark.parametrize("n", [6, 8, 11])
def test_sign_flips_are_scipys(n):
    values = VALUES.ravel()[:n]
    expected = stats.permutation_test(
        (values,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert sign_flip_p(values) == pytest.approx(expected.pvalue, rel=1e-12)


def test_many_units_are_sampled():
    values = np.random.default_rng(0).normal(0.1, 1.0, size=60)
    # with so many units the sum of flipped values is normal
    z = values.sum() / np.sqrt(values @ values)
    assert sign_flip_p(values) == pytest.approx(2 * stats.norm.sf(abs(z)), rel=0.1)
    assert 0 < sign_flip_p(np.ones(60)) < 1e-4


def test_fewer_than_six_cannot_be_significant():
    assert sign_flip_p(np.ones(MIN_SIGN_FLIP)) == 2 * 0.5**MIN_SIGN_FLIP < 0.05
    assert 2 * 0.5 ** (MIN_SIGN_FLIP - 1) > 0.05
    assert sign_flip_p(np.ones(MIN_SIGN_FLIP - 1)) is None
    assert sign_flip_p(np.zeros(MIN_SIGN_FLIP)) == 1


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(-9, 9), min_size=6, max_size=10),
    st.randoms(use_true_random=False),
    st.floats(1e-3, 1e3),
)
def test_order_sign_and_unit_do_not_matter(values, random, scale):
    p_value = sign_flip_p(np.array(values, dtype=float))
    random.shuffle(values)
    assert sign_flip_p(-scale * np.array(values, dtype=float)) == p_value
    assert 2 * 0.5 ** len(values) <= p_value <= 1
