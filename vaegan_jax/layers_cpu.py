"""Forms of the strided layers that are fast on a CPU; `layers` selects them.

Two kinds: products of patches (im2col) for the 4x4 kernels of images of few channels, and products
of tiles (Winograd's minimal filtering) for low-passed 3x3 kernels, which need 25/64 of the
multiplications. Shapes are those of `layers`: x [B, H, W, C], g [B, H/2, W/2, O] with h = H/2 and
w = W/2, k [4, 4, C, O] for patches and [3, 3, C, O] for tiles.

Over blocks d of 2 pixels, a 4-tap kernel of stride 2 is a kernel (k_0, k_1) of stride 1. The
minimal algorithm F(2, 2) computes two of its outputs with three products instead of four (Lavin and
Gray 2015, arXiv 1509.09308, section 4, who give F(2, 3)):

  y_0 = d_0 k_0 + d_1 k_1 = m_0 + m_1,    m_0 = (d_0 - d_1) k_0,    m_1 = d_1 (k_0 + k_1),
  y_1 = d_1 k_0 + d_2 k_1 = m_1 + m_2,    m_2 = (d_2 - d_1) k_1.

The low-passed kernel of (a, b, c) is (a, a + b, b + c, c), so k_0 = (a, a + b), k_1 = (b + c, c),
and both entries of k_0 + k_1 are a + b + c: m_1 needs only the sum of the two pixels of d_1. In two
dimensions, <g, down(x, k)> is the sum over nine terms of <G_n, X_n K_n>, where X, K and G are
linear in x, k and g; `up` and `correlate` are its derivatives.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

MAX_PATCH_CHANNELS = 8
"""Channels of the image up to which patches are faster than a convolution."""

MAX_WINDOW = 64
"""Positions of g up to which its kernel gradient is faster as a convolution than as patches."""

_MIN_TILE_CHANNELS = 8  # with fewer, building the tiles costs more than the products save
_MAX_CHUNKS = 8

_Triple = tuple[jax.Array, jax.Array, jax.Array]


def use_tiles(x: jax.Array, channels: int, h: int, w: int) -> bool:
    """Returns whether tiles of 2x2 outputs fit, are precise enough, and are faster on a CPU."""
    wide = jnp.finfo(x.dtype).bits >= 32
    return wide and channels >= _MIN_TILE_CHANNELS and h % 2 == 0 and w % 2 == 0


def down_by_patches(x: jax.Array, k: jax.Array) -> jax.Array:
    """Returns `layers.down` as a product of patches."""
    patches = _patches(x)
    y = patches.reshape(-1, patches.shape[-1]) @ _as_matrix(k)
    return y.reshape(*patches.shape[:3], -1)


def up_by_patches(g: jax.Array, k: jax.Array) -> jax.Array:
    """Returns `layers.up` as a product of patches."""
    patches = (g.reshape(-1, g.shape[-1]) @ _as_matrix(k).T).reshape(*g.shape[:3], 4, -1)
    blocks = sum(
        jnp.pad(patches[:, :, :, 2 * i + j], ((0, 0), (i, 1 - i), (j, 1 - j), (0, 0)))
        for i in (0, 1)
        for j in (0, 1)
    )
    return join_blocks(jnp.asarray(blocks))


def correlate_by_patches(x: jax.Array, g: jax.Array) -> jax.Array:
    """Returns `layers.correlate` as a product of patches."""
    b, height, width, c = x.shape
    _, h, w, o = g.shape

    def add_chunk(total: jax.Array, chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        x, g = chunk
        patches = _patches(x)
        # In this order the product is faster than its transpose on a CPU.
        return total + g.reshape(-1, o).T @ patches.reshape(-1, 16 * c), None

    # Few images at a time, so that the patches fit into the cache.
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


def join_blocks(blocks: jax.Array) -> jax.Array:
    """The transpose of `_blocks`, which drops the padding."""
    return depth_to_space(blocks)[:, 1:-1, 1:-1]


def depth_to_space(blocks: jax.Array) -> jax.Array:
    """Returns blocks of 2x2 pixels as an image: [B, h, w, 4 C] -> [B, 2h, 2w, C]."""
    b, h, w, c = *blocks.shape[:3], blocks.shape[3] // 4
    y = blocks.reshape(b, h, w, 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(b, 2 * h, 2 * w, c)


def down_by_tiles(x: jax.Array, k: jax.Array) -> jax.Array:
    """Returns `layers.smooth_down` as products of tiles."""
    b, height, width, _ = x.shape
    products = [d @ k for d, k in zip(_image_tiles(x), _kernel_tiles(k), strict=True)]
    tiles = [m.reshape(b, height // 4, width // 4, -1) for m in products]
    return _from_nine(_merge_pairs, tiles)


def up_by_tiles(g: jax.Array, k: jax.Array) -> jax.Array:
    """Returns `layers.smooth_up` as products of tiles."""
    b, h, w, _ = g.shape
    products = [g @ k.T for g, k in zip(_output_tiles(g), _kernel_tiles(k), strict=True)]
    sizes = [(b, h // 2, w // 2, i, j, k.shape[2]) for i, j in _TILE_PIXELS]
    tiles = [m.reshape(size) for m, size in zip(products, sizes, strict=True)]
    return join_blocks(_from_nine(_merge_overlaps, tiles).reshape(b, h + 1, w + 1, -1))


def correlate_by_tiles(x: jax.Array, g: jax.Array) -> jax.Array:
    """Returns `layers.smooth_correlate` as products of tiles."""
    # The whole batch at once, so that the compiler shares the tiles with `down` and `up`.
    products = [d.T @ g for d, g in zip(_image_tiles(x), _output_tiles(g), strict=True)]
    sizes = [(i, j, x.shape[3], g.shape[3]) for i, j in _TILE_PIXELS]
    tiles = [m.reshape(size) for m, size in zip(products, sizes, strict=True)]
    return _from_nine(_merge_kernel, tiles, axis=0)


_TILE_PIXELS = [(i, j) for i in (2, 1, 2) for j in (2, 1, 2)]
"""The pixels of each X and K: where m_1 needs a sum, there is one in place of two."""


def _image_tiles(x: jax.Array) -> list[jax.Array]:
    """Returns the nine X: [B, H, W, C] -> [B h/2 w/2, pixels C] each."""
    blocks = _blocks(x)
    tiles = _to_nine(_split_overlaps, blocks.reshape(*blocks.shape[:3], 2, 2, -1))
    return [tile.reshape(math.prod(tile.shape[:3]), -1) for tile in tiles]


def _output_tiles(g: jax.Array) -> list[jax.Array]:
    """Returns the nine G: [B, h, w, O] -> [B h/2 w/2, O] each."""
    return [tile.reshape(-1, tile.shape[-1]) for tile in _to_nine(_split_pairs, g)]


def _kernel_tiles(k: jax.Array) -> list[jax.Array]:
    """Returns the nine K: [3, 3, C, O] -> [pixels C, O] each."""
    return [tile.reshape(-1, tile.shape[-1]) for tile in _to_nine(_split_kernel, k, axis=0)]


def _to_nine(
    split: Callable[[jax.Array, int], _Triple], a: jax.Array, axis: int = 1
) -> list[jax.Array]:
    return [piece for row in split(a, axis) for piece in split(row, axis + 1)]


def _from_nine(
    merge: Callable[[_Triple, int], jax.Array], pieces: list[jax.Array], axis: int = 1
) -> jax.Array:
    """The transpose of `_to_nine` if `merge` is that of `split`."""
    a, b, c, d, e, f, g, h, i = pieces
    first, second, third = (merge(row, axis + 1) for row in ((a, b, c), (d, e, f), (g, h, i)))
    return merge((first, second, third), axis)


def _split_pairs(a: jax.Array, axis: int) -> _Triple:
    """Returns (a_0, a_0 + a_1, a_1) of each pair along an axis of even length."""
    first = lax.slice_in_dim(a, 0, None, 2, axis)
    second = lax.slice_in_dim(a, 1, None, 2, axis)
    return first, first + second, second


def _merge_pairs(triple: _Triple, axis: int) -> jax.Array:
    """The transpose of `_split_pairs`."""
    m, n, o = triple
    return _interleave(m + n, n + o, axis)


def _split_kernel(k: jax.Array, axis: int) -> _Triple:
    """Returns ((a, a + b), a + b + c, (b + c, c)) of the three entries along an axis."""
    a, b, c = (lax.slice_in_dim(k, i, i + 1, 1, axis) for i in range(3))
    return jnp.concatenate([a, a + b], axis), a + b + c, jnp.concatenate([b + c, c], axis)


def _merge_kernel(triple: _Triple, axis: int) -> jax.Array:
    """The transpose of `_split_kernel`."""
    m, n, o = triple
    (m0, m1), (o0, o1) = jnp.split(m, 2, axis), jnp.split(o, 2, axis)
    return jnp.concatenate([m0 + m1 + n, m1 + n + o0, n + o0 + o1], axis)


def _split_overlaps(a: jax.Array, axis: int) -> _Triple:
    """Returns (a_0 - a_1, sum of a_1, a_2 - a_1) of every second triple of blocks along an axis.

    The axis has odd length; the sum is over the pixels of a block, two axes further.
    """
    even = lax.slice_in_dim(a, 0, None, 2, axis)
    odd = lax.slice_in_dim(a, 1, None, 2, axis)
    n = odd.shape[axis]
    before = lax.slice_in_dim(even, 0, n, 1, axis)
    after = lax.slice_in_dim(even, 1, n + 1, 1, axis)
    return before - odd, jnp.sum(odd, axis + 2, keepdims=True), after - odd


def _merge_overlaps(triple: _Triple, axis: int) -> jax.Array:
    """The transpose of `_split_overlaps`."""
    m, n, o = triple

    def pad(a: jax.Array, before: int, after: int) -> jax.Array:
        widths = [(0, 0)] * a.ndim
        widths[axis] = (before, after)
        return jnp.pad(a, widths)

    even, odd = pad(m, 0, 1) + pad(o, 1, 0), pad(n - m - o, 0, 1)
    both = _interleave(even, odd, axis)
    return lax.slice_in_dim(both, 0, both.shape[axis] - 1, 1, axis)


def _interleave(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    shape = [*a.shape[:axis], 2 * a.shape[axis], *a.shape[axis + 1 :]]
    return jnp.stack([a, b], axis + 1).reshape(shape)
