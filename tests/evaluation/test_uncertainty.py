import jax
import numpy as np

from tests.evaluation.test_distances import frechet
from vaegan_jax.evaluation import uncertainty


def test_the_error_of_a_mean_is_the_known_one():
    rng = np.random.default_rng(0)
    errors = [
        uncertainty.jackknife_error(jax.random.key(k), rng.normal(0, 2, 400), np.mean, 20)
        for k in range(60)
    ]
    # The expected error is 2 / sqrt(400); of 60 estimates with 19 degrees of freedom each.
    np.testing.assert_allclose(np.mean(np.square(errors)), 0.1**2, rtol=4 * np.sqrt(2 / 19 / 60))


def test_the_error_of_a_frechet_distance_is_that_of_fresh_draws():
    rng = np.random.default_rng(1)

    def draw(n):
        return rng.normal(0.5, 1, (n, 4)).astype(np.float32)

    real = rng.normal(0, 1, (500, 4)).astype(np.float32)

    def statistic(fake):
        return float(frechet(real, fake))

    spread = np.std([statistic(draw(500)) for _ in range(60)])
    errors = [
        uncertainty.jackknife_error(jax.random.key(k), draw(500), statistic) for k in range(10)
    ]
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(errors))), spread, rtol=0.4)


def test_the_same_key_gives_the_same_number():
    rows = np.random.default_rng(2).normal(size=103)
    first = uncertainty.jackknife_error(jax.random.key(0), rows, np.median)
    assert first == uncertainty.jackknife_error(jax.random.key(0), rows, np.median)
    assert first != uncertainty.jackknife_error(jax.random.key(1), rows, np.median)
