"""Tests for copies of training images among samples, in feature space."""

import math
import warnings
from typing import NamedTuple

import jax
import numpy as np
import scipy.cluster.vq
import scipy.stats

from vaegan_jax.evaluation import distances
from vaegan_jax.evaluation.number import Number, random_subset
from vaegan_jax.randomness import Purpose

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


def copy_numbers(
    seed: int,
    embedding: str,
    train: np.ndarray,
    test: np.ndarray,
    samples: dict[str, np.ndarray],
) -> tuple[list[Number], dict[str, Nearest]]:
    """Returns the metrics of copies, and the nearest training images, of samples by subject.

    The features are float32: of training images [n, d], test images [m, d] and samples [N, d].
    """
    on_device = jax.device_put(train)
    # Squared distances of the training images to their nearest others.
    usual = jax.device_get(distances.nearest_others(on_device, 1))[:, 0]

    def find_nearest(features: np.ndarray) -> Nearest:
        distance, row = jax.device_get(distances.neighbours(features, on_device))
        return Nearest(row, distance, distance / np.maximum(usual[row], 1e-12))

    of_test = find_nearest(test)
    centres = cell_centres(seed, train, len(test))
    test_cells, _ = scipy.cluster.vq.vq(test, centres)
    numbers, nearest = [], {}
    for subject, fake in samples.items():
        nearest[subject] = find_nearest(fake)
        count, (_, distance, ratio) = len(fake), nearest[subject]
        authentic, floor = ratio > 1, None
        if len(test) >= count:
            floor = np.mean(of_test.ratio[random_subset(seed, 5, len(test), count)] > 1)
        error = authentic.std(ddof=1) / math.sqrt(count)
        fake_cells, _ = scipy.cluster.vq.vq(fake, centres)
        copying = data_copying(of_test.distance, distance, test_cells, fake_cells)
        place, counts = (subject, "train", embedding), (count, len(train))
        numbers += [
            Number(*place, "authenticity", authentic.mean(), error, floor, *counts),
            Number(*place, "data_copying", *copying, 0.0, *counts),
        ]
    return numbers, nearest


def cell_centres(seed: int, train: np.ndarray, test_count: int) -> np.ndarray:
    """Partitions training features, float32 [n, d], by k-means: float32 [k, d].

    There is one cell per 50 test images, but at most 10; `seed` is of the initial centres.
    """
    count = min(_MAX_CELLS, max(1, test_count // _TEST_IMAGES_PER_CELL))
    first = train[random_subset(seed, 0, len(train), count, Purpose.MEMORISATION)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cell is no failure
        centres: np.ndarray = scipy.cluster.vq.kmeans2(train, first, minit="matrix")[0]
    return centres


def data_copying(
    test: np.ndarray, fake: np.ndarray, test_cells: np.ndarray, fake_cells: np.ndarray
) -> tuple[float, float]:
    """Returns the statistic C_T of a three-sample test for data copying, and its standard error.

    Meehan et al. 2020, arXiv 2004.05675, sections 3.1 and 3.2. In each cell with at least 20 test
    images and 20 fakes, Z is the standardised Mann-Whitney statistic of the distances to the
    nearest training image: negative if fakes are nearer than test images, and standard normal if
    both have the same distribution. C_T is the mean of Z weighted by the share of test images in
    the cell; the error is its standard deviation under that null hypothesis. Without a cell of
    enough images, all images form one; with fewer than 20 images of a kind, both are NaN.

    `test` and `fake` are the distances of images to their nearest training images, [m] and [l];
    `test_cells` and `fake_cells` are their nearest `cell_centres`, int [m] and [l].
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
