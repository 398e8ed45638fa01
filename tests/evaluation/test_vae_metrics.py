"""Bounds against a linear VAE with evidence in closed form, and against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests.evaluation.test_distances import EXPECTED, HERE
from vaegan_jax import networks, vae
from vaegan_jax.evaluation import vae_metrics
from vaegan_jax.randomness import Purpose

LINEAR = EXPECTED["closed_form"]["linear_vae"]


@pytest.fixture(scope="module")
def linear():
    """x = W z + mu + sigma noise, with an approximate posterior."""
    with np.load(HERE / "parity.npz") as file:
        return {
            name.partition("/")[2]: jnp.asarray(file[name], jnp.float32)
            for name in file.files
            if name.startswith("linear_vae/")
        }


def bounds(linear, mean, covariance_root, draws, key=0):
    """Log likelihoods [K, B] and draws [K, B, L] from N(mean, root root^T)."""
    eps = jax.random.normal(jax.random.key(key), (draws, *mean.shape))
    z = mean[None] + jnp.einsum("kbl,bml->kbm", eps, covariance_root)
    x = jnp.einsum("kbl,dl->kbd", z, linear["W"]) + linear["mu"][None, None]
    errors = jnp.sum((linear["X"][None] - x) ** 2, axis=-1)
    return vae_metrics.gaussian_log_likelihood(errors, x.shape[-1], LINEAR["sigma"] ** 2), z


def diagonal(deviations):
    return jax.vmap(jnp.diag)(deviations)


def test_elbo_equals_the_closed_form(linear):
    draws = 10_000
    mean, deviation = linear["q_mean"], linear["q_std"]
    log_likelihood, _ = bounds(linear, mean, diagonal(deviation), draws)
    ours = vae_metrics.elbo(log_likelihood, mean, 2 * jnp.log(deviation))
    errors = jnp.std(log_likelihood, axis=0) / np.sqrt(draws)
    assert (jnp.abs(ours - linear["elbo"]) < 4.5 * errors).all()
    np.testing.assert_allclose(jnp.mean(ours), LINEAR["mean_elbo"], atol=0.1)


def test_iwae_increases_from_the_elbo_to_the_evidence(linear):
    mean, deviation = linear["q_mean"], linear["q_std"]
    log_variance = 2 * jnp.log(deviation)
    last = LINEAR["mean_elbo"] - 0.1
    for k, repeats in ((1, 4000), (50, 80), (2000, 4)):
        log_likelihood, z = bounds(linear, mean, diagonal(deviation), k * repeats, key=k)
        bound = jax.vmap(lambda one, z: vae_metrics.iwae(one, z, mean, log_variance))
        values = bound(log_likelihood.reshape(repeats, k, -1), z.reshape(repeats, k, *z.shape[1:]))
        value = float(jnp.mean(values))
        assert last < value < LINEAR["mean_log_px"] + 0.1
        last = value
    np.testing.assert_allclose(last, LINEAR["mean_log_px"], atol=0.1)


def test_iwae_with_the_true_posterior_equals_the_evidence(linear):
    # In the basis of its eigenvectors the true posterior is diagonal.
    values, vectors = np.linalg.eigh(np.asarray(linear["post_cov"], np.float64))
    rotated = linear | {"W": jnp.asarray(linear["W"] @ vectors, jnp.float32)}
    mean = jnp.asarray(linear["post_mean"] @ vectors, jnp.float32)
    deviation = jnp.broadcast_to(jnp.sqrt(jnp.asarray(values, jnp.float32)), mean.shape)
    log_likelihood, z = bounds(rotated, mean, diagonal(deviation), 1)
    evidence = vae_metrics.iwae(log_likelihood, z, mean, 2 * jnp.log(deviation))
    np.testing.assert_allclose(evidence, linear["log_px"], rtol=1e-4)


def test_log_likelihood_equals_scipys():
    images, means = np.random.default_rng(0).normal(size=(2, 3, 16)).astype(np.float32)
    expected = scipy.stats.norm.logpdf(images, means, np.sqrt(0.3)).sum(axis=1)
    errors = ((images - means) ** 2).sum(axis=1)
    ours = vae_metrics.gaussian_log_likelihood(errors, 16, 0.3)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_a_uniform_density_has_eight_bits_per_dim():
    # 256 bins of width 2/255 cover a range of 512/255.
    bound = -np.log(512 / 255) * 12
    np.testing.assert_allclose(vae_metrics.bits_per_dim(bound, 12), 8, rtol=1e-6)


def test_dequantised_images_are_uniform_within_their_bins():
    grey = jnp.broadcast_to(jnp.arange(256, dtype=jnp.float32)[:, None], (256, 400))
    dequantised = np.asarray(vae_metrics.dequantise(jax.random.key(0), grey / 127.5 - 1))
    back = (dequantised + 1) * 127.5
    offsets = back - np.asarray(grey)
    assert np.abs(offsets).max() < 0.5 + 1e-4
    assert scipy.stats.kstest(offsets.ravel() + 0.5, "uniform").pvalue > 1e-3


SHAPE = (16, 32, 3)
DRAWS = 6
INDICES = np.array([3, 0, 41, 7], np.int32)
KEY = jax.random.key(11, impl="threefry2x32")


@pytest.fixture
def params(config):
    """Random parameters without zeros, so that posteriors depend on the image."""
    leaves, tree = jax.tree.flatten(jax.jit(lambda: vae.init(config, SHAPE).params)())
    rng = np.random.default_rng(0)
    moved = [leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(tree, moved)


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (4, *SHAPE), np.uint8)


def plain_bounds(config, params, image, index, variance):
    """The bounds of one image in float64, with the draws of the documented keys."""

    def key(purpose):
        return jax.random.fold_in(jax.random.fold_in(KEY, int(purpose)), index)

    noise = jax.random.uniform(key(Purpose.DEQUANTISATION), SHAPE, minval=-0.5, maxval=0.5)
    x = (image + np.asarray(noise, np.float64)) / 127.5 - 1
    encoder = networks.make_encoder(config.model, SHAPE)
    scaled = np.asarray(image[None] / 127.5 - 1, np.float32)
    posterior = encoder.apply({"params": params["encoder"]}, scaled)
    mean, log_variance = (np.asarray(row[0], np.float64) for row in posterior)
    deviation = np.exp(log_variance / 2)
    eps = jax.random.normal(key(Purpose.POSTERIOR), (DRAWS, len(mean)))
    z = mean + deviation * np.asarray(eps, np.float64)
    decoder = networks.make_decoder(config.model, SHAPE)
    logits = decoder.apply({"params": params["decoder"]}, z.astype(np.float32))
    decoded = np.tanh(np.asarray(logits, np.float64))

    kl = (np.square(mean) + deviation**2 - 1 - log_variance).sum() / 2
    prior = scipy.stats.norm.logpdf(z).sum(axis=-1)
    density = scipy.stats.norm.logpdf(z, mean, deviation).sum(axis=-1)
    likelihood = scipy.stats.norm.logpdf(x, decoded, np.sqrt(variance)).sum(axis=(1, 2, 3))
    elbo = likelihood.mean() - kl
    iwae = scipy.special.logsumexp(likelihood + prior - density) - np.log(DRAWS)
    # The probability of a grey value is its density times the bin width 2/255.
    elbo, iwae = (-(bound / x.size + np.log(2 / 255)) / np.log(2) for bound in (elbo, iwae))
    error = np.square(x - decoded).sum(axis=(1, 2, 3)).mean()
    return {"squared_error": error, "kl": kl, "elbo": elbo, "iwae": iwae}


@pytest.mark.parametrize("variance", [0.5, 0.02, 1.7])
def test_bounds_of_images_equal_plain_numpy(config, params, images, variance):
    rows = vae_metrics.make_bounds(config, SHAPE, DRAWS)(params, images, INDICES, KEY, variance)
    for i, index in enumerate(INDICES):
        expected = plain_bounds(config, params, images[i], index, variance)
        for name, value in expected.items():
            np.testing.assert_allclose(rows[name][i], value, rtol=2e-5, err_msg=name)
        # The difference of the bounds is smaller than the tolerance above.
        expected_gap = (expected["elbo"] - expected["iwae"]) * np.prod(SHAPE)
        gap = (np.asarray(rows["elbo"], np.float64) - rows["iwae"])[i] * np.prod(SHAPE)
        np.testing.assert_allclose(gap, expected_gap, rtol=1e-4, atol=0.02)
    assert np.std(rows["kl"]) > 0.01


def test_bounds_are_independent_of_batch(config, params, images):
    bounds = vae_metrics.make_bounds(config, SHAPE, DRAWS)
    rows = bounds(params, images, INDICES, KEY, 0.5)
    others = 255 - images
    batch = np.stack([others[0], others[1], images[0], images[0]])
    moved = bounds(params, batch, np.array([9, 8, INDICES[0], 6], np.int32), KEY, 0.5)
    for name in rows:
        np.testing.assert_allclose(moved[name][2], rows[name][0], rtol=1e-6, err_msg=name)
    assert moved["squared_error"][3] != moved["squared_error"][2]
