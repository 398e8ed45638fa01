"""Intervals and tests against those of scipy.stats."""

import numpy as np
import pytest
import scipy.stats

from vaegan_jax.comparing import student


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_interval_is_scipys(n):
    values = np.random.default_rng(n).normal(200, 7, n)
    found = student.mean(values.tolist())
    expected = scipy.stats.t.interval(
        0.95, n - 1, loc=np.mean(values), scale=scipy.stats.sem(values)
    )
    np.testing.assert_allclose((found.low, found.high), expected, rtol=1e-12)
    np.testing.assert_allclose(found.mean, np.mean(values), rtol=1e-14)
    assert found.n == n


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("shift", [-9.0, 0.0, 2.0])
def test_the_paired_test_is_scipys(n, shift):
    draws = np.random.default_rng(n)
    a = draws.normal(200, 20, n)
    b = a + draws.normal(shift, 3, n)
    found = student.paired(a.tolist(), b.tolist())
    expected = scipy.stats.ttest_rel(b, a)
    np.testing.assert_allclose(found.p, expected.pvalue, rtol=1e-9)
    interval = expected.confidence_interval(0.95)
    np.testing.assert_allclose((found.low, found.high), (interval.low, interval.high), rtol=1e-9)
    np.testing.assert_allclose(found.mean, np.mean(b) - np.mean(a), rtol=1e-9)
    assert found.within_noise == (expected.pvalue > 0.05)


def test_a_single_run_has_no_interval():
    assert student.mean([3.5]) == (1, 3.5, None, None)


def test_runs_that_say_the_same_have_an_interval_of_no_length():
    assert student.mean([2.0, 2.0, 2.0]) == (3, 2.0, 2.0, 2.0)
    assert student.paired([1.0, 2.0], [1.0, 2.0]) == (2, 0.0, 0.0, 0.0, None)
    found = student.paired([1.0, 2.0], [3.0, 4.0])
    assert found == (2, 2.0, 2.0, 2.0, 0.0)
    assert not found.within_noise
