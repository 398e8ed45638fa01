"""Image resizing of the embeddings, as two products with matrices of weights.

`jax.image.resize` computes the same, but XLA (jax 0.10.2) fails to compile it for an H100 under
``--xla_gpu_deterministic_ops=true``.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def cubic(images: jax.Array, size: int) -> jax.Array:
    """Resizes like clean-fid: Pillow's bicubic (a = -0.5) on floats, antialiased and clipped.

    Parmar et al. 2022, arXiv 2104.11222, section 4. Images are uint8 or float [B, H, W, C] in
    [0, 255], C 1 or 3; the result is float32 [B, size, size, 3] in [0, 255].
    """
    coloured = jnp.broadcast_to(images, (*images.shape[:-1], 3))
    return jnp.clip(_resize(coloured, size, _keys, 2), 0, 255)


def linear(images: jax.Array, size: int) -> jax.Array:
    """Resizes bilinearly, antialiased: [B, H, W, C] -> float32 [B, size, size, C]."""
    return _resize(images, size, lambda x: np.maximum(1 - x, 0), 1)


_Kernel = Callable[[np.ndarray], np.ndarray]


def _keys(x: np.ndarray) -> np.ndarray:
    """Returns the cubic convolution kernel with a = -0.5 at distances 0 <= x <= 2.

    Keys 1981, "Cubic convolution interpolation for digital image processing", equation 15.
    """
    inner = (1.5 * x - 2.5) * x**2 + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights: np.ndarray = np.where(x < 1, inner, outer)
    return weights


def _resize(images: jax.Array, size: int, kernel: _Kernel, radius: int) -> jax.Array:
    batch, height, width, channels = images.shape
    if height == width == size:
        return images.astype(jnp.float32)
    rows, columns = (_weights(side, size, kernel, radius) for side in (height, width))
    # Two batched products: as one einsum of three arrays, XLA does not compile it either.
    x = images.astype(jnp.float32).reshape(batch, height, width * channels)
    x = jnp.einsum("ih,bhx->bix", rows, x, precision=jax.lax.Precision.HIGHEST)
    x = x.reshape(batch * size, width, channels)
    x = jnp.einsum("jw,bwc->bjc", columns, x, precision=jax.lax.Precision.HIGHEST)
    return x.reshape(batch, size, size, channels)


def _weights(before: int, after: int, kernel: _Kernel, radius: int) -> np.ndarray:
    """Returns the weights of pixels, float32 [after, before]; the rows sum to 1.

    The kernel is widened by the factor of a reduction (antialiasing) and cut off at the border.
    """
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale - 0.5
    distances = np.abs(centres[:, None] - np.arange(before)) / max(scale, 1)
    weights: np.ndarray = np.where(distances < radius, kernel(distances), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)
