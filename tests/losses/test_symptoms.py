import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from vaegan_jax.losses import symptoms


def batch(seed, shape=(6, 8, 8, 3)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_distances_are_scipys():
    x = batch(0) + 3
    ours = np.asarray(symptoms.distances(x))
    expected = squareform(pdist(x.reshape(6, -1).astype(np.float64)))
    np.testing.assert_allclose(ours[~np.eye(6, dtype=bool)], expected[~np.eye(6, dtype=bool)], 1e-4)
    assert np.isinf(np.diagonal(ours)).all()


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_diversity_is_the_ratio_of_mean_distances(factor):
    fake, real = factor * batch(0), batch(1, (9, 8, 8, 3))
    expected = pdist(fake.reshape(6, -1)).mean() / pdist(real.reshape(9, -1)).mean()
    np.testing.assert_allclose(symptoms.diversity(fake, real), expected, rtol=1e-4)
    assert symptoms.diversity(np.repeat(fake[:1], 6, axis=0), real) < 1e-3


def test_near_duplicates_are_those_within_a_quarter_of_the_usual():
    real, fake = batch(0), batch(1)
    assert symptoms.near_duplicates(fake, real) == 0
    fake[1] = fake[0] + 1e-3
    fake[5] = fake[0]
    np.testing.assert_allclose(symptoms.near_duplicates(fake, real), 3 / 6)
    np.testing.assert_allclose(symptoms.near_duplicates(fake / 50, real), 3 / 6)
    nearest = squareform(pdist(real.reshape(6, -1))) + np.diag([np.inf] * 6)
    usual = nearest.min(axis=0).mean() / pdist(real.reshape(6, -1)).mean()
    direction = batch(2, (8, 8, 3))
    direction /= np.linalg.norm(direction)
    for factor, share in ((0.23, 2 / 6), (0.27, 0)):
        fake = batch(1)
        spread = pdist(fake.reshape(6, -1)).mean()
        for _ in range(20):  # moving one image changes the spread a little
            fake[1] = fake[0] + factor * usual * spread * direction
            spread = pdist(fake.reshape(6, -1)).mean()
        np.testing.assert_allclose(symptoms.near_duplicates(fake, real), share)


def test_sharpness_is_the_mean_squared_laplacian():
    images = batch(0)
    laplacian = np.zeros((6, 6, 6, 3))
    for i in range(6):
        for j in range(6):
            y, x = i + 1, j + 1
            beside = images[:, y, x - 1] + images[:, y, x + 1]
            above = images[:, y - 1, x] + images[:, y + 1, x]
            laplacian[:, i, j] = beside + above - 4 * images[:, y, x]
    expected = (laplacian**2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(symptoms.sharpness(images), expected, rtol=1e-5)
    np.testing.assert_allclose(symptoms.relative_sharpness(images / 2, images), 0.25, rtol=1e-5)


def test_active_units_are_those_that_vary():
    deviations = np.array([0.0, 0.05, 0.2, 2.0], np.float32)
    mean = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32) * deviations + 4
    assert symptoms.active_units(mean) == 2  # of variances 0, 0.0025, 0.04 and 4


def test_constant_images_give_finite_numbers_and_gradients():
    flat = jnp.ones((3, 8, 8, 1))
    for sign in (symptoms.diversity, symptoms.near_duplicates, symptoms.relative_sharpness):
        assert np.isfinite(sign(flat, flat))
    assert np.isfinite(jax.grad(lambda x: symptoms.sharpness(x).sum())(flat)).all()
