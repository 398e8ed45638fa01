import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import geometric_slerp

from vaegan_jax import networks
from vaegan_jax.evaluation import latents

SHAPE = (16, 32, 3)


def test_slerp_equals_scipys():
    a, b = np.random.default_rng(0).standard_normal((2, 6))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    t = np.linspace(0, 1, 9)
    actual = latents.slerp(a.astype(np.float32), b.astype(np.float32), t.astype(np.float32))
    np.testing.assert_allclose(actual, geometric_slerp(a, b, t), atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_slerp_between_parallel_latents_is_linear(scale):
    a = np.random.default_rng(0).standard_normal(6).astype(np.float32)
    path = latents.slerp(a, scale * a, np.array([0, 0.5, 1], np.float32))
    np.testing.assert_allclose(path, [a, (1 + scale) / 2 * a, scale * a], rtol=1e-3)


@pytest.mark.parametrize(
    ("nats", "enough"),
    [([2.0] * 10, 10), ([2.0] * 20, 19), ([30.0] + [0.1] * 10, 1), ([1.0] * 32, 31), ([], 0)],
)
def test_units_that_carry_95_percent(nats, enough):
    kl = np.array(nats + [0.0] * (32 - len(nats)))
    facts = latents.use_facts(kl, np.where(kl > 0, 1.0, 0.0))
    assert (facts["active_units"], facts["enough_units"]) == (len(nats), enough)
    assert facts["kl_nats"] == pytest.approx(sum(nats))
    assert f"{len(nats)} of 32" in latents.use_summary(facts)


def test_latent_use_matches_recomputation(config):
    images = np.random.default_rng(0).integers(0, 256, (21, *SHAPE)).astype(np.uint8)
    encoder = networks.make_encoder(config.model, SHAPE)
    x = jnp.asarray(images / 127.5 - 1, jnp.float32)
    params = encoder.init(jax.random.key(0), x)["params"]
    use = latents.measure_use(config, params, images)
    mean, log_variance = (np.asarray(a, np.float64) for a in encoder.apply({"params": params}, x))
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance)
    np.testing.assert_allclose(use["kl_nats_by_unit"], kl.mean(axis=0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(use["variance_by_unit"], mean.var(axis=0), rtol=1e-3, atol=1e-6)
