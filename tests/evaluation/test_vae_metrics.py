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


def test_iwae_with_the_true_posterior_equals_the_evidence(linear):
    # In the basis of its eigenvectors the true posterior is diagonal.
    values, vectors = np.linalg.eigh(np.asarray(linear["post_cov"], np.float64))
    mean = jnp.asarray(linear["post_mean"] @ vectors, jnp.float32)
    deviation = jnp.broadcast_to(jnp.sqrt(jnp.asarray(values, jnp.float32)), mean.shape)
    z = mean[None] + deviation[None] * jax.random.normal(jax.random.key(0), (3, *mean.shape))
    x = z @ jnp.asarray(linear["W"] @ vectors, jnp.float32).T + linear["mu"][None, None]
    log_likelihood = scipy.stats.norm.logpdf(linear["X"], x, LINEAR["sigma"]).sum(axis=-1)
    evidence = vae_metrics.iwae(log_likelihood, z, mean, 2 * jnp.log(deviation))
    np.testing.assert_allclose(evidence, linear["log_px"], rtol=1e-4)


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
