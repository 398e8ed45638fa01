"""GAN objectives: pairs of pure functions of the discriminator's logits.

With D = sigmoid(logits), log D = -softplus(-logits) and log(1 - D) = -softplus(logits); written
so, nothing overflows and no epsilon is needed.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Objective(NamedTuple):
    """What each network minimises.

    Attributes:
      discriminator: (real logits [B], fake logits [B]) -> scalar, in nats.
      generator: fake logits [B] -> scalar, in nats.
    """

    discriminator: Callable[[jax.Array, jax.Array], jax.Array]
    generator: Callable[[jax.Array], jax.Array]


def discriminator_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """-E log D(x) - E log(1 - D(G(z))), from logits [B], [B]: a scalar in nats.

    Goodfellow et al. 2014, arXiv 1406.2661, equation 1, negated. It is 2 log 2 for a
    discriminator that cannot tell.
    """
    return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))


def minimax_loss(fake: jax.Array) -> jax.Array:
    """E log(1 - D(G(z))), from logits [B]: a scalar in nats.

    Goodfellow et al. 2014, arXiv 1406.2661, equation 1. Its gradient vanishes where the
    discriminator is sure of itself.
    """
    return -jnp.mean(jax.nn.softplus(fake))


def non_saturating_loss(fake: jax.Array) -> jax.Array:
    """-E log D(G(z)), from logits [B]: a scalar in nats.

    Goodfellow et al. 2014, arXiv 1406.2661, section 3: the same fixed point, without the
    vanishing gradient.
    """
    return jnp.mean(jax.nn.softplus(-fake))


OBJECTIVES: dict[str, Objective] = {
    "minimax": Objective(discriminator_loss, minimax_loss),
    "non_saturating": Objective(discriminator_loss, non_saturating_loss),
}
