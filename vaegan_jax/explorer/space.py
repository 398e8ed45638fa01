"""Where to move in a latent space: its middle, its most active units, its principal directions."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

MAX_AXES = 32


class Space(NamedTuple):
    """What sliders and a map need of a latent space of L dimensions.

    Attributes:
      middle: where all sliders stand at 0, float64 [L].
      units: dimensions, the most active first, int64 [K].
      deviations: of each of these units, float64 [K].
      directions: unit vectors at right angles, the most telling first, float64 [K, L].
      spreads: the standard deviation along each, float64 [K].
      measured: whether data were encoded for it; see `measure` and `probe`.
    """

    middle: np.ndarray
    units: np.ndarray
    deviations: np.ndarray
    directions: np.ndarray
    spreads: np.ndarray
    measured: bool


def measure(means: np.ndarray) -> Space:
    """Returns the space that encoded images span.

    The principal directions are the eigenvectors of the covariance (Pearson 1901); a unit is the
    more active the more its posterior mean varies over the data (Burda et al. 2015, arXiv
    1509.00519, section 5.2).

    Args:
      means: of the posteriors, float32 [N, L], N at least 2.
    """
    means = means.astype(np.float64)
    middle = means.mean(axis=0)
    centred = means - middle
    variances, vectors = np.linalg.eigh(centred.T @ centred / len(means))
    order = np.argsort(-variances, kind="stable")[:MAX_AXES]
    deviations = centred.std(axis=0)
    units = np.argsort(-deviations, kind="stable")[:MAX_AXES]
    return Space(
        middle,
        units,
        _nonzero(deviations[units]),
        _pointing(vectors.T[order]),
        _nonzero(np.sqrt(np.maximum(variances[order], 0))),
        True,
    )


def probe(decode: Callable[[np.ndarray], np.ndarray], size: int, reach: float = 1.0) -> Space:
    """Returns the space as its pictures tell, where there is nothing to encode.

    Around the middle of the prior, directions are the right singular vectors of the Jacobian of
    the picture, taken by central differences, and units are ordered by the lengths of its columns.

    Args:
      decode: latents float32 [B, L] -> images [B, ...].
      size: L.
      reach: how far to either side the differences are taken.
    """
    steps = reach * np.eye(size, dtype=np.float32)
    ahead, behind = (decode(side).reshape(size, -1).astype(np.float64) for side in (steps, -steps))
    jacobian = (ahead - behind) / (2 * reach)  # transposed: [L, pixels]
    strengths, vectors = np.linalg.eigh(jacobian @ jacobian.T)
    order = np.argsort(-strengths, kind="stable")[:MAX_AXES]
    units = np.argsort(-np.linalg.norm(jacobian, axis=1), kind="stable")[:MAX_AXES]
    ones = np.ones(len(order))
    return Space(np.zeros(size), units, ones, _pointing(vectors.T[order]), ones, False)


def project(means: np.ndarray, space: Space) -> np.ndarray:
    """Returns where latents [N, L] lie on the map, in standard deviations: float32 [4, N].

    The first two rows are along the first two directions, the others along the first two units.
    A space of one dimension has zeros instead of a second one.
    """
    centred = means - space.middle
    found = np.zeros((4, len(means)), np.float32)
    along = centred @ space.directions[:2].T / space.spreads[:2]
    by_unit = centred[:, space.units[:2]] / space.deviations[:2]
    found[: along.shape[1]], found[2 : 2 + by_unit.shape[1]] = along.T, by_unit.T
    return found


def _pointing(vectors: np.ndarray) -> np.ndarray:
    """Returns rows of which the largest element is positive, since eigenvectors have no sign."""
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    pointing: np.ndarray = vectors * np.where(largest < 0, -1, 1)
    return pointing


def _nonzero(deviations: np.ndarray) -> np.ndarray:
    """Returns deviations by which one can divide: 1 where nothing varies."""
    return np.where(deviations > 1e-6, deviations, 1.0)
