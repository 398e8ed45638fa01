"""Strided layers that stay fast under every derivative.

The trilinear form ``<g, down(x, k)>`` of an image x, a kernel k and a half-size image g has three
partial derivatives: ``down(x, k)``, ``up(g, k)`` and ``correlate(x, g)``. Each is a function
here whose backward pass calls the other two, so the family is closed under reverse-mode
differentiation of any order. Nothing in it is an lhs-dilated convolution, whose filter gradient
is what makes `nn.ConvTranspose` slow. Forward-mode derivatives are not defined.

On a CPU, in float32, most of them are taken by products of tiles (Winograd's minimal filtering),
which need 9/16 of the multiplications: see `_by_tiles`. Those of an image of few channels are
products of patches. Elsewhere they are convolutions.

Shapes, throughout: x float [B, H, W, C] with H and W even; k float [4, 4, C, O];
g float [B, H/2, W/2, O]. All three functions keep the dtype of their arguments.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vaegan_jax.randomness import Purpose, Stage, draw_key, step_key

_NUMBERS = ("NHWC", "HWIO", "NHWC")

# A convolution whose window is the whole map g is quick while that map is small; past this many
# positions, products of patches are quicker (on CPU: docs/performance.md).
_MAX_WINDOW = 64
_MAX_CHUNKS = 8

# Of the image: with no more, patches and one product are quicker than a convolution on a CPU.
_MAX_PATCH_CHANNELS = 8


@jax.custom_vjp
def down(x: jax.Array, k: jax.Array) -> jax.Array:
    """A 4x4 convolution of stride 2 and padding 1: [B, H, W, C] -> [B, H/2, W/2, O]."""
    if _by_tiles(x, k.shape[2], x.shape[1] // 2, x.shape[2] // 2):
        return _on_cpu(_down_by_tiles, _down_by_convolution, x, k)
    if k.shape[2] <= _MAX_PATCH_CHANNELS:
        return _on_cpu(_down_by_patches, _down_by_convolution, x, k)
    return _down_by_convolution(x, k)


def _down_by_convolution(x: jax.Array, k: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, k, (2, 2), ((1, 1), (1, 1)), dimension_numbers=_NUMBERS)


def _down_by_patches(x: jax.Array, k: jax.Array) -> jax.Array:
    patches = _patches(x)
    y = patches.reshape(-1, patches.shape[-1]) @ _as_matrix(k)
    return y.reshape(*patches.shape[:3], -1)


@jax.custom_vjp
def up(g: jax.Array, k: jax.Array) -> jax.Array:
    """The transpose of `down` in its image: [B, h, w, O] -> [B, 2h, 2w, C]."""
    if _by_tiles(g, k.shape[2], g.shape[1], g.shape[2]):
        return _on_cpu(_up_by_tiles, _up_by_convolution, g, k)
    if k.shape[2] <= _MAX_PATCH_CHANNELS:
        return _on_cpu(_up_by_patches, _up_by_convolution, g, k)
    return _up_by_convolution(g, k)


def _up_by_convolution(g: jax.Array, k: jax.Array) -> jax.Array:
    # Each output block of 2x2 pixels depends on 2x2 inputs only, so this is a 2x2 convolution with
    # 4C outputs, then depth to space, then a crop of the outermost pixels.
    _, _, c, o = k.shape
    # k[2 s + p] reaches the pixel of phase p from the input s blocks before it, hence the flips.
    k = k.reshape(2, 2, 2, 2, c, o)[::-1, :, ::-1]
    k = k.transpose(0, 2, 5, 1, 3, 4).reshape(2, 2, o, 4 * c)
    y = lax.conv_general_dilated(g, k, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_NUMBERS)
    return _joined_blocks(y)


def _up_by_patches(g: jax.Array, k: jax.Array) -> jax.Array:
    patches = (g.reshape(-1, g.shape[-1]) @ _as_matrix(k).T).reshape(*g.shape[:3], 4, -1)
    blocks = sum(
        jnp.pad(patches[:, :, :, 2 * i + j], ((0, 0), (i, 1 - i), (j, 1 - j), (0, 0)))
        for i in (0, 1)
        for j in (0, 1)
    )
    return _joined_blocks(jnp.asarray(blocks))


@jax.custom_vjp
def correlate(x: jax.Array, g: jax.Array) -> jax.Array:
    """The derivative of ``<g, down(x, k)>`` in k: [B, H, W, C], [B, h, w, O] -> [4, 4, C, O]."""
    _, h, w, _ = g.shape
    direct = _correlate_by_convolution if h * w <= _MAX_WINDOW else _correlate_by_patches
    if _by_tiles(x, x.shape[3], h, w):
        return _on_cpu(_correlate_by_tiles, direct, x, g)
    return direct(x, g)


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
        patches = _patches(x)
        # Of the two orders the one that is quicker on a CPU.
        return total + g.reshape(-1, o).T @ patches.reshape(-1, 16 * c), None

    # A few images at a time keep the patches in the cache.
    n = math.gcd(b, _MAX_CHUNKS)
    chunks = (x.reshape(n, b // n, height, width, c), g.reshape(n, b // n, h, w, o))
    total, _ = lax.scan(add_chunk, jnp.zeros((o, 16 * c), x.dtype), chunks)
    return total.T.reshape(2, 2, 2, 2, c, o).transpose(0, 2, 1, 3, 4, 5).reshape(4, 4, c, o)


def _patches(x: jax.Array) -> jax.Array:
    """Returns the 4x4 patches that `down` multiplies: [B, H, W, C] -> [B, H/2, W/2, 16 C].

    Each is 2x2 neighbouring blocks of 2x2 pixels, in that order.
    """
    h, w = x.shape[1] // 2, x.shape[2] // 2
    blocks = _blocks(x)
    return jnp.concatenate(
        [blocks[:, i : i + h, j : j + w] for i in (0, 1) for j in (0, 1)], axis=-1
    )


def _as_matrix(k: jax.Array) -> jax.Array:
    """Returns a kernel in the order of `_patches`: [4, 4, C, O] -> [16 C, O]."""
    _, _, c, o = k.shape
    return k.reshape(2, 2, 2, 2, c, o).transpose(0, 2, 1, 3, 4, 5).reshape(16 * c, o)


def _blocks(x: jax.Array) -> jax.Array:
    """Returns the padded image as blocks of 2x2 pixels: [B, H, W, C] -> [B, h+1, w+1, 4 C]."""
    b, height, width, c = x.shape
    h, w = height // 2, width // 2
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = x.reshape(b, h + 1, 2, w + 1, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h + 1, w + 1, 4 * c)


def _joined_blocks(blocks: jax.Array) -> jax.Array:
    """The transpose of `_blocks`: the padding is cut off."""
    b, h, w, c = *blocks.shape[:3], blocks.shape[3] // 4
    y = blocks.reshape(b, h, w, 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(b, 2 * h, 2 * w, c)[:, 1:-1, 1:-1]


# Over blocks, `down` is a 2x2 convolution of stride 1, and the minimal algorithm F(2x2, 2x2) of
# Winograd (Lavin and Gray 2015, arXiv 1509.09308, section 4, who give F(2x2, 3x3)) takes 2x2 of its
# outputs by 9 products in place of 16. In one dimension, for blocks d, kernel k and outputs y:
#   y_0 = d_0 k_0 + d_1 k_1 = m_0 + m_1,    m_0 = (d_0 - d_1) k_0,    m_1 = d_1 (k_0 + k_1),
#   y_1 = d_1 k_0 + d_2 k_1 = m_1 + m_2,    m_2 = (d_2 - d_1) k_1.
# So <g, down(x, k)> is the sum of <G_n, X_n K_n> over nine, in which X, K and G are linear in x, k
# and g by the same two maps in rows and in columns; `up` and `correlate` follow as its derivatives.

# Of the image; with fewer, making the tiles costs more than the products save.
_MIN_CHANNELS = 32


def _by_tiles(x: jax.Array, channels: int, h: int, w: int) -> bool:
    """Whether tiles of 2x2 outputs fit, are precise enough and, on a CPU, pay."""
    wide = jnp.finfo(x.dtype).bits >= 32
    return wide and channels >= _MIN_CHANNELS and h % 2 == 0 and w % 2 == 0


_Form = Callable[[jax.Array, jax.Array], jax.Array]


def _on_cpu(cpu: _Form, elsewhere: _Form, a: jax.Array, b: jax.Array) -> jax.Array:
    result: jax.Array = lax.platform_dependent(a, b, cpu=cpu, default=elsewhere)
    return result


def _down_by_tiles(x: jax.Array, k: jax.Array) -> jax.Array:
    b, height, width, _ = x.shape
    products = [d @ k for d, k in zip(_image_tiles(x), _kernel_tiles(k), strict=True)]
    tiles = [m.reshape(b, height // 4, width // 4, -1) for m in products]
    return _from_nine(_unite_pairs, tiles)


def _up_by_tiles(g: jax.Array, k: jax.Array) -> jax.Array:
    b, h, w, _ = g.shape
    products = [g @ k.T for g, k in zip(_output_tiles(g), _kernel_tiles(k), strict=True)]
    tiles = [m.reshape(b, h // 2, w // 2, -1) for m in products]
    return _joined_blocks(_from_nine(_unite_overlaps, tiles))


def _correlate_by_tiles(x: jax.Array, g: jax.Array) -> jax.Array:
    c, o = x.shape[3], g.shape[3]
    # The whole batch at once, so that the tiles are those of `down` and `up`, made but once.
    pairs = zip(_image_tiles(x), _output_tiles(g), strict=True)
    products = [(d.T @ g)[None, None] for d, g in pairs]
    k = _from_nine(_unite_pairs, products, axis=0)
    return k.reshape(2, 2, 2, 2, c, o).transpose(0, 2, 1, 3, 4, 5).reshape(4, 4, c, o)


def _image_tiles(x: jax.Array) -> list[jax.Array]:
    """Returns the nine X: [B, H, W, C] -> [B h/2 w/2, 4 C] each."""
    return [tile.reshape(-1, tile.shape[-1]) for tile in _to_nine(_part_overlaps, _blocks(x))]


def _output_tiles(g: jax.Array) -> list[jax.Array]:
    """Returns the nine G: [B, h, w, O] -> [B h/2 w/2, O] each."""
    return [tile.reshape(-1, tile.shape[-1]) for tile in _to_nine(_part_pairs, g)]


def _kernel_tiles(k: jax.Array) -> list[jax.Array]:
    """Returns the nine K: [4, 4, C, O] -> [4 C, O] each."""
    _, _, c, o = k.shape
    k = _as_matrix(k).reshape(2, 2, 4 * c, o)
    return [tile[0, 0] for tile in _to_nine(_part_pairs, k, axis=0)]


_Three = tuple[jax.Array, jax.Array, jax.Array]


def _to_nine(part: Callable[[jax.Array, int], _Three], a: jax.Array, axis: int = 1) -> list[Any]:
    return [piece for row in part(a, axis) for piece in part(row, axis + 1)]


def _from_nine(
    unite: Callable[[_Three, int], jax.Array], pieces: list[jax.Array], axis: int = 1
) -> jax.Array:
    """The transpose of `_to_nine` where `unite` is that of `part`."""
    a, b, c, d, e, f, g, h, i = pieces
    first, second, third = (unite(row, axis + 1) for row in ((a, b, c), (d, e, f), (g, h, i)))
    return unite((first, second, third), axis)


def _part_pairs(a: jax.Array, axis: int) -> _Three:
    """Returns (a_0, a_0 + a_1, a_1) of each pair along an axis of even length."""
    first = lax.slice_in_dim(a, 0, None, 2, axis)
    second = lax.slice_in_dim(a, 1, None, 2, axis)
    return first, first + second, second


def _unite_pairs(three: _Three, axis: int) -> jax.Array:
    """The transpose of `_part_pairs`."""
    m, n, o = three
    return _interleaved(m + n, n + o, axis)


def _part_overlaps(a: jax.Array, axis: int) -> _Three:
    """Returns (a_0 - a_1, a_1, a_2 - a_1) of every other three neighbours; the axis is odd."""
    even = lax.slice_in_dim(a, 0, None, 2, axis)
    odd = lax.slice_in_dim(a, 1, None, 2, axis)
    n = odd.shape[axis]
    before = lax.slice_in_dim(even, 0, n, 1, axis)
    after = lax.slice_in_dim(even, 1, n + 1, 1, axis)
    return before - odd, odd, after - odd


def _unite_overlaps(three: _Three, axis: int) -> jax.Array:
    """The transpose of `_part_overlaps`."""
    m, n, o = three

    def pad(a: jax.Array, before: int, after: int) -> jax.Array:
        widths = [(0, 0)] * a.ndim
        widths[axis] = (before, after)
        return jnp.pad(a, widths)

    even, odd = pad(m, 0, 1) + pad(o, 1, 0), pad(n - m - o, 0, 1)
    both = _interleaved(even, odd, axis)
    return lax.slice_in_dim(both, 0, both.shape[axis] - 1, 1, axis)


def _interleaved(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    shape = [*a.shape[:axis], 2 * a.shape[axis], *a.shape[axis + 1 :]]
    return jnp.stack([a, b], axis + 1).reshape(shape)


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


def spectrally_normalized(kernel: jax.Array) -> jax.Array:
    """Divides a kernel [..., C, O] by the largest singular value of it as a matrix of O columns.

    Of a `Down` that matrix is the one of Miyato et al. 2018, arXiv 1802.05957, section 2.1 and
    appendix A. Where the paper carries a vector from step to step, this begins its power iteration
    again at each use, from the same vector, so that there is no state; after 16 rounds the value is
    a per cent or so too small for a random matrix. No gradient passes through the vectors.
    """
    matrix = kernel.astype(jnp.float32).reshape(-1, kernel.shape[-1])
    fixed = jax.lax.stop_gradient(matrix)

    def iterate(_: int, v: jax.Array) -> jax.Array:
        return _unit(_unit(v @ fixed.T) @ fixed)

    # A random vector, always the same: no kernel is likely to have nothing in its direction.
    key = draw_key(step_key(0, Stage.LAYERS, 0), Purpose.POWER_ITERATION)
    first = jax.random.normal(key, (matrix.shape[1],))
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
