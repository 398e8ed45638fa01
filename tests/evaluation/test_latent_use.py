import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import networks
from vaegan_jax.evaluation import latent_use
from vaegan_jax.evaluation.latent_use import LatentUse

SHAPE = (16, 32, 3)
SETTLED = {"reconstruction": 0.019, "kl": 0.0}


@pytest.mark.parametrize(
    ("nats", "active", "enough", "suggested"),
    [
        ([2.0] * 10, 10, 10, 16),  # 1.25 * 10 = 12.5
        ([2.0] * 20, 20, 19, 24),
        ([30.0] + [0.1] * 10, 11, 1, 8),
        ([1.0] * 32, 32, 31, 64),
        ([2.0] * 26, 26, 25, 32),
        ([], 0, 0, 32),
    ],
)
def test_suggested_size(nats, active, enough, suggested):
    kl = np.array(nats + [0.0] * (32 - len(nats)))
    facts = latent_use.facts(LatentUse(kl, np.where(kl > 0, 1.0, 0.0)), SETTLED)
    assert (facts["active_units"], facts["enough_units"]) == (active, enough)
    assert facts["suggested_size"] == suggested
    assert facts["kl_nats"] == pytest.approx(sum(nats))
    text = latent_use.advice(facts)
    assert f"{active} of 32" in text
    assert ("model.latent_size" in text) == (active > 0)


@pytest.mark.parametrize(
    "changes", [None, {"reconstruction": 0.021, "kl": 0.0}, {"reconstruction": 0.0, "kl": 0.021}]
)
def test_no_size_is_suggested_before_training_has_settled(changes):
    use = LatentUse(np.full(32, 2.0), np.ones(32))
    assert latent_use.facts(use, SETTLED)["suggested_size"] == 64
    facts = latent_use.facts(use, changes)
    assert facts["suggested_size"] is None
    assert facts["relative_changes"] == changes
    again = json.loads(json.dumps(facts))
    assert "model.latent_size" not in latent_use.advice(again)
    assert ("2.1%" in latent_use.advice(again)) == (changes is not None)


def test_latent_use_matches_recomputation(config):
    images = np.random.default_rng(0).integers(0, 256, (21, *SHAPE)).astype(np.uint8)
    encoder = networks.make_encoder(config.model, SHAPE)
    x = jnp.asarray(images / 127.5 - 1, jnp.float32)
    params = encoder.init(jax.random.key(0), x)["params"]
    use = latent_use.measure(config, params, images)
    mean, log_variance = (np.asarray(a, np.float64) for a in encoder.apply({"params": params}, x))
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance)
    np.testing.assert_allclose(use.kl, kl.mean(axis=0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(use.variance, mean.var(axis=0), rtol=1e-3, atol=1e-6)
