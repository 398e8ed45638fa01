"""Axes of a latent space: its centre, its most active units and its principal directions."""

from typing import NamedTuple

import numpy as np

MAX_AXES = 32


class Space(NamedTuple):
    """Axes of a latent space of L dimensions, for sliders and a map.

    Attributes:
      middle: the point where all sliders are at 0, float64 [L].
      units: the most active dimensions, in descending order, int64 [K].
      deviations: standard deviation of each unit, float64 [K].
      directions: orthonormal directions, in descending order of variance, float64 [K, L].
      spreads: standard deviation along each direction, float64 [K].
      measured: True from `measure`, False from `unmeasured`.
    """

    middle: np.ndarray
    units: np.ndarray
    deviations: np.ndarray
    directions: np.ndarray
    spreads: np.ndarray
    measured: bool


def measure(means: np.ndarray) -> Space:
    """Returns the axes of encoded images.

    The directions are the eigenvectors of the covariance (Pearson 1901); the activity of a unit is
    the variance of its posterior mean over the data (Burda et al. 2015, arXiv 1509.00519,
    section 5.2).

    Args:
      means: posterior means, float32 [N, L], N >= 2.
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
        _oriented(vectors.T[order]),
        _nonzero(np.sqrt(np.maximum(variances[order], 0))),
        True,
    )


def unmeasured(size: int) -> Space:
    """Returns the coordinate axes at the mean of the prior, for use without data."""
    axes = np.arange(min(size, MAX_AXES))
    ones = np.ones(len(axes))
    return Space(np.zeros(size), axes, ones, np.eye(size)[axes], ones, False)


def project(means: np.ndarray, space: Space) -> np.ndarray:
    """Returns the coordinates of latents [N, L] on the map, in standard deviations.

    Returns:
      float32 [4, N]: along the first two directions, then along the first two units. With L = 1
      the second of each is 0.
    """
    centred = means - space.middle
    points = np.zeros((4, len(means)), np.float32)
    along = centred @ space.directions[:2].T / space.spreads[:2]
    by_unit = centred[:, space.units[:2]] / space.deviations[:2]
    points[: along.shape[1]], points[2 : 2 + by_unit.shape[1]] = along.T, by_unit.T
    return points


def _oriented(vectors: np.ndarray) -> np.ndarray:
    """Returns rows with the sign that makes the largest element positive."""
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    oriented: np.ndarray = vectors * np.where(largest < 0, -1, 1)
    return oriented


def _nonzero(deviations: np.ndarray) -> np.ndarray:
    """Returns the deviations, with 1 for a constant."""
    return np.where(deviations > 1e-6, deviations, 1.0)
