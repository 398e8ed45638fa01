"""Against plain NumPy in float64, every definition written out again."""

import jax
import numpy as np
import pytest
import scipy.linalg
from scipy.spatial.distance import cdist

from vaegan_jax.evaluation import comparison, distances

# Images of the reference, fakes, features; the largest spans several blocks of rows.
SIZES = [(60, 40, 5), (40, 60, 3), (700, 550, 4)]


def draw(n, m, d):
    """Fakes that are shifted, narrower, and in part copies of real images, or of each other."""
    rng = np.random.default_rng(n)
    real, fake = rng.normal(size=(n, d)), rng.normal(0.5, 0.7, (m, d))
    fake[:3] = real[:3] + rng.normal(0, 1e-3, (3, d))
    fake[3:10] = fake[10:17] + rng.normal(0, 1e-3, (7, d))
    return real.astype(np.float32), fake.astype(np.float32)


def own_distances(x):
    """Every row's distances to the other rows, rising."""
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
    near_real, near_fake = own_distances(real), own_distances(fake)
    nearest, row = between.min(axis=1), between.argmin(axis=1)
    inside = between < near_real[None, :, 4]
    return {
        "frechet": frechet(real, fake),
        "kernel": kernel_distance(real, fake),
        "precision": (between <= near_real[None, :, 2]).any(axis=1).mean(),
        "recall": (between <= near_fake[:, 2, None]).any(axis=0).mean(),
        "density": inside.sum() / (5 * len(fake)),
        "coverage": inside.any(axis=0).mean(),
        "authenticity": (nearest > near_real[row, 0]).mean(),
        # Of the squared distances, between two of which the quantile is interpolated.
        "completeness": (nearest**2 <= np.quantile(near_real[:, 0] ** 2, 0.95)).mean(),
    }


def compare(real, fake):
    return jax.device_get(comparison.compare(comparison.reference(real), fake))


@pytest.mark.parametrize("sizes", SIZES)
def test_every_metric_equals_its_definition(sizes):
    real, fake = draw(*sizes)
    found, expected = compare(real, fake), plain(real, fake)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-4, atol=1e-6, err_msg=name)
    # Nothing is so far apart, or so near, that a share could not be wrong.
    for name in ("precision", "recall", "coverage", "authenticity"):
        assert 0 < expected[name] < 1


def test_the_metrics_are_those_that_are_told():
    real, fake = draw(30, 20, 3)
    assert sorted(compare(real, fake)) == sorted(comparison.METRICS)
    assert len(set(comparison.METRICS)) == len(comparison.METRICS)


def test_the_reference_compared_with_itself():
    real, _ = draw(60, 40, 5)
    found = compare(real, real)
    np.testing.assert_allclose(found["frechet"], 0, atol=1e-4)
    for name in ("precision", "recall", "coverage", "completeness"):
        assert found[name] == 1
    assert found["authenticity"] == 0
    # Each lies in its own ball and in four more; rounding decides whether in one more, whose edge
    # it is.
    assert 1 <= found["density"] <= 6 / 5
    expected = kernel_distance(*[real.astype(np.float64)] * 2)
    assert expected < 0  # it is unbiased
    np.testing.assert_allclose(found["kernel"], expected, rtol=1e-4)


def test_the_order_of_the_images_says_nothing():
    real, fake = draw(60, 40, 5)
    rng = np.random.default_rng(0)
    found = compare(real, fake)
    shuffled = compare(rng.permutation(real), rng.permutation(fake))
    for name in comparison.METRICS:
        np.testing.assert_allclose(shuffled[name], found[name], rtol=1e-4, err_msg=name)


def test_what_lies_far_away_is_not_alike():
    real, fake = draw(60, 40, 5)
    found = compare(real, fake + np.float32(50))
    for name in ("precision", "recall", "density", "coverage", "completeness"):
        assert found[name] == 0
    assert found["authenticity"] == 1
    np.testing.assert_allclose(found["frechet"], frechet(real, fake + 50.0), rtol=1e-4)


@pytest.mark.parametrize("sizes", SIZES)
def test_diversity_equals_its_definitions(sizes):
    real, fake = draw(*sizes)
    real = real[: len(fake)]
    found = comparison.diversity(distances.nearest_others(real, 1), fake)
    rows = fake.astype(np.float64) / np.linalg.norm(fake, axis=1, keepdims=True)
    weights = np.linalg.eigvalsh(rows @ rows.T / len(rows))
    weights = weights[weights > 1e-12]
    limit = np.quantile(own_distances(real)[:, 0] ** 2, 0.01)
    duplicates = (own_distances(fake)[:, 0] ** 2 < limit).mean()
    assert duplicates >= 14 / len(fake)
    assert set(found) == {"vendi", "duplicates"}
    np.testing.assert_allclose(
        found["vendi"], np.exp(-(weights * np.log(weights)).sum()), rtol=1e-4
    )
    np.testing.assert_allclose(found["duplicates"], duplicates, rtol=1e-6)


def test_a_collapsed_generator_makes_one_image_again_and_again():
    real, fake = draw(60, 40, 5)
    noise = np.random.default_rng(0).normal(0, 1e-4, fake.shape).astype(np.float32)
    found = comparison.diversity(distances.nearest_others(real[:40], 1), fake[20:21] + noise)
    np.testing.assert_allclose(found["vendi"], 1, atol=1e-4)
    assert found["duplicates"] == 1
