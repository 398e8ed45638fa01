"""The shape of a latent space, and what it decodes to along the way."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

PATH_STEP = 1e-2


def slerp(a: jax.Array, b: jax.Array, t: jax.Array) -> jax.Array:
    """Interpolates between latents along a great circle: [L], [L], [T] -> [T, L].

    White 2016, arXiv 1609.04468, section 2.1. The length stays that of a Gaussian draw all the
    way, where a straight line would pass through latents that are rarely drawn.
    """
    cosine = jnp.vdot(a, b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
    angle = jnp.arccos(jnp.clip(cosine, -1, 1))
    t = t[:, None]
    sine = jnp.sin(angle)
    nearly_parallel = sine < 1e-4
    sine = jnp.where(nearly_parallel, 1, sine)
    weight_a = jnp.where(nearly_parallel, 1 - t, jnp.sin((1 - t) * angle) / sine)
    weight_b = jnp.where(nearly_parallel, t, jnp.sin(t * angle) / sine)
    return weight_a * a[None] + weight_b * b[None]


def path_lengths(
    start: jax.Array,
    end: jax.Array,
    t: jax.Array,
    embed: Callable[[jax.Array], jax.Array],
    step: float = PATH_STEP,
) -> jax.Array:
    """Returns how fast features change on the way from one latent to another.

    The perceptual path length of Karras et al. 2018, arXiv 1812.04948, section 4.1, in the features
    of an embedding: ``|f(slerp(a, b; t)) - f(slerp(a, b; t + s))|^2 / s^2`` at a random t. Its mean
    over pairs says how steadily a latent space changes; a few very large values are its tears.

    Args:
      start: latents float32 [n, L].
      end: latents float32 [n, L].
      t: the places on the way, float32 [n] in [0, 1 - step].
      embed: latents [n, L] -> features [n, d], through the decoder; without rounding to grey
        values, in which a small step would drown.
      step: between the two places, of the way.

    Returns:
      float32 [n].
    """
    places = jnp.stack([t, t + step], axis=1)
    latents = jax.vmap(slerp)(start, end, places)
    difference = embed(latents[:, 0]) - embed(latents[:, 1])
    return jnp.sum(difference**2, axis=-1) / step**2
