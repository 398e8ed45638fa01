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


def by_level(levels: dict[str, int], decay: float) -> optax.GradientTransformation:
    """Returns a transformation that makes updates of earlier levels smaller.

    An update is multiplied by decay^(last level - its level), as in the discriminative fine-tuning
    of Howard and Ruder 2018, arXiv 1801.06146, section 3.2.

    Args:
      levels: the level of each entry of the tree of parameters.
      decay: from one level to the one before it, above 0 and at most 1.
    """
    last = max(levels.values())

    def scale(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        del params
        return {
            name: jax.tree.map(lambda u, name=name: decay ** (last - levels[name]) * u, part)
            for name, part in updates.items()
        }

    return optax.stateless(scale)
