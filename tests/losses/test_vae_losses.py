"""Values and gradients against plain formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.special
import scipy.stats

from vaegan_jax import registry
from vaegan_jax.losses import vae as losses

SHAPE = (2, 3, 4, 3)


TERMS = {
    name: registry.load("reconstruction", name) for name in registry.BUILT_IN["reconstruction"]
}
SCHEDULES = {name: registry.load("kl_schedule", name) for name in registry.BUILT_IN["kl_schedule"]}


def draw(scale=1.0):
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, SHAPE).astype(np.float32)
    logits = (scale * rng.standard_normal(SHAPE)).astype(np.float32)
    return images, logits


def binary(t, p):
    return -t * np.log(p) - (1 - t) * np.log(1 - p)


# By name: the term of one pixel x with y = tanh(a), up to a constant, and its derivative in y.
FORMULAS = {
    "squared_error": (
        lambda x, y: -scipy.stats.norm.logpdf(x, y, 0.5**0.5) - np.log(np.pi) / 2,
        lambda x, y: 2 * (y - x),
    ),
    "cross_entropy": (
        lambda x, y: binary((1 + x) / 2, (1 + y) / 2),
        lambda x, y: (y - x) / (1 - y**2),
    ),
    "laplace": (
        lambda x, y: -scipy.stats.laplace.logpdf(x, y) - np.log(2),
        lambda x, y: np.sign(y - x),
    ),
    "huber": (
        lambda x, y: scipy.special.huber(0.1, y - x),
        lambda x, y: np.clip(y - x, -0.1, 0.1),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_term_and_gradient_match_the_formulas(name):
    images, logits = draw()
    x, y = images.astype(np.float64), np.tanh(logits.astype(np.float64))
    value, slope = FORMULAS[name]
    result = TERMS[name](images, logits)
    assert (result.shape, result.dtype) == ((2,), jnp.float32)
    np.testing.assert_allclose(result, value(x, y).sum((1, 2, 3)), rtol=1e-5)
    gradient = jax.grad(lambda a: TERMS[name](images, a).sum())(logits)
    np.testing.assert_allclose(gradient, slope(x, y) * (1 - y**2), rtol=1e-4, atol=1e-6)


def test_huber_takes_a_delta():
    images, logits = draw()
    residual = images - np.tanh(logits.astype(np.float64))
    expected = scipy.special.huber(0.5, residual).sum((1, 2, 3))
    np.testing.assert_allclose(losses.huber(images, logits, 0.5), expected, rtol=1e-5)


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


def test_kl_gradient_matches_the_formula():
    mean, log_variance = np.random.default_rng(0).standard_normal((2, 3, 5)).astype(np.float32)
    gradients = jax.grad(lambda m, v: losses.kl(m, v).sum(), argnums=(0, 1))(mean, log_variance)
    expected = mean, 0.5 * (np.exp(log_variance.astype(np.float64)) - 1)
    for gradient, formula in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, formula, rtol=1e-5, atol=1e-6)


def gaussian_nats(x, a, variance):
    return -scipy.stats.norm.logpdf(x, np.tanh(a), np.sqrt(variance)).sum((1, 2, 3))


@pytest.mark.parametrize("scale", [0.1, 1.0, 50.0, 1e3])
def test_gaussian_is_the_likelihood_at_the_optimal_variance(scale):
    images, logits = draw(scale)
    x, a = images.astype(np.float64), logits.astype(np.float64)
    best = scipy.optimize.minimize_scalar(
        lambda v: gaussian_nats(x, a, np.exp(v)).mean(), bounds=(-10, 5), method="bounded"
    )
    value = losses.gaussian(images, logits)
    assert (value.shape, value.dtype) == ((2,), jnp.float32)
    np.testing.assert_allclose(value, gaussian_nats(x, a, np.exp(best.x)), rtol=1e-4)


def test_gaussian_gradient_includes_the_optimal_variance():
    images, logits = draw()
    x, a = images.astype(np.float64), logits.astype(np.float64)
    gradient = jax.grad(lambda a: losses.gaussian(images, a).mean())(logits)
    residual = np.tanh(a) - x
    expected = residual * (1 - np.tanh(a) ** 2) / (residual**2).mean() / 2  # two images
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
    # An image's own term does not pull at the others through the variance.
    own = jax.grad(lambda a: losses.gaussian(images, a)[0])(logits)
    np.testing.assert_allclose(own[0], 2 * expected[0], rtol=1e-4, atol=1e-6)
    assert not np.any(own[1])


def test_perfect_reconstruction_has_the_minimum_variance():
    _, logits = draw(0.5)
    images = jnp.tanh(logits)
    value, gradient = jax.value_and_grad(lambda a: losses.gaussian(images, a).sum())(logits)
    expected = images.size / 2 * np.log(2 * np.pi * losses.VARIANCE_FLOOR)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("log_variance", [-12.0, -3.0, 0.0, 2.5])
def test_gaussian_given_matches_scipy(log_variance):
    images, logits = draw()
    x, a = images.astype(np.float64), logits.astype(np.float64)

    given = jnp.float32(log_variance)
    value = losses.gaussian_given(given)(images, logits)
    np.testing.assert_allclose(value, gaussian_nats(x, a, np.exp(log_variance)), rtol=1e-5)
    of_variance, of_logits = jax.grad(
        lambda v, a: losses.gaussian_given(v)(images, a).sum(), argnums=(0, 1)
    )(given, logits)
    residual = np.tanh(a) - x
    expected = x.size / 2 - (residual**2).sum() / 2 * np.exp(-log_variance)
    np.testing.assert_allclose(of_variance, expected, rtol=1e-5)
    expected = residual * (1 - np.tanh(a) ** 2) * np.exp(-log_variance)
    np.testing.assert_allclose(of_logits, expected, rtol=1e-4, atol=1e-6 * np.exp(-log_variance))


@pytest.mark.parametrize("size", [50.0, 1e3, 1e30])
@pytest.mark.parametrize("name", TERMS)
def test_terms_are_exact_at_extreme_logits(name, size):
    images, logits = draw()
    logits = np.where(logits > 0, size, -size).astype(np.float32)
    x, sign = images.astype(np.float64), np.sign(logits).astype(np.float64)
    squares = ((x - sign) ** 2).sum((1, 2, 3))
    variance = squares.mean() / x[0].size
    expected = {
        "squared_error": squares,
        # Of t = (1 + x) / 2, the part on the wrong side pays 2 |a|.
        "cross_entropy": 2.0 * np.float32(size) * ((1 - sign * x) / 2).sum((1, 2, 3)),
        "laplace": np.abs(x - sign).sum((1, 2, 3)),
        "huber": scipy.special.huber(0.1, x - sign).sum((1, 2, 3)),
        "gaussian": squares / (2 * variance) + x[0].size / 2 * np.log(2 * np.pi * variance),
    }[name]
    term = TERMS[name]
    np.testing.assert_allclose(term(images, logits), expected, rtol=1e-5)
    gradient = jax.grad(lambda a: term(images, a).sum())(logits)
    slope = sign - x if name == "cross_entropy" else 0
    np.testing.assert_allclose(gradient, slope + 0 * x, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("floor", [0.0, 0.4, 100.0])
def test_free_bits_clamp_each_dimension(floor):
    kl = np.random.default_rng(0).gamma(0.5, size=(6, 5)).astype(np.float32)
    means = kl.astype(np.float64).mean(0)
    assert floor != 0.4 or 0 < (means > floor).sum() < 5
    value, gradient = jax.value_and_grad(losses.free_bits)(kl, floor)
    assert (value.shape, value.dtype) == ((), jnp.float32)
    np.testing.assert_allclose(value, np.maximum(means, floor).sum(), rtol=1e-6)
    expected = np.broadcast_to(np.where(means > floor, 1 / 6, 0), (6, 5))
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_zero_free_bits_leave_a_negative_kl():
    below = np.full((6, 1), -2e-8, np.float32)  # as rounding may leave a KL of 0
    assert losses.free_bits(below, 0.0) == jnp.mean(below) < 0


def expected_factors(name, steps, warmup, cycles):
    def one(step):
        if name == "linear" and warmup:
            return min(1.0, step / warmup)
        if name == "cyclical":
            length = -(-steps // cycles)
            return min(1.0, 2 * (step % length) / length)
        return 1.0

    return [one(step) for step in range(steps + 5)]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    ("steps", "warmup", "cycles"), [(40, 10, 4), (41, 0, 4), (7, 1, 1), (9, 20, 2)]
)
def test_schedule_matches_the_formula(name, steps, warmup, cycles):
    expected = expected_factors(name, steps, warmup, cycles)
    traced = jax.jit(lambda step: SCHEDULES[name](step, steps, warmup, cycles))
    for step in range(steps + 5):
        factor = traced(jnp.int32(step))
        assert (factor.shape, factor.dtype) == ((), jnp.float32)
        np.testing.assert_allclose(factor, expected[step], rtol=1e-6)
