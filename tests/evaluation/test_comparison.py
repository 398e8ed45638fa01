"""Comparisons against plain NumPy in float64."""

import numpy as np
import pytest
import scipy.linalg
from scipy.spatial.distance import cdist

from vaegan_jax.evaluation import comparison

# Real images, fakes, features; the largest case has several blocks of rows.
SIZES = [(60, 40, 5), (40, 60, 3), (700, 550, 4)]


def draw(n, m, d):
    """Shifted and narrower fakes, some of them copies of real images or of each other."""
    rng = np.random.default_rng(n)
    real, fake = rng.normal(size=(n, d)), rng.normal(0.5, 0.7, (m, d))
    fake[:3] = real[:3] + rng.normal(0, 1e-3, (3, d))
    fake[3:10] = fake[10:17] + rng.normal(0, 1e-3, (7, d))
    return real.astype(np.float32), fake.astype(np.float32)


def nearest_others(x):
    """Distances of each row to the other rows, ascending."""
    return np.sort(cdist(x, x) + np.diag(np.full(len(x), np.inf)), axis=1)


def frechet(x, y):
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b)
    return ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() + np.trace(a + b - 2 * root.real)


def kernel_distance(x, y):
    def k(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    n, m = len(x), len(y)
    within_x = (k(x, x).sum() - np.trace(k(x, x))) / (n * (n - 1))
    within_y = (k(y, y).sum() - np.trace(k(y, y))) / (m * (m - 1))
    return within_x + within_y - 2 * k(x, y).mean()


def plain(real, fake):
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    between = cdist(fake, real)
    near_real, near_fake = nearest_others(real), nearest_others(fake)
    inside = between < near_real[None, :, 4]
    return {
        "frechet": frechet(real, fake),
        "kernel": kernel_distance(real, fake),
        "precision": (between <= near_real[None, :, 2]).any(axis=1).mean(),
        "recall": (between <= near_fake[:, 2, None]).any(axis=0).mean(),
        "density": inside.sum() / (5 * len(fake)),
        "coverage": inside.any(axis=0).mean(),
    }


def compare(real, fake):
    return comparison.compare(comparison.reference(real), fake)


@pytest.mark.parametrize("sizes", SIZES)
def test_metrics_equal_their_definitions(sizes):
    real, fake = draw(*sizes)
    values, expected = compare(real, fake), plain(real, fake)
    assert set(values) == set(expected) == set(comparison.METRICS)
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], value, rtol=2e-4, atol=1e-6, err_msg=name)
    for name in ("precision", "recall", "coverage"):
        assert 0 < expected[name] < 1


def test_metrics_of_the_reference_itself():
    real, _ = draw(60, 40, 5)
    values = compare(real, real)
    np.testing.assert_allclose(values["frechet"], 0, atol=1e-4)
    for name in ("precision", "recall", "coverage"):
        assert values[name] == 1
    assert values["kernel"] < 0  # it is unbiased


def test_metrics_of_distant_fakes():
    real, fake = draw(60, 40, 5)
    values = compare(real, fake + np.float32(50))
    for name in ("precision", "recall", "density", "coverage"):
        assert values[name] == 0
