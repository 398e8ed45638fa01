"""Image resizing compatible with other libraries.

All functions map uint8 or float [B, H, W, C] to float32 [B, size, size, 3] with values in [0, 255];
a single channel is repeated.
"""

import jax
import jax.numpy as jnp


def cubic(images: jax.Array, size: int) -> jax.Array:
    """Resizes like clean-fid: Pillow's bicubic (a = -0.5) on floats, antialiased and clipped.

    Parmar et al. 2022, arXiv 2104.11222, section 4.
    """
    return jnp.clip(_resize(images, size, "cubic", antialias=True), 0, 255)


def linear(images: jax.Array, size: int) -> jax.Array:
    """Resizes like pytorch-fid: bilinear, with half-pixel centres and without antialiasing."""
    return _resize(images, size, "linear", antialias=False)


def tf1_linear(images: jax.Array, size: int) -> jax.Array:
    """Resizes like TensorFlow 1: bilinear at ``source = target * in / out``, edges repeated."""

    def along(x: jax.Array, axis: int) -> jax.Array:
        length = x.shape[axis]
        source = jnp.arange(size, dtype=jnp.float32) * (length / size)
        low = jnp.minimum(jnp.floor(source).astype(jnp.int32), length - 1)
        high = jnp.minimum(low + 1, length - 1)
        weight = jnp.expand_dims(source - low, [a for a in range(x.ndim) if a != axis])
        a, b = jnp.take(x, low, axis), jnp.take(x, high, axis)
        return a + (b - a) * jnp.broadcast_to(weight, a.shape)

    return along(along(_rgb(images), 1), 2)


def _resize(images: jax.Array, size: int, method: str, antialias: bool) -> jax.Array:
    shape = (len(images), size, size, 3)
    resized: jax.Array = jax.image.resize(
        _rgb(images), shape, method, antialias=antialias, precision=jax.lax.Precision.HIGHEST
    )
    return resized


def _rgb(images: jax.Array) -> jax.Array:
    return jnp.broadcast_to(images, (*images.shape[:-1], 3)).astype(jnp.float32)
