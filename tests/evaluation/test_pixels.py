"""Metrics of pixels against plain NumPy and SciPy in float64."""

import numpy as np
import pytest
import scipy.ndimage

from vaegan_jax.evaluation import pixels


def smooth_images(count, channels, height=24, width=20):
    noise = np.random.default_rng(2).normal(size=(count, height, width, channels))
    waves = scipy.ndimage.gaussian_filter(noise, (0, 2, 2, 0))
    return np.clip(128 + 60 * waves / waves.std(), 0, 255).astype(np.uint8)


def test_psnr_equals_its_definition():
    a = smooth_images(3, 3)
    noise = np.random.default_rng(3).normal(0, 1, a.shape) * [[[[2]]], [[[20]]], [[[99]]]]
    b = np.clip(np.round(a + noise), 0, 255).astype(np.uint8)
    errors = np.square(a.astype(np.float64) - b).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(pixels.psnr(a, b), 10 * np.log10(255**2 / errors), rtol=1e-5)
    assert np.isposinf(pixels.psnr(a, a)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_sharpness_is_the_mean_square_of_scipys_laplacian(channels):
    images = np.random.default_rng(4).integers(0, 256, (3, 17, 33, channels), np.uint8)
    images[1] //= 4
    images[2] = np.add.outer(3 * np.arange(17), 2 * np.arange(33))[..., None]  # a linear ramp
    grey = images.astype(np.float64) / 255
    expected = [
        np.mean([scipy.ndimage.laplace(image[..., c])[1:-1, 1:-1] ** 2 for c in range(channels)])
        for image in grey
    ]
    sharpness = pixels.artefacts(images)["sharpness"]
    np.testing.assert_allclose(sharpness, expected, rtol=1e-5, atol=1e-10)


def plain_lattice(image):
    """Variance of the mean over all 4x4 cells of what a centred mean over 4 pixels leaves."""
    window = np.array([0.5, 1, 1, 1, 0.5]) / 4
    smooth = scipy.ndimage.correlate1d(image, window, axis=0)
    smooth = scipy.ndimage.correlate1d(smooth, window, axis=1)
    detail = (image - smooth)[2:-2, 2:-2]
    height, width = (size // 4 * 4 for size in detail.shape[:2])
    phases = [[detail[i:height:4, j:width:4].mean(axis=(0, 1)) for j in range(4)] for i in range(4)]
    return np.var(phases, axis=(0, 1)).mean()


@pytest.mark.parametrize("channels", [1, 3])
def test_lattice_equals_its_definition(channels):
    images = np.random.default_rng(5).integers(0, 256, (3, 17, 34, channels), np.uint8)
    expected = [plain_lattice(image / 255) for image in images]
    np.testing.assert_allclose(pixels.artefacts(images)["lattice"], expected, rtol=1e-4)


@pytest.mark.parametrize("period", [2, 4])
def test_lattice_is_the_variance_of_a_repeated_pattern(period):
    smooth = smooth_images(4, 3, 64, 64).astype(float)
    pattern = np.random.default_rng(6).integers(-8, 9, (period, period, 1))
    lattice = np.tile(pattern - pattern.mean(), (64 // period, 64 // period, 1))
    before, after = (
        pixels.artefacts(np.clip(np.round(images), 0, 255).astype(np.uint8))["lattice"]
        for images in (smooth, np.clip(smooth, 20, 235) + lattice)
    )
    variance = lattice.var() / 255**2
    np.testing.assert_allclose(after, variance, rtol=0.2)
    assert (before < 0.05 * variance).all()
    noise = smooth + np.random.default_rng(7).normal(0, lattice.std(), smooth.shape)
    noisy = pixels.artefacts(np.clip(np.round(noise), 0, 255).astype(np.uint8))["lattice"]
    assert (noisy < 0.1 * variance).all()
