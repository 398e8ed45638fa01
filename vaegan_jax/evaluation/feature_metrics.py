"""Metrics in the features of an embedding: distances, variety, copies of training images."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from vaegan_jax.data.images import Split
from vaegan_jax.evaluation import comparison, distances, memorisation
from vaegan_jax.evaluation.batches import Progress
from vaegan_jax.evaluation.embeddings import Embedding, extract
from vaegan_jax.evaluation.number import (
    SUBJECTS,
    Number,
    evaluation_key,
    jackknife_error,
    number,
    random_subset,
)
from vaegan_jax.randomness import Purpose


class CopySearch(NamedTuple):
    """What a search for copies needs of the real images.

    Attributes:
      train_nearest: squared distances to the nearest other training image, float32 [n, 1].
      test_neighbours: the nearest training images of the test images, arrays [m].
      cells: a partition of the feature space.
    """

    train_nearest: np.ndarray
    test_neighbours: distances.Neighbours
    cells: memorisation.Cells


class RealFeatures(NamedTuple):
    """Real images and their features, with precomputed references.

    Attributes:
      train: training images.
      test: the test images.
      train_features: float32 [n, d].
      reference: of the test images.
      copies: to search the training images for copies, or None.
    """

    train: Split
    test: Split
    train_features: np.ndarray
    reference: comparison.Reference
    copies: CopySearch | None


def embed_real(
    seed: int,
    train: Split,
    test: Split,
    embedding: Embedding,
    progress: Progress,
    searches_copies: bool,
) -> RealFeatures:
    """Returns the features of real images."""
    label = f"{embedding.name} features of"
    train_features, test_features = (
        extract(embedding, split, progress=progress, label=f"{label} {name} images")
        for name, split in (("training", train), ("test", test))
    )
    copies = None
    if searches_copies:
        on_device = jax.device_put(train_features)
        key = evaluation_key(seed, 0, Purpose.MEMORISATION)
        copies = CopySearch(
            jax.device_get(distances.nearest_others(on_device, 1)),
            jax.device_get(distances.neighbours(test_features, on_device)),
            memorisation.Cells.fit(key, train_features, test_features),
        )
    reference = comparison.reference(test_features)
    return RealFeatures(train, test, train_features, reference, copies)


def floor_rows(seed: int, size: int, count: int) -> np.ndarray:
    """Returns which of `size` training images serve as the floor for `count` samples."""
    return random_subset(evaluation_key(seed, 4, Purpose.SUBSET), size, count)


def feature_numbers(
    seed: int,
    embedding: Embedding,
    real: RealFeatures,
    features: dict[str, np.ndarray],
    neighbours: Mapping[str, distances.Neighbours],
    progress: Progress,
) -> list[Number]:
    """Returns the metrics of sets of images in an embedding.

    Reconstructions of test images have no errors, since they are not samples, and no metrics of
    copies.

    Args:
      seed: of the jackknife and the subsets.
      embedding: of the features.
      real: the features of real images.
      features: by subject, float32 [N, d].
      neighbours: the nearest training images of sets of samples, by subject, to search for copies.
      progress: see `Progress`.
    """
    floors = {count: _floors(seed, real, count) for count in {*map(len, features.values())}}

    def measure(rows: np.ndarray) -> dict[str, float]:
        return comparison.compare(real.reference, rows) | {"vendi": distances.vendi(rows)}

    numbers = []
    for subject, fake in features.items():
        count = len(fake)
        are_samples = subject != "vae_reconstructions"
        values, floor = measure(fake), floors[count]
        errors: dict[str, float] = {}
        if are_samples:
            key = evaluation_key(seed, list(SUBJECTS).index(subject), Purpose.DEALING)
            label = f"{embedding.name} errors of {SUBJECTS[subject]}"
            errors = jackknife_error(key, fake, measure, progress=progress, label=label)
        for metric, value in values.items():
            name = metric_name(embedding, metric, count)
            against, reference_count = ("", 0) if metric == "vendi" else ("test", len(real.test))
            place = subject, against, embedding.name, name
            uncertainty = errors.get(metric), floor.get(metric)
            numbers.append(number(*place, value, *uncertainty, count, reference_count))
        if subject in neighbours:
            share_floor = floor.get("authenticity")
            numbers += _copies(embedding, subject, real, fake, neighbours[subject], share_floor)
    return numbers


def _floors(seed: int, real: RealFeatures, count: int) -> dict[str, float]:
    """Returns the metrics of `count` real images, those that there are enough images for."""
    values: dict[str, float] = {}
    if len(real.train) >= count:
        rows = floor_rows(seed, len(real.train), count)
        values = comparison.compare(real.reference, real.train_features[rows])
    if len(real.test) >= count:
        rows = random_subset(evaluation_key(seed, 5, Purpose.SUBSET), len(real.test), count)
        values["vendi"] = distances.vendi(np.asarray(real.reference.features)[rows])
        if real.copies is not None:
            train_nearest, test_neighbours, _ = real.copies
            authentic = memorisation.authentic(train_nearest, test_neighbours)
            values["authenticity"] = float(authentic[rows].mean())
    return values


def metric_name(embedding: Embedding, metric: str, count: int) -> str:
    """Returns the name of a metric of `count` images; only Inception's distances are FID and KID.

    A Frechet distance depends on the number of images, so its name has the number.
    """
    frechet, kernel = ("fid", "kid") if embedding.is_fid else ("fd", "kd")
    return {"frechet": f"{frechet}_n{count}", "kernel": kernel}.get(metric, metric)


def _copies(
    embedding: Embedding,
    subject: str,
    real: RealFeatures,
    fake: np.ndarray,
    neighbours: distances.Neighbours,
    floor: float | None,
) -> list[Number]:
    """Returns the metrics of copies of training images."""
    assert real.copies is not None
    train_nearest, test_neighbours, cells = real.copies
    counts = len(fake), len(real.train)
    authentic = memorisation.authentic(train_nearest, neighbours)
    copying, copying_error = memorisation.data_copying(
        np.asarray(test_neighbours.nearest),
        np.asarray(neighbours.nearest),
        cells.test,
        cells.assign(fake),
    )
    share, error = authentic.mean(), authentic.std(ddof=1) / math.sqrt(len(fake))
    against = subject, "train", embedding.name
    return [
        number(*against, "authenticity", share, error, floor, *counts),
        number(*against, "data_copying", copying, copying_error, 0.0, *counts),
    ]
