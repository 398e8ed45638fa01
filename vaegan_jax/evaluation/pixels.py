"""Metrics of pixels: fidelity of reconstructions, sharpness, lattice artefacts."""

import jax
import jax.numpy as jnp

from vaegan_jax.losses import symptoms


@jax.jit
def psnr(originals: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Returns the peak signal-to-noise ratio in decibels: uint8 [B, H, W, C] twice -> [B]."""
    a, b = originals.astype(jnp.float32) / 255, reconstructions.astype(jnp.float32) / 255
    return -10 * jnp.log10(jnp.mean((a - b) ** 2, axis=(1, 2, 3)))


@jax.jit
def artefacts(images: jax.Array) -> dict[str, jax.Array]:
    """Returns `sharpness` and `lattice` of images on [0, 1]: uint8 [B, H, W, C] -> float32 [B].

    `sharpness` is `symptoms.sharpness`: lower than that of real images with blur, higher with
    noise. `lattice` is the mean square of the pattern that repeats every 4 pixels all over an
    image: near 0 for real images, and the variance of the pattern for images with the checkerboard
    of strided layers (Odena et al. 2016, Deconvolution and Checkerboard Artifacts).
    """
    x = images.astype(jnp.float32) / 255
    return {"sharpness": symptoms.sharpness(x), "lattice": _lattice(x)}


def _lattice(x: jax.Array) -> jax.Array:
    period = 4  # pixels; two layers of stride 2 leave patterns with this period or half of it
    # The mean over one period, centred, which keeps nothing of the pattern.
    smooth = x
    for axis in (1, 2):
        size = smooth.shape[axis] - period
        parts = [jax.lax.slice_in_dim(smooth, i, i + size, axis=axis) for i in range(period + 1)]
        smooth = (sum(parts[1:-1]) + (parts[0] + parts[-1]) / 2) / period
    half = period // 2
    detail = x[:, half:-half, half:-half] - smooth
    n, height, width, channels = detail.shape
    rows, columns = height // period, width // period
    detail = detail[:, : rows * period, : columns * period]
    cells = detail.reshape(n, rows, period, columns, period, channels)
    pattern = jnp.mean(cells, axis=(1, 3))
    pattern -= jnp.mean(pattern, axis=(1, 2), keepdims=True)
    return jnp.mean(pattern**2, axis=(1, 2, 3))
