"""Metrics of pixels against plain NumPy and SciPy in float64."""

import numpy as np
import pytest
import scipy.ndimage

from vaegan_jax.evaluation import pixels


def test_psnr_equals_its_definition():
    rng = np.random.default_rng(2)
    a = rng.integers(0, 256, (3, 24, 20, 3), np.uint8)
    noise = rng.normal(0, 1, a.shape) * [[[[2]]], [[[20]]], [[[99]]]]
    b = np.clip(np.round(a + noise), 0, 255).astype(np.uint8)
    errors = np.square(a.astype(np.float64) - b).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(pixels.psnr(a, b), 10 * np.log10(255**2 / errors), rtol=1e-5)
    assert np.isposinf(pixels.psnr(a, a)).all()


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
def test_artefacts_equal_their_definitions(channels):
    images = np.random.default_rng(5).integers(0, 256, (3, 17, 34, channels), np.uint8)
    values = pixels.artefacts(images)
    expected = [plain_lattice(image / 255) for image in images]
    np.testing.assert_allclose(values["lattice"], expected, rtol=1e-4)
    laplacian = [
        [scipy.ndimage.laplace(image[..., c] / 255)[1:-1, 1:-1] for c in range(channels)]
        for image in images
    ]
    np.testing.assert_allclose(values["sharpness"], np.square(laplacian).mean((1, 2, 3)), rtol=1e-5)
