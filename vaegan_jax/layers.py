"""Strided layers that stay fast under every derivative.

The trilinear form ``<g, down(x, k)>`` of an image x, a kernel k and a half-size image g has three
partial derivatives: ``down(x, k)``, ``up(g, k)`` and ``correlate(x, g)``. Each is a function
here whose backward pass calls the other two, so the family is closed under reverse-mode
differentiation of any order. Nothing in it is an lhs-dilated convolution, whose filter gradient
is what makes `nn.ConvTranspose` slow. Forward-mode derivatives are not defined.

Shapes, throughout: x float [B, H, W, C] with H and W even; k float [4, 4, C, O];
g float [B, H/2, W/2, O]. All three functions keep the dtype of their arguments.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

_NUMBERS = ("NHWC", "HWIO", "NHWC")

# A convolution whose window is the whole map g is quick while that map is small; past this many
# positions, products of patches are quicker (on CPU: docs/performance.md).
_LARGEST_WINDOW = 64
_MOST_CHUNKS = 8


@jax.custom_vjp
def down(x: jax.Array, k: jax.Array) -> jax.Array:
    """A 4x4 convolution of stride 2 and padding 1: [B, H, W, C] -> [B, H/2, W/2, O]."""
    return lax.conv_general_dilated(x, k, (2, 2), ((1, 1), (1, 1)), dimension_numbers=_NUMBERS)


@jax.custom_vjp
def up(g: jax.Array, k: jax.Array) -> jax.Array:
    """The transpose of `down` in its image: [B, h, w, O] -> [B, 2h, 2w, C].

    Each output block of 2x2 pixels depends on 2x2 inputs only, so this is a 2x2 convolution with
    4C outputs, then depth to space, then a crop of the outermost pixels.
    """
    b, h, w, _ = g.shape
    _, _, c, o = k.shape
    # k[2 s + p] reaches the pixel of phase p from the input s blocks before it, hence the flips.
    k = k.reshape(2, 2, 2, 2, c, o)[::-1, :, ::-1]
    k = k.transpose(0, 2, 5, 1, 3, 4).reshape(2, 2, o, 4 * c)
    y = lax.conv_general_dilated(g, k, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_NUMBERS)
    y = y.reshape(b, h + 1, w + 1, 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(b, 2 * h + 2, 2 * w + 2, c)[:, 1:-1, 1:-1]


@jax.custom_vjp
def correlate(x: jax.Array, g: jax.Array) -> jax.Array:
    """The derivative of ``<g, down(x, k)>`` in k: [B, H, W, C], [B, h, w, O] -> [4, 4, C, O]."""
    _, h, w, _ = g.shape
    if h * w <= _LARGEST_WINDOW:
        return _correlate_by_convolution(x, g)
    return _correlate_by_patches(x, g)


def _correlate_by_convolution(x: jax.Array, g: jax.Array) -> jax.Array:
    # Explicit transposes and plain dimension numbers: the same convolution with permuted numbers,
    # as autodiff writes it, loses two orders of magnitude inside `lax.scan` on CPU.
    k = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        g.transpose(1, 2, 0, 3),
        (1, 1),
        ((1, 1), (1, 1)),
        rhs_dilation=(2, 2),
        dimension_numbers=_NUMBERS,
    )
    return k.transpose(1, 2, 0, 3)


def _correlate_by_patches(x: jax.Array, g: jax.Array) -> jax.Array:
    b, height, width, c = x.shape
    _, h, w, o = g.shape

    def add_chunk(total: jax.Array, chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        x, g = chunk
        return total + jnp.einsum("bhwp,bhwo->po", _patches(x), g), None

    # A few images at a time keep the patches in the cache.
    n = math.gcd(b, _MOST_CHUNKS)
    chunks = (x.reshape(n, b // n, height, width, c), g.reshape(n, b // n, h, w, o))
    total, _ = lax.scan(add_chunk, jnp.zeros((16 * c, o), x.dtype), chunks)
    return total.reshape(2, 2, 2, 2, c, o).transpose(0, 2, 1, 3, 4, 5).reshape(4, 4, c, o)


def _patches(x: jax.Array) -> jax.Array:
    """Returns the 4x4 patches that `down` multiplies: [B, H, W, C] -> [B, H/2, W/2, 16 C].

    Each is 2x2 neighbouring blocks of 2x2 pixels, in that order.
    """
    b, h, w, c = x.shape[0], x.shape[1] // 2, x.shape[2] // 2, x.shape[3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    blocks = x.reshape(b, h + 1, 2, w + 1, 2, c).transpose(0, 1, 3, 2, 4, 5)
    blocks = blocks.reshape(b, h + 1, w + 1, 4 * c)
    return jnp.concatenate(
        [blocks[:, i : i + h, j : j + w] for i in (0, 1) for j in (0, 1)], axis=-1
    )


_Pair = tuple[jax.Array, jax.Array]


def _down_forward(x: jax.Array, k: jax.Array) -> tuple[jax.Array, _Pair]:
    return down(x, k), (x, k)


def _down_backward(saved: _Pair, g: jax.Array) -> _Pair:
    x, k = saved
    return up(g, k), correlate(x, g)


def _up_forward(g: jax.Array, k: jax.Array) -> tuple[jax.Array, _Pair]:
    return up(g, k), (g, k)


def _up_backward(saved: _Pair, x: jax.Array) -> _Pair:
    g, k = saved
    return down(x, k), correlate(x, g)


def _correlate_forward(x: jax.Array, g: jax.Array) -> tuple[jax.Array, _Pair]:
    return correlate(x, g), (x, g)


def _correlate_backward(saved: _Pair, k: jax.Array) -> _Pair:
    x, g = saved
    return up(g, k), down(x, k)


down.defvjp(_down_forward, _down_backward)
up.defvjp(_up_forward, _up_backward)
correlate.defvjp(_correlate_forward, _correlate_backward)


# He initialisation for leaky units of slope 0.2. An output of `down` sums over 16 C products and
# one of `up` over 4 O, while `variance_scaling` counts 16 O for the latter, hence the factor 4.
_GAIN = 2 / (1 + 0.2**2)
down_init = nn.initializers.variance_scaling(_GAIN, "fan_in", "normal")
up_init = nn.initializers.variance_scaling(4 * _GAIN, "fan_in", "normal", in_axis=-1, out_axis=-2)


_POWER_ITERATIONS = 16


def spectrally_normalised(kernel: jax.Array) -> jax.Array:
    """Divides a kernel [..., C, O] by the largest singular value of it as a matrix of O columns.

    Of a `Down` that matrix is the one of Miyato et al. 2018, arXiv 1802.05957, section 2.1 and
    appendix A. Where the paper carries a vector from step to step, this begins its power iteration
    anew each time, from the same vector, so that there is no state; after 16 rounds the value is
    a per cent or so too small for a random matrix. No gradient passes through the vectors.
    """
    matrix = kernel.astype(jnp.float32).reshape(-1, kernel.shape[-1])
    fixed = jax.lax.stop_gradient(matrix)

    def iterate(_: int, v: jax.Array) -> jax.Array:
        return _unit(_unit(v @ fixed.T) @ fixed)

    # A random vector, always the same: no kernel is likely to have nothing in its direction.
    first = jax.random.normal(jax.random.key(0), (matrix.shape[1],))
    v = jax.lax.fori_loop(0, _POWER_ITERATIONS, iterate, _unit(first))
    u = _unit(v @ fixed.T)
    largest: jax.Array = u @ matrix @ v
    return kernel / largest.astype(kernel.dtype)


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


class Down(nn.Module):
    """`down` with its kernel as a parameter, [B, H, W, C] -> [B, H/2, W/2, features].

    Attributes:
      features: the number of output channels.
      dtype: of the computation; the kernel is kept in float32.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer."""
        kernel = self.param("kernel", down_init, (4, 4, x.shape[-1], self.features), jnp.float32)
        return down(x.astype(self.dtype), kernel.astype(self.dtype))


class Up(nn.Module):
    """`up` with its kernel as a parameter, [B, h, w, C] -> [B, 2h, 2w, features].

    Attributes:
      features: the number of output channels.
      dtype: of the computation; the kernel is kept in float32.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer."""
        kernel = self.param("kernel", up_init, (4, 4, self.features, x.shape[-1]), jnp.float32)
        return up(x.astype(self.dtype), kernel.astype(self.dtype))


class Bias(nn.Module):
    """Adds a learned number to each channel: [..., C] -> [..., C]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer."""
        bias = self.param("bias", nn.initializers.zeros_init(), (x.shape[-1],), jnp.float32)
        return x + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
