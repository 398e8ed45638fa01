"""Metrics of pixels: fidelity of reconstructions, sharpness, lattice artefacts."""

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax.losses import symptoms

LATTICE_PERIOD = 4
"""In pixels; two strided layers of stride 2 leave patterns with this period or half of it."""


@jax.jit
def fidelity(originals: jax.Array, reconstructions: jax.Array) -> dict[str, jax.Array]:
    """Compares reconstructions with their originals, both uint8 [B, H, W, C].

    Returns `psnr` in decibels and `ssim`, the structural similarity of Wang et al. 2004 with a
    Gaussian window of 11 pixels and deviation 1.5; both are float32 [B].
    """
    a, b = originals.astype(jnp.float32) / 255, reconstructions.astype(jnp.float32) / 255
    psnr = -10 * jnp.log10(jnp.mean((a - b) ** 2, axis=(1, 2, 3)))
    return {"psnr": psnr, "ssim": _ssim(a, b)}


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
    period = LATTICE_PERIOD
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


def _ssim(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the mean of Wang et al. 2004, equation 13: [B, H, W, C] in [0, 1] -> [B]."""
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window /= window.sum()
    rows, columns = (
        np.array([np.pad(window, (i, size - 11 - i)) for i in range(size - 10)], np.float32)
        for size in a.shape[1:3]
    )

    def blur(x: jax.Array) -> jax.Array:
        precision = jax.lax.Precision.HIGHEST
        return jnp.einsum("ij,bjkc,lk->bilc", rows, x, columns, precision=precision)

    mean_a, mean_b = blur(a), blur(b)
    covariance = blur(a * b) - mean_a * mean_b
    variances = blur(a * a + b * b) - mean_a**2 - mean_b**2
    c1, c2 = 0.01**2, 0.03**2
    index = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    index /= (mean_a**2 + mean_b**2 + c1) * (variances + c2)
    return jnp.mean(index, axis=(1, 2, 3))
