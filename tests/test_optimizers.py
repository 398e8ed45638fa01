import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import assert_trees_equal
from vaegan_jax import optimizers


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
