import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import networks
from vaegan_jax.evaluation import latent_use

SHAPE = (16, 32, 3)


@pytest.mark.parametrize(
    ("nats", "enough"),
    [([2.0] * 10, 10), ([2.0] * 20, 19), ([30.0] + [0.1] * 10, 1), ([1.0] * 32, 31), ([], 0)],
)
def test_units_that_carry_95_percent(nats, enough):
    kl = np.array(nats + [0.0] * (32 - len(nats)))
    facts = latent_use.facts(kl, np.where(kl > 0, 1.0, 0.0))
    assert (facts["active_units"], facts["enough_units"]) == (len(nats), enough)
    assert facts["kl_nats"] == pytest.approx(sum(nats))
    assert f"{len(nats)} of 32" in latent_use.summary(facts)


def test_latent_use_matches_recomputation(config):
    images = np.random.default_rng(0).integers(0, 256, (21, *SHAPE)).astype(np.uint8)
    encoder = networks.make_encoder(config.model, SHAPE)
    x = jnp.asarray(images / 127.5 - 1, jnp.float32)
    params = encoder.init(jax.random.key(0), x)["params"]
    use = latent_use.measure(config, params, images)
    mean, log_variance = (np.asarray(a, np.float64) for a in encoder.apply({"params": params}, x))
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance)
    np.testing.assert_allclose(use["kl_nats_by_unit"], kl.mean(axis=0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(use["variance_by_unit"], mean.var(axis=0), rtol=1e-3, atol=1e-6)
