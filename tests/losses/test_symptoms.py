import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from scipy.spatial.distance import pdist, squareform
from scipy.stats import chi2, mannwhitneyu

from vaegan_jax.losses import symptoms


def batch(seed, shape=(6, 8, 8, 3)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_distances_are_scipys():
    x = batch(0) + 3
    expected = squareform(pdist(x.reshape(6, -1).astype(np.float64)))
    np.fill_diagonal(expected, np.inf)
    np.testing.assert_allclose(symptoms.distances(x), expected, rtol=1e-4)


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_diversity_is_the_ratio_of_mean_distances(factor):
    fake, real = factor * batch(0), batch(1, (9, 8, 8, 3))
    expected = pdist(fake.reshape(6, -1)).mean() / pdist(real.reshape(9, -1)).mean()
    np.testing.assert_allclose(symptoms.diversity(fake, real), expected, rtol=1e-4)
    assert symptoms.diversity(np.repeat(fake[:1], 6, axis=0), real) < 1e-3


def test_near_duplicates_match_scipy():
    real, fake = batch(0, (9, 8, 8, 3)), batch(1)
    fake[1] = fake[0] + 1e-3
    fake[5] = fake[0]
    np.testing.assert_allclose(symptoms.near_duplicates(real, fake), -3 / 15, rtol=1e-6)
    for factor in (0.01, 0.17, 0.2, 0.25, 1.0):
        distances = pdist(factor * batch(2).reshape(6, -1))
        limit = 0.2 * pdist(real.reshape(9, -1)).mean()
        expected = (distances < limit).mean()
        measured = symptoms.near_duplicates(factor * batch(2), real)
        np.testing.assert_allclose(measured, expected, rtol=1e-6)


@pytest.mark.parametrize("sizes", [(4, 4), (16, 16), (64, 50)])
def test_auc_is_mann_whitneys(sizes):
    rng = np.random.default_rng(sizes[0])
    real, fake = (rng.integers(0, 6, size).astype(np.float32) for size in sizes)  # with ties
    expected = mannwhitneyu(real + 1, fake).statistic / np.prod(sizes)
    np.testing.assert_allclose(symptoms.auc(jnp.asarray(real + 1), jnp.asarray(fake)), expected)


def test_sharpness_is_the_mean_squared_laplacian():
    images = batch(0)
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, :, :, None]
    laplacian = scipy.ndimage.convolve(images.astype(np.float64), kernel)[:, 1:-1, 1:-1]
    expected = (laplacian**2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(symptoms.sharpness(images), expected, rtol=1e-5)
    np.testing.assert_allclose(symptoms.relative_sharpness(images / 2, images), 0.25, rtol=1e-5)


def test_active_units_are_those_that_vary():
    deviations = np.array([0.0, 0.05, 0.2, 2.0], np.float32)
    mean = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32) * deviations + 4
    assert symptoms.active_units(mean) == 2  # of variances 0, 0.0025, 0.04 and 4


def test_active_units_of_a_batch_are_those_of_a_chi_squared_test():
    for size in (2, 4, 16, 64):
        mean = 0.13 * batch(size, (size, 200)) + 5
        limit = 0.01 * chi2.ppf(0.99, size - 1) / (size - 1)
        variance = np.var(mean.astype(np.float64), axis=0, ddof=1)
        unclear = np.abs(variance / limit - 1) < 0.03  # the quantile is approximate
        counted = symptoms.active_units_of_batch(mean[:, ~unclear])
        assert 0 < counted == (variance > limit)[~unclear].sum() < 200
    assert symptoms.active_units_of_batch(mean[:1]) == 0


def means_of_25_batches(symptom, *pools):
    """The mean of a symptom over 25 batches [25, B, ...], as monitored with five steps per line."""
    return float(jnp.mean(jax.vmap(symptom)(*(jnp.asarray(pool) for pool in pools))))


def few(rng, pool, modes, deviation=0.0):
    """Batches that hold only a few images of a pool, with noise."""
    chosen = pool[0][rng.integers(0, modes, pool.shape[:2])]
    return chosen + deviation * rng.normal(size=pool.shape).astype(np.float32)


@pytest.mark.parametrize("size", [4, 16, 64])
def test_collapse_is_told_from_health_at_any_batch_size(size):
    rng = np.random.default_rng(size)
    real, other = batch(size, (2, 25, size, 8, 8, 1))
    mostly = np.where(rng.random(other.shape[:2])[..., None, None, None] < 0.5, other[0, 0], other)
    cases = {
        "other": other,
        "blur": scipy.ndimage.gaussian_filter(other, (0, 0, 0.7, 0.7, 0)),
        "one": few(rng, other, 1),
        "one with noise": few(rng, other, 1, 0.05),
        "three": few(rng, other, 3),
        "three with noise": few(rng, other, 3, 0.05),
        "one in half of the places": mostly,
    }
    flagged = {
        name
        for name, fake in cases.items()
        if means_of_25_batches(symptoms.diversity, fake, real) < symptoms.MIN_DIVERSITY
        or means_of_25_batches(symptoms.near_duplicates, fake, real) > symptoms.MAX_DUPLICATES
    }
    assert flagged == set(cases) - {"other", "blur"}
    # The data may have duplicates of its own.
    real, other = few(rng, real, 3), few(rng, other, 3)
    assert means_of_25_batches(symptoms.near_duplicates, other, real) < symptoms.MAX_DUPLICATES


@pytest.mark.parametrize("size", [4, 16, 64])
def test_inactive_units_are_told_from_active_ones_at_any_batch_size(size):
    noise = batch(size, (25, size, 64))
    deviations = {
        "all active": np.full(64, 1.0),
        "eight active": np.where(np.arange(64) < 8, 0.7, 0.0),
        "none": np.zeros(64),
        "almost": np.full(64, 0.095),
        "two active, others almost": np.where(np.arange(64) < 2, 1.0, 0.095),
    }
    flagged = {
        name
        for name, deviation in deviations.items()
        if means_of_25_batches(symptoms.active_units_of_batch, noise * deviation + 3)
        < symptoms.MIN_ACTIVE * 64
    }
    assert flagged == set(deviations) - {"all active", "eight active"}


@pytest.mark.parametrize("size", [4, 16, 64])
def test_a_winning_discriminator_is_told_from_a_balanced_one_at_any_batch_size(size):
    noise = batch(size, (2, 25, size))
    for margin, wins in ((0.0, False), (2.5, False), (3.0, False), (6.0, True), (9.0, True)):
        measured = means_of_25_batches(symptoms.auc, noise[0] + margin, noise[1])
        assert (measured > symptoms.MAX_AUC) == wins


def test_constant_images_give_finite_numbers():
    flat = jnp.ones((3, 8, 8, 1))
    for sign in (symptoms.diversity, symptoms.near_duplicates, symptoms.relative_sharpness):
        assert np.isfinite(sign(flat, flat))
