"""Means and paired differences against SciPy and closed forms."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from vaegan_jax.experiments.compare import statistics
from vaegan_jax.experiments.compare.statistics import Estimate, estimate

MAIN = "gan_samples/test/pixels fd_n100"
DINO = "gan_samples/test/dino fd_n100"
OTHER = "gan_samples/test/pixels recall"
WARM = {0: 20.0, 1: 22.5, 2: 21.0}
COLD = {0: 30.0, 1: 31.0, 2: 32.5, 5: 90.0}


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_intervals_and_p_values_equal_scipy(n):
    a, b = np.random.default_rng(n).normal(200, 7, (2, n))
    found = estimate((a - b).tolist())
    expected = scipy.stats.ttest_rel(a, b)
    low, high = expected.confidence_interval(0.95)
    assert (found.n, found.of) == (n, n)
    np.testing.assert_allclose(found.mean - found.half_width, low, rtol=1e-9)
    np.testing.assert_allclose(found.mean + found.half_width, high, rtol=1e-9)
    assert found.p == pytest.approx(expected.pvalue)


def test_intervals_in_closed_form():
    # With one degree of freedom the quantile is tan(0.475 pi).
    assert estimate([1.0, 4.0]).half_width == pytest.approx(1.5 * math.tan(0.475 * math.pi))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.5], Estimate(1, 1, 3.5)),
        ([], Estimate(0, 0)),
        ([math.nan], Estimate(0, 1)),
        ([math.nan, 3.5, math.inf], Estimate(1, 3)),
        ([2.0, 2.0, 2.0], Estimate(3, 3, 2.0, 0.0)),
        ([0.51 - 0.5, 0.62 - 0.61], Estimate(2, 2, (0.51 - 0.5 + 0.62 - 0.61) / 2, 0.0)),
    ],
)
def test_values_without_spread_are_not_tested_and_missing_ones_leave_no_mean(values, expected):
    assert estimate(values) == expected


@pytest.mark.parametrize(("n", "level", "power"), [
    (2, 0.05, 0.73), (3, 0.05, 0.77), (5, 0.05, 0.79), (10, 0.05, 0.80), (40, 0.05, 0.80),
    (3, 1 / 3000, 0.65), (10, 1 / 3000, 0.74),
])  # fmt: skip
def test_detectable_difference_has_the_documented_power(n, level, power):
    half_width = scipy.stats.t.ppf(0.975, n - 1) / math.sqrt(n)  # of the standard deviation 1
    difference = statistics.detectable(half_width, n, level)
    critical = scipy.stats.t.ppf(1 - level / 2, n - 1)
    if level == 0.05:
        exact = scipy.stats.nct.sf(critical, n - 1, difference * math.sqrt(n))
        assert exact == pytest.approx(power, abs=0.01)
    samples = np.random.default_rng(n).normal(difference, 1.0, (n, 40_000))
    found = scipy.stats.ttest_1samp(samples, 0.0).pvalue <= level
    assert found.mean() == pytest.approx(power, abs=0.015)


def test_detectable_difference_in_closed_form():
    # With one degree of freedom the quantile of p is tan(pi (p - 1/2)).
    interval, power = math.tan(math.pi * 0.475), math.tan(math.pi * 0.3)
    assert statistics.detectable(3.0 * interval, 2, 0.05) == pytest.approx(3.0 * (interval + power))


def test_holm_is_the_closure_of_bonferroni():
    p = np.random.default_rng(0).uniform(0, 0.3, 7)
    subsets = [s for n in range(1, 8) for s in itertools.combinations(range(7), n)]
    bonferroni = {s: min(1.0, len(s) * min(p[i] for i in s)) for s in subsets}
    closed = [max(value for s, value in bonferroni.items() if i in s) for i in range(7)]
    np.testing.assert_allclose(statistics.holm(p), closed)
    assert statistics.holm([]) == []


def test_differences_are_paired_by_key():
    groups = [{s: {MAIN: x} for s, x in of.items()} for of in (WARM, dict(reversed(COLD.items())))]
    (row,) = statistics.table(groups)
    assert [mean.mean for mean in row.means] == [np.mean([*of.values()]) for of in (WARM, COLD)]
    (difference,) = row.differences
    expected = scipy.stats.ttest_rel([COLD[s] for s in range(3)], [WARM[s] for s in range(3)])
    assert (difference.n, difference.of) == (3, 3)
    assert difference.p == difference.adjusted_p == pytest.approx(expected.pvalue)
    assert difference.is_resolved == (expected.pvalue <= 0.05)


def test_a_number_that_a_group_lacks_has_no_difference():
    groups = [{s: {MAIN: x, OTHER: x} for s, x in WARM.items()}, {0: {MAIN: 1.0}, 1: {MAIN: 2.0}}]
    row = statistics.table(groups)[1]
    assert [mean.of for mean in row.means] == [3, 0]
    assert row.differences == [Estimate(0, 0)]


def test_all_rows_but_the_primary_one_are_one_family():
    rng = np.random.default_rng(5)
    names = [MAIN, *(f"gan_samples/test/pixels {index}" for index in range(3))]
    groups = [{s: dict(zip(names, rng.normal(size=4), strict=True)) for s in range(3)}
              for _ in range(3)]  # fmt: skip
    table = statistics.table(groups)
    assert table[0].name == MAIN
    for family, count in ((table[:1], 2), (table[1:], 6)):
        tests = [each for row in family for each in row.differences]
        p = sorted(each.p for each in tests)
        assert len(p) == count
        lowest = min(tests, key=lambda each: each.p)
        assert lowest.adjusted_p == pytest.approx(min(1, p[0] * count))
        assert not lowest.is_resolved
        # All are tested at the level that the smallest one has to reach if it does not.
        expected = statistics.detectable(lowest.half_width, 3, 0.05 / count)
        assert lowest.detectable == pytest.approx(expected)


@pytest.mark.parametrize(
    ("names", "primary"),
    [
        ((OTHER, MAIN, DINO, "gan_samples/curve/fd_pixels"), [MAIN, DINO]),
        ((OTHER, "gan_samples/curve/fd_x", MAIN), [MAIN]),
        ((OTHER, "vae_samples/test/x fd_n1", "gan_samples/curve/fd_x"), ["gan_samples/curve/fd_x"]),
        ((OTHER, "vae_samples/test/x fd_n1"), []),
    ],
)
def test_the_primary_rows_are_the_distances_of_the_gan(names, primary):
    rows = statistics.table([{0: dict.fromkeys(names, 1.0)}] * 2)
    assert [row.name for row in rows if row.is_primary] == primary
    assert [row.name for row in rows][: len(primary)] == primary
    assert {row.name for row in rows} == {*names}
