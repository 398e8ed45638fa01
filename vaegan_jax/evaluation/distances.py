"""Distances between sets of features and related metrics, as pure functions.

Features are float32 [n, d], one row per image; `real` and `fake` may have different n. Matrix
products use the highest precision, because GPUs and TPUs round to 10 or 8 bits by default. Pairwise
distances are computed in blocks of rows to avoid storing an n x m matrix.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax.errors import UserError

_BLOCK_ROWS = 512
_HIGHEST = jax.lax.Precision.HIGHEST


class Statistics(NamedTuple):
    """Mean [d] and covariance [d, d] (normalised by n - 1) of features; float64 on the host."""

    mu: np.ndarray
    sigma: np.ndarray


class Gaussian(NamedTuple):
    """A Gaussian fitted to features, on the device.

    Attributes:
      mean: float32 [d].
      factor: F in the covariance ``S = F^T F``, float32 [min(n, d), d].
    """

    mean: jax.Array
    factor: jax.Array


@jax.jit
def gaussian(features: jax.Array) -> Gaussian:
    """Fits a Gaussian to features, float32 [n, d]; S is normalised by n - 1."""
    n, d = features.shape
    mean = jnp.mean(features, axis=0)
    centred = (features - mean[None]) / jnp.sqrt(n - 1.0)
    return Gaussian(mean, jnp.linalg.qr(centred, mode="r") if n > d else centred)


@jax.jit
def frechet(real: Gaussian, fake: Gaussian) -> jax.Array:
    """Returns the Frechet distance between Gaussians: a float32 scalar, >= 0 up to rounding.

    Heusel et al. 2017, arXiv 1706.08500, equation 6:
    ``|m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))``. With ``S = F^T F`` the eigenvalues of
    S1 S2 are the squared singular values of ``F1 F2^T``, and the sum of the singular values is the
    last trace. This needs no matrix square root and avoids squaring, so float32 suffices.
    """
    product = jnp.matmul(real.factor, fake.factor.T, precision=_HIGHEST)
    nuclear_norm = jnp.sum(jnp.linalg.svd(product, compute_uv=False))
    traces = jnp.sum(real.factor**2) + jnp.sum(fake.factor**2)
    return jnp.sum((real.mean - fake.mean) ** 2) + traces - 2 * nuclear_norm


def statistics(features: np.ndarray) -> Statistics:
    """Returns the mean and covariance of features [n, d], in float64 on the host."""
    features = np.asarray(features, np.float64)
    return Statistics(features.mean(axis=0), np.cov(features, rowvar=False))


def frechet_from_statistics(real: Statistics, fake: Statistics) -> float:
    """Returns the Frechet distance from stored statistics, in float64 on the host.

    See `frechet`. The trace of ``(S1 S2)^(1/2)`` is the sum of the square roots of the eigenvalues
    of the symmetric ``S1^(1/2) S2 S1^(1/2)``, clipped at 0.
    """
    values, vectors = np.linalg.eigh(real.sigma)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ fake.sigma @ root)
    trace = np.sqrt(np.maximum(product, 0)).sum()
    traces = np.trace(real.sigma) + np.trace(fake.sigma)
    return float(((real.mu - fake.mu) ** 2).sum() + traces - 2 * trace)


def load_statistics(path: pathlib.Path) -> Statistics:
    """Reads an ``.npz`` file with ``mu`` [d] and ``sigma`` [d, d], the format of pytorch-fid.

    Raises:
      UserError: if the file cannot be read or has other contents.
    """
    try:
        with np.load(path) as file:
            mu, sigma = (np.asarray(file[key], np.float64) for key in ("mu", "sigma"))
    except Exception as error:  # NumPy raises many types for invalid archives
        raise UserError(
            f"{path} cannot be read as a statistics file, an .npz with mu and sigma ({error})."
        ) from error
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise UserError(
            f"{path} has mu of shape {mu.shape} and sigma of shape {sigma.shape}: use a file with "
            "mu [d] and sigma [d, d]."
        )
    return Statistics(mu, sigma)


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


@jax.jit
def vendi(features: jax.Array) -> jax.Array:
    """Returns the Vendi score, the effective number of distinct images, in [1, min(n, d)].

    Friedman and Dieng 2022, arXiv 2210.02410, definition 3.1, with the cosine kernel K: the
    exponential of the entropy of the eigenvalues of K / n, which are the squared singular values
    of the normalised rows divided by sqrt(n).
    """
    n, d = features.shape
    rows = features / jnp.linalg.norm(features, axis=1, keepdims=True) / jnp.sqrt(1.0 * n)
    rows = jnp.linalg.qr(rows, mode="r") if n > d else rows
    weights = jnp.linalg.svd(rows, compute_uv=False) ** 2
    entropy = -jnp.sum(jnp.where(weights > 0, weights * jnp.log(jnp.maximum(weights, 1e-30)), 0))
    return jnp.exp(entropy)


def inception_score(logits: jax.Array) -> jax.Array:
    """Returns the Inception Score of logits, float32 [n, classes]: a float32 scalar.

    Salimans et al. 2016, arXiv 1606.03498, section 4: exp of the mean KL divergence of p(y|x) from
    p(y).
    """
    log_p = jax.nn.log_softmax(logits, axis=-1)
    log_marginal = jax.nn.logsumexp(log_p, axis=0, keepdims=True) - jnp.log(1.0 * len(logits))
    divergence = jnp.sum(jnp.exp(log_p) * (log_p - log_marginal), axis=-1)
    return jnp.exp(jnp.mean(divergence))


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
