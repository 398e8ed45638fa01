"""Penalties on the discriminator: ``penalty(discriminate, real, fake, key)`` -> float32 [B].

`discriminate` maps images [B, H, W, C] to logits [B], each from its own image alone; `real` and
`fake` are such images; `key` is for penalties that draw, and may go unused.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Discriminate = Callable[[jax.Array], jax.Array]


def r1(discriminate: Discriminate, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
    """The squared norm of the gradient of the logit at each real image: float32 [B].

    Mescheder et al. 2018, arXiv 1801.04406, equation 9, which weighs its mean by gamma / 2.
    """
    del fake, key
    # The logits do not depend on one another's images, so the gradient of their sum holds each
    # image's own gradient.
    gradient = jax.grad(lambda images: jnp.sum(discriminate(images)))(real)
    return jnp.sum(jnp.square(gradient), axis=(1, 2, 3))
