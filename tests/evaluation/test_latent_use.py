import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import networks
from vaegan_jax.evaluation import latent_use
from vaegan_jax.evaluation.latent_use import LatentUse

SHAPE = (16, 32, 3)


def use(nats, size=32, variance=1.0):
    """So many dimensions that carry as many nats each, among others that carry none."""
    kl = np.zeros(size)
    kl[: len(nats)] = nats
    return LatentUse(kl, np.where(kl > 0, variance, 0.0))


@pytest.mark.parametrize(
    ("nats", "active", "enough", "suggested"),
    [
        ([2.0] * 10, 10, 10, 16),  # a quarter more is 12.5
        ([2.0] * 20, 20, 19, 24),
        ([30.0] + [0.1] * 10, 11, 1, 8),
        ([1.0] * 32, 32, 31, 64),
        ([2.0] * 26, 26, 25, 32),
    ],
)
def test_the_suggested_size(nats, active, enough, suggested):
    found = latent_use.facts(use(nats))
    assert (found["active_units"], found["enough_units"]) == (active, enough)
    assert found["suggested_size"] == suggested
    assert found["kl_nats"] == pytest.approx(sum(nats))
    text = latent_use.advice(found)
    assert f"{active} of 32 latent dimensions are active" in text
    assert f"model.latent_size={suggested}" in text


def test_a_collapsed_vae_is_given_no_size():
    found = latent_use.facts(LatentUse(np.full(8, 1e-4), np.full(8, 1e-5)))
    assert (found["active_units"], found["suggested_size"]) == (0, 8)
    assert "The size is not the trouble" in latent_use.advice(found)
    assert latent_use.facts(use([], 8))["enough_units"] == 0


def test_what_each_dimension_says_is_that_of_the_encoder(config):
    images = np.random.default_rng(0).integers(0, 256, (21, *SHAPE)).astype(np.uint8)
    encoder = networks.make_encoder(config.model, SHAPE)
    x = jnp.asarray(images / 127.5 - 1, jnp.float32)
    params = encoder.init(jax.random.key(0), x)["params"]
    found = latent_use.measure(config, params, images)
    mean, log_variance = (np.asarray(a, np.float64) for a in encoder.apply({"params": params}, x))
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance)
    np.testing.assert_allclose(found.kl, kl.mean(axis=0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.variance, mean.var(axis=0), rtol=1e-3, atol=1e-6)
