"""Distances between sets of features and related metrics, as pure functions.

Features are float32 [n, d], one row per image; `real` and `fake` may have different n. Matrix
products use the highest precision, because GPUs and TPUs round to 10 or 8 bits by default. Pairwise
distances are computed in blocks of rows to avoid storing an n x m matrix. Eigenvalues are computed
in float64 on the host.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_BLOCK_ROWS = 512
_HIGHEST = jax.lax.Precision.HIGHEST


class Gaussian(NamedTuple):
    """A Gaussian fitted to features, in float64 on the host.

    Attributes:
      mean: float64 [d].
      factor: F in the covariance ``S = F^T F``, float64 [min(n, d), d].
    """

    mean: np.ndarray
    factor: np.ndarray


def gaussian(features: np.ndarray) -> Gaussian:
    """Fits a Gaussian to features [n, d]; S is normalised by n - 1."""
    features = np.asarray(features, np.float64)
    n, d = features.shape
    mean = features.mean(axis=0)
    centred = (features - mean) / math.sqrt(n - 1)
    return Gaussian(mean, np.asarray(np.linalg.qr(centred, mode="r")) if n > d else centred)


def frechet(real: Gaussian, fake: Gaussian) -> float:
    """Returns the Frechet distance between Gaussians, >= 0 up to rounding.

    Heusel et al. 2017, arXiv 1706.08500, equation 6:
    ``|m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))``. With ``S = F^T F`` and ``P = F1 F2^T``,
    S1 S2 and P P^T have the same non-zero eigenvalues, and the last trace is the sum of their
    square roots. Squaring P requires float64, which is exact to about 1e-7; accelerators compute
    eigenvalues slowly, so this runs on the host.
    """
    product = real.factor @ fake.factor.T
    square = product @ product.T if len(product) < product.shape[1] else product.T @ product
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(square), 0))
    traces = np.sum(real.factor**2) + np.sum(fake.factor**2)
    return float(np.sum((real.mean - fake.mean) ** 2) + traces - 2 * np.sum(roots))


Kernel = Callable[[jax.Array, jax.Array], jax.Array]
"""([n, d], [m, d]) -> [n, m]."""


def cubic_kernel(x: jax.Array, y: jax.Array) -> jax.Array:
    """The kernel of the KID, ``(x . y / d + 1)^3`` (Binkowski et al. 2018, arXiv 1801.01401)."""
    return (jnp.matmul(x, y.T, precision=_HIGHEST) / x.shape[1] + 1) ** 3


@functools.cache
def gaussian_kernel(deviation: float) -> Kernel:
    """Returns the kernel ``exp(-|x - y|^2 / (2 deviation^2))``."""

    def kernel(x: jax.Array, y: jax.Array) -> jax.Array:
        products = jnp.matmul(x, y.T, precision=_HIGHEST)
        squares = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1)[None] - 2 * products
        return jnp.exp(-jnp.maximum(squares, 0) / (2 * deviation**2))

    return kernel


def mmd(kernel: Kernel, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the unbiased squared maximum mean discrepancy with a kernel.

    Gretton et al. 2012 (JMLR 13), equation 3; it may be negative. With `cubic_kernel` on all images
    it has the same expectation as the KID, which averages over random subsets, and less variance.
    """
    within: jax.Array = mean_within(kernel, x) + mean_within(kernel, y)
    between: jax.Array = mean_between(kernel, x, y)
    return within - 2 * between


@functools.partial(jax.jit, static_argnums=0)
def mean_within(kernel: Kernel, x: jax.Array) -> jax.Array:
    """Returns the mean of a kernel over all pairs of distinct rows of x, float32 [n, d]."""

    def block(rows: jax.Array) -> jax.Array:
        same = rows[:, None] == jnp.arange(len(x))[None]
        return jnp.sum(jnp.where(same, 0, kernel(x[jnp.minimum(rows, len(x) - 1)], x)), axis=1)

    return jnp.mean(_by_rows(len(x), block)) / (len(x) - 1.0)


@functools.partial(jax.jit, static_argnums=0)
def mean_between(kernel: Kernel, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the mean of a kernel over all pairs (row of x, row of y)."""

    def block(rows: jax.Array) -> jax.Array:
        return jnp.mean(kernel(x[jnp.minimum(rows, len(x) - 1)], y), axis=1)

    return jnp.mean(_by_rows(len(x), block))


class Neighbours(NamedTuple):
    """The nearest neighbours of n rows in another set.

    Attributes:
      nearest: squared distances, float32 [n].
      row: row indices, int32 [n].
    """

    nearest: jax.Array
    row: jax.Array


@jax.jit
def neighbours(x: jax.Array, y: jax.Array) -> Neighbours:
    """Returns the nearest row of y, float32 [m, d], for each row of x, float32 [n, d]."""

    def nearest(distances: jax.Array, _: jax.Array) -> Neighbours:
        row = jnp.argmin(distances, axis=1).astype(jnp.int32)
        return Neighbours(jnp.min(distances, axis=1), row)

    result: Neighbours = _by_blocks(x, y, nearest)
    return result


@functools.partial(jax.jit, static_argnames="k")
def nearest_others(x: jax.Array, k: int) -> jax.Array:
    """Returns squared distances from each row to its k < n nearest others, ascending: [n, k]."""

    def nearest(distances: jax.Array, rows: jax.Array) -> jax.Array:
        same = rows[:, None] == jnp.arange(len(x))[None]
        return -jax.lax.top_k(-jnp.where(same, jnp.inf, distances), k)[0]

    result: jax.Array = _by_blocks(x, x, nearest)
    return result


class Manifold(NamedTuple):
    """See `manifold`; float32 scalars."""

    precision: jax.Array
    recall: jax.Array
    density: jax.Array
    coverage: jax.Array


@functools.partial(jax.jit, static_argnames=("k", "k_density"))
def manifold(
    real: jax.Array, nearest: jax.Array, fake: jax.Array, k: int = 3, k_density: int = 5
) -> Manifold:
    """Returns precision, recall, density and coverage.

    Precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991, equations 1 and 2): the
    fraction of fakes inside the k-nearest-neighbour ball of some real image, and vice versa.
    Density and coverage (Naeem et al. 2020, arXiv 2002.09797, equations 3 and 4): the mean number
    of real balls that contain a fake, divided by k, and the fraction of real balls that contain a
    fake; these balls are open.

    `nearest` is `nearest_others` of the real images with at least ``max(k, k_density)`` neighbours,
    and m > k. All values are in [0, 1], except that density may exceed 1.
    """
    radii_real, balls = nearest[:, k - 1], nearest[:, k_density - 1]
    radii_fake = nearest_others(fake, k)[:, -1]

    def of_fakes(distances: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
        inside = jnp.any(distances <= radii_real[None], axis=1)
        return inside, jnp.sum(distances < balls[None], axis=1)

    def of_reals(distances: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.any(distances <= radii_fake[None], axis=1), jnp.min(distances, axis=1)

    precise, inside = _by_blocks(fake, real, of_fakes)
    recalled, to_fake = _by_blocks(real, fake, of_reals)
    return Manifold(
        precision=jnp.mean(precise),
        recall=jnp.mean(recalled),
        density=jnp.mean(inside) / k_density,
        coverage=jnp.mean(to_fake < balls),
    )


def vendi(features: np.ndarray) -> float:
    """Returns the Vendi score, the effective number of distinct images, in [1, min(n, d)].

    Friedman and Dieng 2022, arXiv 2210.02410, definition 3.1, with the cosine kernel K of the
    features as they are (not centred, as in the authors' library): the exponential of the entropy
    of the eigenvalues of K / n. In float64 on the host, see `frechet`.
    """
    rows = np.array(features, np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) * math.sqrt(len(rows))
    square = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    weights = np.linalg.eigvalsh(square)
    weights = weights[weights > 0]
    return float(np.exp(-np.sum(weights * np.log(weights))))


def _by_blocks(x: jax.Array, y: jax.Array, reduce: Callable[[jax.Array, jax.Array], Any]) -> Any:
    """Applies ``reduce(squared distances [block, m], rows [block])`` to blocks of rows of x.

    Both sets are centred first to avoid catastrophic cancellation.
    """
    centre = jnp.mean(y, axis=0, keepdims=True)
    x, y = x - centre, y - centre
    squares = jnp.sum(y**2, axis=1)

    def block(rows: jax.Array) -> Any:
        part = x[jnp.minimum(rows, len(x) - 1)]
        products = jnp.matmul(part, y.T, precision=_HIGHEST)
        distances = jnp.sum(part**2, axis=1)[:, None] + squares[None] - 2 * products
        return reduce(jnp.maximum(distances, 0), rows)

    return _by_rows(len(x), block)


def _by_rows(n: int, block: Callable[[jax.Array], Any]) -> Any:
    """Applies ``block(rows)`` to blocks of range(n); the last block may contain rows >= n."""
    size = min(_BLOCK_ROWS, n)
    blocks = -(-n // size)
    results = jax.lax.map(block, jnp.arange(blocks * size).reshape(blocks, size))
    return jax.tree.map(lambda leaf: leaf.reshape(blocks * size, *leaf.shape[2:])[:n], results)
