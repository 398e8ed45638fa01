"""Values and gradients against plain formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from vaegan_jax.losses import vae as losses

SHAPE = (2, 3, 4, 3)


def draw(scale=1.0):
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, SHAPE).astype(np.float32)
    logits = (scale * rng.standard_normal(SHAPE)).astype(np.float32)
    return images, logits


def test_squared_error_is_the_plain_sum():
    images, logits = draw()
    x, a = images.astype(np.float64), logits.astype(np.float64)
    value = losses.squared_error(images, logits)
    assert value.shape == (2,)
    np.testing.assert_allclose(value, ((x - np.tanh(a)) ** 2).sum((1, 2, 3)), rtol=1e-5)
    gradient = jax.grad(lambda a: losses.squared_error(images, a).sum())(logits)
    expected = 2 * (np.tanh(a) - x) * (1 - np.tanh(a) ** 2)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_squared_error_is_a_gaussian_of_variance_one_half():
    images, logits = draw()
    x, mean = images.astype(np.float64), np.tanh(logits.astype(np.float64))
    nats = -scipy.stats.norm.logpdf(x, mean, np.sqrt(0.5)).sum((1, 2, 3))
    constant = x[0].size * 0.5 * np.log(np.pi)
    np.testing.assert_allclose(losses.squared_error(images, logits) + constant, nats, rtol=1e-5)


def test_cross_entropy_is_that_of_the_image_on_zero_to_one():
    images, logits = draw()
    t = (images.astype(np.float64) + 1) / 2
    p = (np.tanh(logits.astype(np.float64)) + 1) / 2  # the mean that the picture shows
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum((1, 2, 3))
    np.testing.assert_allclose(losses.cross_entropy(images, logits), expected, rtol=1e-5)
    gradient = jax.grad(lambda a: losses.cross_entropy(images, a).sum())(logits)
    np.testing.assert_allclose(gradient, 2 * (p - t), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_saturated_logits_stay_finite(size):
    images = np.where(np.arange(np.prod(SHAPE)) % 2, 1, -1).reshape(SHAPE).astype(np.float32)
    for sign in (1, -1):
        logits = (sign * size * images).astype(np.float32)
        for term in losses.RECONSTRUCTIONS.values():
            value, gradient = jax.value_and_grad(lambda a, term=term: term(images, a).sum())(logits)
            assert np.isfinite(value)
            assert np.isfinite(gradient).all()
    right = losses.cross_entropy(images, size * images)
    wrong = losses.cross_entropy(images, -size * images)
    np.testing.assert_allclose(right, 0, atol=1e-6)
    np.testing.assert_allclose(wrong, images[0].size * 2 * size, rtol=1e-5)


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (1.5, 0.3), (-2.0, 4.0), (0.1, 1e-4)])
def test_kl_is_the_integral(mean, variance):
    p = scipy.stats.norm(mean, np.sqrt(variance))

    def integrand(z):
        return p.pdf(z) * (p.logpdf(z) - scipy.stats.norm.logpdf(z))

    low, high = mean - 12 * np.sqrt(variance), mean + 12 * np.sqrt(variance)
    expected, _ = scipy.integrate.quad(integrand, low, high, epsabs=1e-10)
    value = losses.kl(jnp.full((1, 1), mean), jnp.log(jnp.full((1, 1), variance)))
    assert value.shape == (1, 1)
    np.testing.assert_allclose(value[0, 0], expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_kl_is_the_formula():
    rng = np.random.default_rng(0)
    mean, log_variance = rng.standard_normal((2, 3, 5)).astype(np.float32)
    gradients = jax.grad(lambda m, v: losses.kl(m, v).sum(), argnums=(0, 1))(mean, log_variance)
    np.testing.assert_allclose(gradients[0], mean, rtol=1e-5)
    expected = 0.5 * (np.exp(log_variance.astype(np.float64)) - 1)
    np.testing.assert_allclose(gradients[1], expected, rtol=1e-5, atol=1e-6)
