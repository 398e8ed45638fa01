"""Resizing against clean-fid and Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.evaluation.test_distances import HERE
from vaegan_jax.evaluation import resizing


@pytest.mark.parametrize("kind", ["clean_pil_bicubic_37", "clean_pil_bicubic_down_9"])
def test_resize_equals_clean_fids(kind):
    with np.load(HERE / "parity.npz") as file:
        images, expected = file["resize/input_uint8"], file[f"resize/{kind}"]
    np.testing.assert_allclose(resizing.cubic(images, expected.shape[1]), expected, atol=1e-3)


def test_grey_rectangles_are_resized_as_by_pillow():
    grey = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 1)).astype(np.uint8)
    ours = np.asarray(resizing.cubic(grey, 20))
    for image, result in zip(grey, ours, strict=True):
        channel = Image.fromarray(image[..., 0].astype(np.float32))
        expected = np.asarray(channel.resize((20, 20), Image.Resampling.BICUBIC)).clip(0, 255)
        for c in range(3):
            np.testing.assert_allclose(result[..., c], expected, atol=1e-3)


@pytest.mark.parametrize("shape", [(64, 64), (5, 48), (12, 7)])
@pytest.mark.parametrize("size", [8, 31])
def test_resizing_is_jaxs(shape, size):
    images = np.random.default_rng(1).integers(0, 256, (2, *shape, 3)).astype(np.uint8)

    def reference(method):
        floats = jnp.asarray(images, jnp.float32)
        return jax.image.resize(floats, (2, size, size, 3), method, antialias=True)

    # The weights of JAX are rounded to float32 several times.
    cubic, linear = resizing.cubic(images, size), resizing.linear(images, size)
    np.testing.assert_allclose(cubic, np.clip(reference("cubic"), 0, 255), atol=1e-3)
    np.testing.assert_allclose(linear, reference("linear"), atol=1e-3)
