import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import assert_trees_equal
from vaegan_jax import networks, optimizers


@pytest.mark.parametrize("attempt", [0, 1, 3])
def test_every_rollback_slows_the_updates(config, attempt):
    updates = {"a": jnp.asarray([1.0, -3.3]), "b": {"c": jnp.asarray(0.1)}}
    config.training.rollback_rate = 0.3
    assert_trees_equal(optimizers.slowed(updates, config, jnp.int32(attempt)), updates)
    config.training.on_nonfinite = "rollback"
    slowed = optimizers.slowed(updates, config, jnp.int32(attempt))
    np.testing.assert_allclose(slowed["a"], np.array([1.0, -3.3]) * 0.3**attempt, rtol=1e-6)
    np.testing.assert_allclose(slowed["b"]["c"], 0.1 * 0.3**attempt, rtol=1e-6)
    if attempt == 0:
        assert_trees_equal(slowed, updates)


def test_earlier_levels_move_less():
    levels = networks.decoder_levels()
    updates = {name: {"kernel": jnp.ones(2)} for name in levels}
    transform = optimizers.by_level(levels, 0.5)
    moved, _ = transform.update(updates, transform.init(updates))
    factors = {name: float(part["kernel"][0]) for name, part in moved.items()}
    assert factors == {
        "dense": 1 / 16, "bias_0": 1 / 16, "up_0": 1 / 8, "bias_1": 1 / 8, "up_1": 1 / 4,
        "bias_2": 1 / 4, "up_2": 1 / 2, "bias_3": 1 / 2, "up_3": 1, "bias_out": 1,
    }  # fmt: skip
