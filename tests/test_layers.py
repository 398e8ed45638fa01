"""The closed family against `lax`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vaegan_jax import layers

# (batch, height, width, channels, outputs): odd and even counts, rectangles, the smallest map, and
# maps on both sides of the size at which `correlate` changes its form.
SHAPES = [
    (1, 2, 2, 1, 1),
    (2, 4, 6, 3, 5),
    (3, 8, 4, 5, 3),
    (4, 16, 16, 4, 8),
    (8, 20, 16, 3, 7),
    (5, 18, 22, 1, 2),
    (2, 6, 8, 32, 2),
]
# Channels enough for products of tiles, on maps that they fit; on the last one above, they do not.
TILED = [(2, 4, 12, 32, 3), (1, 8, 4, 33, 40), (2, 8, 8, 8, 4)]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def draw(shape, side=4):
    """An image, a kernel and an image of half the size."""
    b, h, w, c, o = shape
    rng = np.random.default_rng(0)
    shapes = (b, h, w, c), (side, side, c, o), (b, h // 2, w // 2, o)
    return [jnp.asarray(rng.standard_normal(each)) for each in shapes]


def lax_conv(x, k, stride=1):
    numbers, padding = ("NHWC", "HWIO", "NHWC"), ((1, 1), (1, 1))
    return lax.conv_general_dilated(x, k, (stride, stride), padding, dimension_numbers=numbers)


def lax_down(x, k):
    return lax_conv(x, k, 2)


def lax_up(g, k):
    """The transposed convolution as lax has it: lhs-dilated, with the kernel turned round."""
    numbers = ("NHWC", "HWOI", "NHWC")
    return lax.conv_general_dilated(
        g, k[::-1, ::-1], (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2), dimension_numbers=numbers
    )


def lax_correlate(x, g):
    zero = jnp.zeros((4, 4, x.shape[-1], g.shape[-1]))
    return jax.vjp(lambda k: lax_down(x, k), zero)[1](g)[0]


def assert_same_derivatives(ours, theirs, *arguments):
    """Compares two functions of two arrays: their values, first and second derivatives."""

    def results(function):
        def loss(a, b):
            return jnp.mean(jnp.sin(function(a, b)))

        def penalty(a, b):
            first = jax.grad(loss, argnums=(0, 1))(a, b)
            return sum(jnp.sum(jnp.square(each)) for each in first)

        first, second = (jax.grad(each, argnums=(0, 1))(*arguments) for each in (loss, penalty))
        return function(*arguments), *first, *second

    for mine, reference in zip(results(ours), results(theirs), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-7, atol=1e-10)


def sum_blocks(y):
    b, h, w, o = y.shape
    return y.reshape(b, h // 2, 2, w // 2, 2, o).sum(axis=(2, 4))


def lax_smooth_down(x, k):
    return sum_blocks(lax_conv(x, k))


def lax_smooth_up(g, k):
    """With the kernel of a convolution from O to C channels, as `up` has it."""
    nearest = jnp.repeat(jnp.repeat(g, 2, axis=1), 2, axis=2)
    return lax_conv(nearest, k[::-1, ::-1].transpose(0, 1, 3, 2))


def lax_smooth_correlate(x, g):
    zero = jnp.zeros((3, 3, x.shape[-1], g.shape[-1]))
    return jax.vjp(lambda k: lax_smooth_down(x, k), zero)[1](g)[0]


PAIRS = {
    "down": (layers.down, lax_down, (0, 1)),
    "up": (layers.up, lax_up, (2, 1)),
    "correlate": (layers.correlate, lax_correlate, (0, 2)),
}
PAIRS_3X3 = {
    "conv": (layers.conv, lax_conv, (0, 1)),
    "smooth_down": (layers.smooth_down, lax_smooth_down, (0, 1)),
    "smooth_up": (layers.smooth_up, lax_smooth_up, (2, 1)),
    "smooth_correlate": (layers.smooth_correlate, lax_smooth_correlate, (0, 2)),
}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *((name, shape) for name in PAIRS for shape in SHAPES),
        *((name, shape) for name in PAIRS_3X3 for shape in (SHAPES[1], SHAPES[-1], *TILED)),
    ],
)
def test_values_and_derivatives_match_lax(name, shape):
    ours, theirs, chosen = (PAIRS | PAIRS_3X3)[name]
    arrays = draw(shape, side=3 if name in PAIRS_3X3 else 4)
    assert_same_derivatives(ours, theirs, *(arrays[i] for i in chosen))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtype_is_kept(dtype):
    x, k, g = (each.astype(dtype) for each in draw((2, 4, 4, 2, 3)))
    assert layers.down(x, k).dtype == layers.up(g, k).dtype == layers.correlate(x, g).dtype == dtype


def test_no_lhs_dilated_convolution():
    # That is what makes the usual transposed convolution slow, forward or backward.
    x, k, _ = draw((4, 32, 32, 3, 4))

    def penalty(x, k):
        return jnp.sum(jax.grad(lambda x: jnp.sum(jnp.sin(layers.down(x, k))))(x) ** 2)

    def loss(g, k):
        return jnp.sum(jnp.sin(layers.up(g, k)))

    g = layers.down(x, k)
    text = str(jax.make_jaxpr(jax.grad(penalty, argnums=(0, 1)))(x, k))
    text += str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(g, k))
    assert "conv_general_dilated" in text
    assert text.count("lhs_dilation=") == text.count("lhs_dilation=(1, 1)")


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (layers.Up(48), (8, 16, 16, 96), 1.0),
        (layers.Conv(48), (8, 16, 16, 96), 1.0),
        (layers.Down(96), (8, 16, 16, 48), 0.25),  # the mean of four pixels of white noise
    ],
)
def test_initialisation_preserves_variance_through_leaky_relu(layer, shape, expected):
    x = jax.random.normal(jax.random.key(0), shape, jnp.float32)
    y = layer.init_with_output(jax.random.key(1), x)[0]
    inner = y[:, 1:-1, 1:-1]  # away from the padding
    after = jnp.mean(jnp.square(jax.nn.leaky_relu(inner, 0.2)))
    np.testing.assert_allclose(after, expected, rtol=0.06)


@pytest.mark.parametrize("shape", [(4, 4, 3, 8), (4, 4, 8, 16), (64, 1)])
def test_spectrally_normalised_kernel_has_unit_spectral_norm(shape):
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    ours = np.asarray(layers.spectrally_normalized(kernel), np.float64)
    values = np.linalg.svd(ours.reshape(-1, shape[-1]), compute_uv=False)
    np.testing.assert_allclose(values[0], 1, atol=0.03)
    np.testing.assert_allclose(ours / ours.flat[0], kernel / kernel.flat[0], rtol=1e-3)


def test_spectral_norm_gradient_matches_the_paper():
    # d/dk <g, k / s> = (g - <g, k / s> u v^T) / s, with the singular vectors held (equation 12).
    kernel, g = np.random.default_rng(0).normal(size=(2, 12, 3)).astype(np.float32)
    kernel[:, 0] *= 4  # one singular value well above the others
    ours = jax.grad(lambda k: jnp.sum(g * layers.spectrally_normalized(k)))(kernel)
    u, s, v = np.linalg.svd(kernel.astype(np.float64), full_matrices=False)
    inner = np.sum(g * kernel) / s[0]
    expected = (g - inner * np.outer(u[:, 0], v[0])) / s[0]
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)
