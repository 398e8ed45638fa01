"""Distances and counts between two sets of features, as pure functions.

Features are float32 [n, d], one row an image, from one embedding; `real` and `fake` may differ in
n. Everything runs on the device in float32, with matrix products at the highest precision (on GPUs
and TPUs the default one would round features to 10 or 8 bits), and pairwise distances are taken a
block of rows at a time, so that no n x m matrix is ever whole.
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
    """Mean and covariance of features, float64 on the host.

    Attributes:
      mu: [d].
      sigma: [d, d], normalised by n - 1.
    """

    mu: np.ndarray
    sigma: np.ndarray


class Gaussian(NamedTuple):
    """A Gaussian fitted to features, on the device.

    Attributes:
      mean: float32 [d].
      factor: F of the covariance ``S = F^T F``, float32 [min(n, d), d].
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
    """Returns the Frechet distance between Gaussians fitted to two sets of features.

    Heusel et al. 2017, arXiv 1706.08500, equation 6:
    ``|m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))``. The last trace is taken without any
    matrix square root: with ``S = F^T F`` the eigenvalues of S1 S2 are the squared singular values
    of ``F1 F2^T``, so that it is their sum. Nothing is squared on the way, which is what makes
    float32 suffice.

    Args:
      real: from `gaussian`.
      fake: from `gaussian`, of as many dimensions.

    Returns:
      float32 scalar, at least 0 up to rounding.
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

    See `frechet`. The trace of ``(S1 S2)^(1/2)`` is the sum of the roots of the eigenvalues of the
    symmetric ``S1^(1/2) S2 S1^(1/2)``, those that rounding made negative taken as 0.
    """
    values, vectors = np.linalg.eigh(real.sigma)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ fake.sigma @ root)
    trace = np.sqrt(np.maximum(product, 0)).sum()
    traces = np.trace(real.sigma) + np.trace(fake.sigma)
    return float(((real.mu - fake.mu) ** 2).sum() + traces - 2 * trace)


def save_statistics(path: pathlib.Path, stored: Statistics) -> None:
    """Writes statistics under the usual keys, ``mu`` and ``sigma``."""
    np.savez(path, mu=stored.mu, sigma=stored.sigma)


def load_statistics(path: pathlib.Path) -> Statistics:
    """Reads a statistics file, ours or another library's.

    Raises:
      UserError: where it cannot be read, or holds no fitting ``mu`` and ``sigma``.
    """
    try:
        with np.load(path) as file:
            mu, sigma = (np.asarray(file[key], np.float64) for key in ("mu", "sigma"))
    except Exception as error:  # NumPy raises many kinds on files that are no archives
        raise UserError(
            f"{path} cannot be read as a statistics file, an .npz with mu and sigma ({error})."
        ) from error
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise UserError(
            f"{path} holds mu {mu.shape} and sigma {sigma.shape}, which do not fit each other: "
            "use a file with mu [d] and sigma [d, d]."
        )
    return Statistics(mu, sigma)


Kernel = Callable[[jax.Array, jax.Array], jax.Array]
"""([n, d], [m, d]) -> [n, m]."""


def cubic_kernel(x: jax.Array, y: jax.Array) -> jax.Array:
    """The kernel of the KID, ``(x . y / d + 1)^3`` (Binkowski et al. 2018, arXiv 1801.01401)."""
    return (jnp.matmul(x, y.T, precision=_HIGHEST) / x.shape[1] + 1) ** 3


@functools.cache
def gaussian_kernel(deviation: float) -> Kernel:
    """Returns the kernel ``exp(-|x - y|^2 / (2 deviation^2))``.

    Between draws of the aggregated posterior and of the prior its discrepancy says how far what a
    decoder was trained on is from what it is given to sample; the root of the latent size is then
    a deviation of the order of distances between draws.
    """

    def kernel(x: jax.Array, y: jax.Array) -> jax.Array:
        products = jnp.matmul(x, y.T, precision=_HIGHEST)
        squares = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1)[None] - 2 * products
        return jnp.exp(-jnp.maximum(squares, 0) / (2 * deviation**2))

    return kernel


def mmd(kernel: Kernel, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the unbiased squared maximum mean discrepancy with a kernel.

    Gretton et al. 2012 (JMLR 13), equation 3; no row is compared with itself. With `cubic_kernel`
    on all images it has the expectation of the KID's mean over random subsets, and less noise.

    Args:
      kernel: ([n, d], [m, d]) -> [n, m].
      x: float32 [n, d].
      y: float32 [m, d].

    Returns:
      float32 scalar; it may be negative where the sets hardly differ.
    """
    within: jax.Array = mean_within(kernel, x) + mean_within(kernel, y)
    between: jax.Array = mean_between(kernel, x, y)
    return within - 2 * between


@functools.partial(jax.jit, static_argnums=0)
def mean_within(kernel: Kernel, x: jax.Array) -> jax.Array:
    """Returns the mean of a kernel over all pairs of different rows of x, float32 [n, d]."""

    def block(rows: jax.Array) -> jax.Array:
        own = rows[:, None] == jnp.arange(len(x))[None]
        return jnp.sum(jnp.where(own, 0, kernel(x[jnp.minimum(rows, len(x) - 1)], x)), axis=1)

    return jnp.mean(_by_rows(len(x), block)) / (len(x) - 1.0)


@functools.partial(jax.jit, static_argnums=0)
def mean_between(kernel: Kernel, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the mean of a kernel over all pairs of a row of x and one of y."""

    def block(rows: jax.Array) -> jax.Array:
        return jnp.mean(kernel(x[jnp.minimum(rows, len(x) - 1)], y), axis=1)

    return jnp.mean(_by_rows(len(x), block))


@functools.partial(jax.jit, static_argnames=("subsets", "size"))
def kid(
    key: jax.Array, real: jax.Array, fake: jax.Array, subsets: int = 100, size: int = 1000
) -> tuple[jax.Array, jax.Array]:
    """Returns the Kernel Inception Distance: mean and deviation over random subsets.

    Args:
      key: of the choice of subsets; the same key gives the same numbers.
      real: float32 [n, d].
      fake: float32 [m, d].
      subsets: how many are drawn, each without replacement.
      size: images in a subset, or all of the smaller set where it has fewer.

    Returns:
      float32 scalars: the mean of `mmd`, and its standard deviation over the subsets.
    """
    size = min(size, len(real), len(fake))

    def one(key: jax.Array) -> jax.Array:
        key_real, key_fake = jax.random.split(key)
        rows_real = jax.random.choice(key_real, len(real), (size,), replace=False)
        rows_fake = jax.random.choice(key_fake, len(fake), (size,), replace=False)
        return mmd(cubic_kernel, real[rows_real], fake[rows_fake])

    values = jax.lax.map(one, jax.random.split(key, subsets))
    return jnp.mean(values), jnp.std(values)


class Neighbours(NamedTuple):
    """Who lies near whom; squared distances.

    Attributes:
      nearest: to each row's nearest neighbour, float32 [n].
      row: which one that is, int32 [n].
    """

    nearest: jax.Array
    row: jax.Array


@jax.jit
def neighbours(x: jax.Array, y: jax.Array) -> Neighbours:
    """Returns for each row of x, float32 [n, d], its nearest row of y, float32 [m, d]."""

    def nearest(distances: jax.Array, _: jax.Array) -> Neighbours:
        row = jnp.argmin(distances, axis=1).astype(jnp.int32)
        return Neighbours(jnp.min(distances, axis=1), row)

    result: Neighbours = _by_blocks(x, y, nearest)
    return result


@functools.partial(jax.jit, static_argnames="k")
def nearest_others(x: jax.Array, k: int) -> jax.Array:
    """Returns each row's squared distances to its k nearest other rows, rising.

    Args:
      x: float32 [n, d].
      k: below n.

    Returns:
      float32 [n, k].
    """

    def nearest(distances: jax.Array, rows: jax.Array) -> jax.Array:
        own = rows[:, None] == jnp.arange(len(x))[None]
        return -jax.lax.top_k(-jnp.where(own, jnp.inf, distances), k)[0]

    result: jax.Array = _by_blocks(x, x, nearest)
    return result


class Manifold(NamedTuple):
    """How two sets lie to each other, as shares; see `manifold`."""

    precision: jax.Array
    recall: jax.Array
    density: jax.Array
    coverage: jax.Array


@functools.partial(jax.jit, static_argnames=("k", "k_density"))
def manifold(
    real: jax.Array, nearest: jax.Array, fake: jax.Array, k: int = 3, k_density: int = 5
) -> Manifold:
    """Returns precision and recall, density and coverage.

    Precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991, equations 1 and 2): the share
    of fakes within the k-th neighbour's distance of some real image, and the other way round, that
    distance included. Density and coverage (Naeem et al. 2020, arXiv 2002.09797, equations 3
    and 4): how many such balls of real images a fake lies in, over k, and the share of real images
    whose ball holds a fake, the distance excluded.

    Args:
      real: float32 [n, d].
      nearest: the real images' own distances, from `nearest_others` with the larger k or more.
      fake: float32 [m, d], m above k.
      k: neighbours for precision and recall.
      k_density: neighbours for density and coverage.

    Returns:
      float32 scalars from 0 to 1; density may exceed 1.
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
    """Returns the Vendi score with the cosine kernel: the effective number of different images.

    Friedman and Dieng 2022, arXiv 2210.02410, definition 3.1: the exponential of the entropy of the
    eigenvalues of K / n, which are the squared singular values of the normalised rows over sqrt(n).

    Args:
      features: float32 [n, d].

    Returns:
      float32 scalar from 1 to min(n, d).
    """
    n, d = features.shape
    rows = features / jnp.linalg.norm(features, axis=1, keepdims=True) / jnp.sqrt(1.0 * n)
    rows = jnp.linalg.qr(rows, mode="r") if n > d else rows
    weights = jnp.linalg.svd(rows, compute_uv=False) ** 2
    entropy = -jnp.sum(jnp.where(weights > 0, weights * jnp.log(jnp.maximum(weights, 1e-30)), 0))
    return jnp.exp(entropy)


def inception_score(logits: jax.Array, splits: int = 1) -> tuple[jax.Array, jax.Array]:
    """Returns the Inception Score: mean and deviation over splits.

    Salimans et al. 2016, arXiv 1606.03498, section 4: the exponential of the mean divergence of
    p(y|x) from p(y). It is blind to most faults; a footnote.

    Args:
      logits: float32 [n, classes]; n is cut to a multiple of the splits.
      splits: of the rows in order.

    Returns:
      float32 scalars.
    """
    per_split = len(logits) // splits
    log_p = jax.nn.log_softmax(logits[: per_split * splits], axis=-1)
    log_p = log_p.reshape(splits, per_split, -1)
    log_marginal = jax.nn.logsumexp(log_p, axis=1, keepdims=True) - jnp.log(1.0 * per_split)
    divergence = jnp.sum(jnp.exp(log_p) * (log_p - log_marginal), axis=-1)
    scores = jnp.exp(jnp.mean(divergence, axis=1))
    return jnp.mean(scores), jnp.std(scores)


def _by_blocks(x: jax.Array, y: jax.Array, reduce: Callable[[jax.Array, jax.Array], Any]) -> Any:
    """Applies ``reduce(squared distances [block, m], rows [block])`` to blocks of rows of x.

    Both sets are centred first, without which the differences of large numbers would cost digits.
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
    """Applies ``block(rows)`` to blocks of the rows 0 to n; the last one may hold rows beyond."""
    size = min(_BLOCK_ROWS, n)
    blocks = -(-n // size)
    results = jax.lax.map(block, jnp.arange(blocks * size).reshape(blocks, size))
    return jax.tree.map(lambda leaf: leaf.reshape(blocks * size, *leaf.shape[2:])[:n], results)
