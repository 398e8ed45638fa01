"""Image resizing of the embeddings."""

import jax
import jax.numpy as jnp


def cubic(images: jax.Array, size: int) -> jax.Array:
    """Resizes like clean-fid: Pillow's bicubic (a = -0.5) on floats, antialiased and clipped.

    Parmar et al. 2022, arXiv 2104.11222, section 4. Images are uint8 or float [B, H, W, C] in
    [0, 255], C 1 or 3; the result is float32 [B, size, size, 3] in [0, 255].
    """
    coloured = jnp.broadcast_to(images, (*images.shape[:-1], 3)).astype(jnp.float32)
    shape = (len(images), size, size, 3)
    resized = jax.image.resize(
        coloured, shape, "cubic", antialias=True, precision=jax.lax.Precision.HIGHEST
    )
    return jnp.clip(resized, 0, 255)
