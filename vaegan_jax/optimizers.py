"""What both stages do to an optimizer's updates; pure functions."""

import jax
import optax


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
