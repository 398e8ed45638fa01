"""Distances between sets of features and related metrics, as pure functions.

Features are float32 [n, d], one row per image; `real` and `fake` may have different n. Matrix
products use the highest precision, because GPUs and TPUs round to 10 or 8 bits by default. Pairwise
distances are computed in blocks of rows to avoid storing an n x m matrix. Eigenvalues are computed
in float64 on the host.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Reduced = TypeVar("Reduced")

_BLOCK_ROWS = 512
# Nearest neighbours for precision and recall, and for density and coverage.
_K = 3
_K_DENSITY = 5


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


@jax.jit
def neighbours(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Finds the nearest row of y, float32 [m, d], to each row of x, float32 [n, d].

    Returns:
      The squared distances, float32 [n], and the indices of the rows of y, int32 [n].
    """

    def nearest(distances: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.min(distances), jnp.argmin(distances).astype(jnp.int32)

    return _by_rows(x, y, nearest)


@functools.partial(jax.jit, static_argnames="k")
def nearest_others(x: jax.Array, k: int) -> jax.Array:
    """Returns squared distances from each row to its k < n nearest others, ascending: [n, k]."""

    def nearest(distances: jax.Array, row: jax.Array) -> jax.Array:
        return -jax.lax.top_k(-distances.at[row].set(jnp.inf), k)[0]

    return _by_rows(x, x, nearest)


@jax.jit
def manifold(real: jax.Array, nearest: jax.Array, fake: jax.Array) -> dict[str, jax.Array]:
    """Returns precision, recall, density and coverage, float32 scalars by name.

    Precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991, equations 1 and 2), k = 3: the
    fraction of fakes inside the k-nearest-neighbour ball of some real image, and vice versa.
    Density and coverage (Naeem et al. 2020, arXiv 2002.09797, equations 3 and 4), k = 5: the mean
    number of real balls that contain a fake, divided by k, and the fraction of real balls that
    contain a fake; these balls are open.

    `nearest` is `nearest_others` of the real images with 5 neighbours, and there are more than 3
    fakes. All values are in [0, 1], except that density may exceed 1.
    """
    radii_real, balls = nearest[:, _K - 1], nearest[:, _K_DENSITY - 1]
    radii_fake = nearest_others(fake, _K)[:, -1]

    def of_fakes(distances: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.any(distances <= radii_real), jnp.sum(distances < balls)

    def of_reals(distances: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.any(distances <= radii_fake), jnp.min(distances)

    precise, inside = _by_rows(fake, real, of_fakes)
    recalled, to_fake = _by_rows(real, fake, of_reals)
    return {
        "precision": jnp.mean(precise),
        "recall": jnp.mean(recalled),
        "density": jnp.mean(inside) / _K_DENSITY,
        "coverage": jnp.mean(to_fake < balls),
    }


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


def make_compare(real: np.ndarray) -> Callable[[np.ndarray], dict[str, float]]:
    """Returns a function of features of fakes, float32 [m, d].

    It compares them with those of real images, float32 [n, d] with n > 5, and returns the `frechet`
    distance and the metrics of `manifold`.
    """
    on_device, fitted = jax.device_put(real), gaussian(real)
    nearest = nearest_others(on_device, _K_DENSITY)

    def compare(fake: np.ndarray) -> dict[str, float]:
        others = jax.device_get(manifold(on_device, nearest, fake))
        distance = frechet(fitted, gaussian(fake))
        return {"frechet": distance} | {name: float(value) for name, value in others.items()}

    return compare


def _by_rows(
    x: jax.Array, y: jax.Array, reduce: Callable[[jax.Array, jax.Array], Reduced]
) -> Reduced:
    """Applies ``reduce(squared distances to all rows of y [m], row)`` to each row of x.

    Both sets are centred first to avoid catastrophic cancellation.
    """
    centre = jnp.mean(y, axis=0, keepdims=True)
    x, y = x - centre, y - centre
    squares = jnp.sum(y**2, axis=1)

    def of_row(each: tuple[jax.Array, jax.Array]) -> Reduced:
        values, row = each
        products = jnp.matmul(y, values, precision=jax.lax.Precision.HIGHEST)
        distances = jnp.sum(values**2) + squares - 2 * products
        return reduce(jnp.maximum(distances, 0), row)

    reduced: Reduced = jax.lax.map(of_row, (x, jnp.arange(len(x))), batch_size=_BLOCK_ROWS)
    return reduced
