"""Comparisons against plain NumPy in float64 and against the published libraries."""

import jax
import numpy as np
import pytest
import scipy.linalg
from scipy.spatial.distance import cdist

from tests.evaluation.test_distances import CASES, EXPECTED, HERE
from vaegan_jax.evaluation import comparison, distances

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
        # The quantile interpolates between squared distances.
        "completeness": (nearest**2 <= np.quantile(near_real[:, 0] ** 2, 0.95)).mean(),
    }


def compare(real, fake):
    return jax.device_get(comparison.compare(comparison.reference(real), fake))


@pytest.mark.parametrize("sizes", SIZES)
def test_metrics_equal_their_definitions(sizes):
    real, fake = draw(*sizes)
    values, expected = compare(real, fake), plain(real, fake)
    assert set(values) == set(expected) == set(comparison.METRICS)
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], value, rtol=2e-4, atol=1e-6, err_msg=name)
    for name in ("precision", "recall", "coverage", "authenticity"):
        assert 0 < expected[name] < 1


def test_metrics_of_the_reference_itself():
    real, _ = draw(60, 40, 5)
    values = compare(real, real)
    np.testing.assert_allclose(values["frechet"], 0, atol=1e-4)
    for name in ("precision", "recall", "coverage", "completeness"):
        assert values[name] == 1
    assert values["authenticity"] == 0
    assert values["kernel"] < 0  # it is unbiased


def test_metrics_of_distant_fakes():
    real, fake = draw(60, 40, 5)
    values = compare(real, fake + np.float32(50))
    for name in ("precision", "recall", "density", "coverage", "completeness"):
        assert values[name] == 0
    assert values["authenticity"] == 1


@pytest.mark.parametrize("sizes", SIZES)
def test_diversity_equals_its_definitions(sizes):
    real, fake = draw(*sizes)
    real = real[: len(fake)]
    values = comparison.diversity(distances.nearest_others(real, 1), fake)
    rows = fake.astype(np.float64) / np.linalg.norm(fake, axis=1, keepdims=True)
    weights = np.linalg.eigvalsh(rows @ rows.T / len(rows))
    weights = weights[weights > 1e-12]
    limit = np.quantile(nearest_others(real)[:, 0] ** 2, 0.01)
    duplicates = (nearest_others(fake)[:, 0] ** 2 < limit).mean()
    assert duplicates >= 14 / len(fake)
    vendi = np.exp(-(weights * np.log(weights)).sum())
    np.testing.assert_allclose(values["vendi"], vendi, rtol=1e-4)
    np.testing.assert_allclose(values["duplicates"], duplicates, rtol=1e-6)


def test_diversity_of_a_collapsed_generator():
    real, fake = draw(60, 40, 5)
    noise = np.random.default_rng(0).normal(0, 1e-4, fake.shape).astype(np.float32)
    values = comparison.diversity(distances.nearest_others(real[:40], 1), fake[20:21] + noise)
    np.testing.assert_allclose(values["vendi"], 1, atol=1e-4)
    assert values["duplicates"] == 1


@pytest.mark.parametrize("name", CASES)
def test_authenticity_equals_the_library(name):
    with np.load(HERE / "parity.npz") as file:
        real, fake = file[f"{name}/real"], file[f"{name}/fake"]
    expected = EXPECTED["cases"][name]["authenticity_fraction (dgm-eval authpct rule, x0.01)"]
    nearest, neighbours = distances.nearest_others(real, 1), distances.neighbours(fake, real)
    np.testing.assert_allclose(comparison.authenticity(nearest, neighbours), expected, atol=1e-6)


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, 6)).astype(np.float32) for n in (900, 300, 300)]


def memorisation(fake, train, held_out, key=0):
    return comparison.memorisation(jax.random.key(key), fake, train, held_out)


def test_memorisation_of_fresh_samples_is_a_half(sets):
    large, small, fake = sets
    for train, held_out in ((large, small), (small, large)):
        result = memorisation(fake, train, held_out)
        assert abs(result.share - 0.5) < 4 * result.error
        assert 0.5 / np.sqrt(300) <= result.error < 0.1


def test_memorisation_detects_copies(sets):
    train, held_out, _ = sets
    noise = np.random.default_rng(1).normal(0, 1e-3, train.shape).astype(np.float32)
    result = memorisation(train + noise, train, held_out)
    # A third of the training images is drawn and nearest to its copies, as are half of the others.
    np.testing.assert_allclose(result.share, 1 / 3 + 2 / 3 / 2, atol=4 * 0.5 / np.sqrt(900))
    copied = memorisation(train[:300], train[:300], held_out)  # all are drawn
    assert copied.share == 1
    assert copied.error < 0.1


def test_memorisation_depends_on_the_key(sets):
    train, held_out, fake = sets
    shares = [memorisation(fake, train, held_out, key).share for key in (0, 0, 1)]
    assert shares[0] == shares[1] != shares[2]


def test_memorisation_error_is_large_for_shared_neighbour(sets):
    train, held_out, fake = sets
    result = memorisation(fake * 0.01 + 100, train[:300], held_out)
    assert result.share in (0, 1)
    assert result.error > 0.2
