"""Tests for copies of training images among samples, in feature space."""

import warnings
from typing import NamedTuple

import jax
import numpy as np
import scipy.cluster.vq
import scipy.stats

from vaegan_jax.evaluation import distances
from vaegan_jax.evaluation.number import random_subset

_MIN_PER_CELL = 20
_TEST_IMAGES_PER_CELL = 50
_MAX_CELLS = 10


class Nearest(NamedTuple):
    """The nearest training images of m images.

    Attributes:
      row: indices of the training images, int32 [m].
      distance: squared distances to them, float32 [m].
      ratio: these relative to the squared distances of the training images to their own nearest
        neighbours. An image is authentic if it exceeds 1 (Alaa et al. 2022, arXiv 2102.08921,
        section 3.3). In low dimensions that holds for about half of fresh samples from the data
        distribution.
    """

    row: np.ndarray
    distance: np.ndarray
    ratio: np.ndarray


def nearest_train(features: np.ndarray, train: jax.Array, usual: np.ndarray) -> Nearest:
    """Finds the nearest training image of each image.

    Args:
      features: float32 [m, d].
      train: float32 [n, d].
      usual: squared distances of the training images to their nearest others, float32 [n].
    """
    distance, row = jax.device_get(distances.neighbours(features, train))
    return Nearest(row, distance, distance / np.maximum(usual[row], 1e-12))


def cell_centres(key: jax.Array, train: np.ndarray, test_count: int) -> np.ndarray:
    """Partitions training features, float32 [n, d], by k-means: float32 [k, d].

    There is one cell per 50 test images, but at most 10; `key` is of the initial centres.
    """
    count = min(_MAX_CELLS, max(1, test_count // _TEST_IMAGES_PER_CELL))
    first = train[random_subset(key, len(train), count)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cell is no failure
        centres: np.ndarray = scipy.cluster.vq.kmeans2(train, first, minit="matrix")[0]
    return centres


def cells(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Returns the cells of features, the indices of their nearest centres: int [m]."""
    result: np.ndarray = scipy.cluster.vq.vq(features, centres)[0]
    return result


def data_copying(
    test: np.ndarray, fake: np.ndarray, test_cells: np.ndarray, fake_cells: np.ndarray
) -> tuple[float, float]:
    """Returns the statistic C_T of a three-sample test for data copying, and its standard error.

    Meehan et al. 2020, arXiv 2004.05675, sections 3.1 and 3.2. In each cell with at least 20 test
    images and 20 fakes, Z is the standardised Mann-Whitney statistic of the distances to the
    nearest training image: negative if fakes are nearer than test images, and standard normal if
    both have the same distribution. C_T is the mean of Z weighted by the share of test images in
    the cell; the error is its standard deviation under that null hypothesis. Without a cell of
    enough images, all images form one.

    Args:
      test: distances of the test images to their nearest training images, [m].
      fake: distances of the fakes, [l].
      test_cells: int [m], see `cells`.
      fake_cells: int [l].

    Returns:
      The statistic and its error; NaN twice if there are fewer than 20 images of a kind.
    """
    scores, weights = [], []
    for cell in np.unique(test_cells):
        p, q = test[test_cells == cell], fake[fake_cells == cell]
        m, n = len(q), len(p)
        if min(m, n) < _MIN_PER_CELL:
            continue
        u = scipy.stats.mannwhitneyu(q, p, method="asymptotic").statistic
        scores.append((u - m * n / 2) / np.sqrt(m * n * (m + n + 1) / 12))
        weights.append(n)
    if not scores and (test_cells.any() or fake_cells.any()):
        return data_copying(test, fake, np.zeros_like(test_cells), np.zeros_like(fake_cells))
    if not scores:
        return float("nan"), float("nan")
    shares = np.array(weights) / np.sum(weights)
    return float(shares @ scores), float(np.sqrt(np.sum(shares**2)))
