"""What both stages do to an optimizer's updates; pure functions."""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


def slowed(updates: optax.Updates, config: ConfigDict, attempt: jax.Array) -> optax.Updates:
    """Returns the updates of a lower learning rate, where a run was rolled back.

    Every attempt multiplies the rate by ``training.rollback_rate``; a run that is never rolled
    back has the same bits as one that could not be.

    Args:
      updates: of any optimizer.
      config: the run's config.
      attempt: int32 scalar, how often the run was rolled back.
    """
    if config.training.on_nonfinite != "rollback":
        return updates
    factor = jnp.float32(config.training.rollback_rate) ** attempt
    return jax.tree.map(lambda update: factor * update, updates)
