"""The shape of a latent space, seen through what it decodes to."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vaegan_jax.report.pictures import slerp


def path_lengths(
    key: jax.Array,
    start: jax.Array,
    end: jax.Array,
    embed: Callable[[jax.Array], jax.Array],
    step: float = 1e-2,
) -> jax.Array:
    """Returns how fast features change on the way from one latent to another.

    The perceptual path length of Karras et al. 2018, arXiv 1812.04948, section 4.1, in the features
    of an embedding: ``|f(slerp(a, b; t)) - f(slerp(a, b; t + s))|^2 / s^2`` at a random t. Its mean
    over pairs says how steadily a latent space changes; a few very large values are its tears.

    Args:
      key: of the places on the way.
      start: latents float32 [n, L].
      end: latents float32 [n, L].
      embed: latents [n, L] -> features [n, d], through the decoder; without rounding to grey
        values, in which a small step would drown.
      step: between the two places, of the way.

    Returns:
      float32 [n].
    """
    t = jax.random.uniform(key, (len(start),), maxval=1 - step)
    places = jnp.stack([t, t + step], axis=1)
    latents = jax.vmap(slerp)(start, end, places)
    difference = embed(latents[:, 0]) - embed(latents[:, 1])
    return jnp.sum(difference**2, axis=-1) / step**2
