"""The ways in which metrics resize images; each is part of the name of a number made with it.

All take uint8 [B, H, W, C], one channel being repeated, to float32 [B, size, size, 3] in [0, 255].
"""

import jax
import jax.numpy as jnp


def cubic(images: jax.Array, size: int) -> jax.Array:
    """Resizes as clean-fid does: Pillow's bicubic (a = -0.5) on floats, antialiased and clipped.

    Parmar et al. 2022, arXiv 2104.11222, section 4.
    """
    return jnp.clip(_resize(images, size, "cubic", antialias=True), 0, 255)


def linear(images: jax.Array, size: int) -> jax.Array:
    """Resizes as pytorch-fid does: bilinear, with half-pixel centres and without antialiasing."""
    return _resize(images, size, "linear", antialias=False)


def tf1_linear(images: jax.Array, size: int) -> jax.Array:
    """Resizes as TensorFlow 1 did: bilinear on the grid ``source = target * in / out``.

    There are no half-pixel centres, so that the picture moves towards the corner by up to half a
    source pixel; what is beyond the last row or column is that row or column.
    """

    def along(x: jax.Array, axis: int) -> jax.Array:
        length = x.shape[axis]
        source = jnp.arange(size, dtype=jnp.float32) * (length / size)
        low = jnp.minimum(jnp.floor(source).astype(jnp.int32), length - 1)
        high = jnp.minimum(low + 1, length - 1)
        shape = [1] * x.ndim
        shape[axis] = size
        share = (source - low).reshape(shape)
        a, b = jnp.take(x, low, axis), jnp.take(x, high, axis)
        return a + (b - a) * jnp.broadcast_to(share, a.shape)

    return along(along(_rgb(images), 1), 2)


def _resize(images: jax.Array, size: int, method: str, antialias: bool) -> jax.Array:
    images = _rgb(images)
    shape = (len(images), size, size, 3)
    resized: jax.Array = jax.image.resize(
        images, shape, method, antialias=antialias, precision=jax.lax.Precision.HIGHEST
    )
    return resized


def _rgb(images: jax.Array) -> jax.Array:
    return jnp.broadcast_to(images, (*images.shape[:-1], 3)).astype(jnp.float32)
