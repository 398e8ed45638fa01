"""Bounds against a linear VAE, whose evidence is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tests.evaluation.test_distances import EXPECTED, HERE
from vaegan_jax.evaluation import vae_bounds
from vaegan_jax.losses import symptoms

LINEAR = EXPECTED["closed_form"]["linear_vae"]


@pytest.fixture(scope="module")
def arrays():
    with np.load(HERE / "parity.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def linear(arrays):
    """x = W z + mu + sigma noise, with a posterior that is not the true one."""
    return {
        name.partition("/")[2]: jnp.asarray(value, jnp.float32)
        for name, value in arrays.items()
        if name.startswith("linear_vae/")
    }


def bounds(linear, mean, covariance_root, draws, key=0):
    """Log likelihoods [K, B] and draws [K, B, L] from N(mean, root root^T)."""
    eps = jax.random.normal(jax.random.key(key), (draws, *mean.shape))
    z = mean[None] + jnp.einsum("kbl,bml->kbm", eps, covariance_root)
    x = jnp.einsum("kbl,dl->kbd", z, linear["W"]) + linear["mu"][None, None]
    errors = jnp.sum((linear["X"][None] - x) ** 2, axis=-1)
    return vae_bounds.gaussian_log_likelihood(errors, x.shape[-1], LINEAR["sigma"] ** 2), z


def diagonal(deviations):
    return jax.vmap(jnp.diag)(deviations)


def test_the_elbo_is_the_closed_form(linear):
    draws = 20_000
    mean, deviation = linear["q_mean"], linear["q_std"]
    log_likelihood, _ = bounds(linear, mean, diagonal(deviation), draws)
    ours = vae_bounds.elbo(log_likelihood, mean, 2 * jnp.log(deviation))
    errors = jnp.std(log_likelihood, axis=0) / np.sqrt(draws)
    assert (jnp.abs(ours - linear["elbo"]) < 4.5 * errors).all()
    np.testing.assert_allclose(jnp.mean(ours), LINEAR["mean_elbo"], atol=0.1)


def test_iwae_rises_from_the_elbo_to_the_evidence(linear):
    mean, deviation = linear["q_mean"], linear["q_std"]
    log_variance = 2 * jnp.log(deviation)
    last = LINEAR["mean_elbo"] - 0.1
    for k, repeats in ((1, 4000), (5, 800), (50, 80), (2000, 4)):
        log_likelihood, z = bounds(linear, mean, diagonal(deviation), k * repeats, key=k)
        bound = jax.vmap(lambda one, z: vae_bounds.iwae(one, z, mean, log_variance))
        values = bound(log_likelihood.reshape(repeats, k, -1), z.reshape(repeats, k, *z.shape[1:]))
        value = float(jnp.mean(values))
        assert last < value < LINEAR["mean_log_px"] + 0.1
        last = value
    np.testing.assert_allclose(last, LINEAR["mean_log_px"], atol=0.1)


def test_with_the_true_posterior_one_draw_gives_the_evidence(linear):
    # The true posterior is correlated; turned into its own axes it is a diagonal one.
    values, vectors = np.linalg.eigh(np.asarray(linear["post_cov"], np.float64))
    turned = linear | {"W": jnp.asarray(linear["W"] @ vectors, jnp.float32)}
    mean = jnp.asarray(linear["post_mean"] @ vectors, jnp.float32)
    deviation = jnp.broadcast_to(jnp.sqrt(jnp.asarray(values, jnp.float32)), mean.shape)
    for key in range(3):
        log_likelihood, z = bounds(turned, mean, diagonal(deviation), 1, key)
        ours = vae_bounds.iwae(log_likelihood, z, mean, 2 * jnp.log(deviation))
        np.testing.assert_allclose(ours, linear["log_px"], rtol=1e-4)


def test_the_log_densities_are_scipys():
    rng = np.random.default_rng(0)
    x, mean, log_variance = (rng.normal(size=(3, 5)).astype(np.float32) for _ in range(3))
    expected = scipy.stats.norm.logpdf(x, mean, np.exp(log_variance / 2)).sum(axis=-1)
    np.testing.assert_allclose(vae_bounds.log_normal(x, mean, log_variance), expected, rtol=1e-5)
    images, means = (rng.normal(size=(3, 16)).astype(np.float32) for _ in range(2))
    expected = scipy.stats.norm.logpdf(images, means, np.sqrt(0.3)).sum(axis=1)
    ours = vae_bounds.gaussian_log_likelihood(((images - means) ** 2).sum(axis=1), 16, 0.3)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_an_even_density_over_the_range_costs_eight_bits():
    # 256 bins of 2/255 make the range 512/255 wide; an even density there knows nothing.
    bound = -np.log(512 / 255) * 12
    np.testing.assert_allclose(vae_bounds.bits_per_dim(bound, 12), 8, rtol=1e-6)


def test_dequantised_images_fill_their_bins_and_keep_their_grey_values():
    grey = jnp.broadcast_to(jnp.arange(256, dtype=jnp.float32)[:, None], (256, 400))
    spread = np.asarray(vae_bounds.dequantise(jax.random.key(0), grey / 127.5 - 1))
    back = (spread + 1) * 127.5
    offsets = back - np.asarray(grey)
    assert np.abs(offsets).max() < 0.5 + 1e-4
    assert scipy.stats.kstest(offsets.ravel() + 0.5, "uniform").pvalue > 1e-3


def test_active_units_are_counted_as_in_the_reference(arrays):
    expected = EXPECTED["closed_form"]["active_units"]
    assert symptoms.active_units(arrays["active_units/q_mean"]) == expected["count"]
