"""Metrics in the features of an embedding: distances, variety, copies of training images."""

import functools
import math
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


class RealFeatures(NamedTuple):
    """Real images and their features, with precomputed references.

    Attributes:
      train: the training images that are searched for copies.
      test: the test images.
      train_features: float32 [n, d].
      train_nearest: squared distances to the nearest other training image, float32 [n, 1].
      reference: of the test images.
      test_neighbours: the nearest training images of the test images, arrays [m].
    """

    train: Split
    test: Split
    train_features: np.ndarray
    train_nearest: np.ndarray
    reference: comparison.Reference
    test_neighbours: distances.Neighbours


def embed_real(train: Split, test: Split, embedding: Embedding, progress: Progress) -> RealFeatures:
    """Returns the features of real images."""
    label = f"{embedding.name} features of"
    train_features, test_features = (
        extract(embedding, split, progress=progress, label=f"{label} {name} images")
        for name, split in (("training", train), ("test", test))
    )
    on_device = jax.device_put(train_features)
    return RealFeatures(
        train,
        test,
        train_features,
        jax.device_get(distances.nearest_others(on_device, 1)),
        comparison.reference(test_features),
        jax.device_get(distances.neighbours(test_features, on_device)),
    )


def floor_rows(seed: int, size: int, count: int) -> np.ndarray:
    """Returns which of `size` training images serve as the floor for `count` samples."""
    return random_subset(evaluation_key(seed, 4, Purpose.SUBSET), size, count)


def feature_numbers(
    seed: int,
    embedding: Embedding,
    real: RealFeatures,
    features: dict[str, np.ndarray],
    progress: Progress,
    copies: bool = True,
) -> list[Number]:
    """Returns the metrics of sets of images in an embedding.

    Reconstructions of test images have no errors, since they are not samples, and no metrics of
    copies.

    Args:
      seed: of the jackknife and the subsets.
      embedding: of the features.
      real: the features of real images.
      features: by subject, float32 [N, d].
      progress: see `Progress`.
      copies: whether to search for copies of training images.
    """
    test_features = np.asarray(real.reference.features)
    cells = memorisation.Cells.fit(
        evaluation_key(seed, 0, Purpose.MEMORISATION), real.train_features, test_features
    )
    authentic = memorisation.authentic(real.train_nearest, real.test_neighbours)

    @functools.cache
    def floors(count: int) -> dict[str, float]:
        """Returns the metrics of `count` real images, those that there are enough images for."""
        values = {}
        if len(real.train) >= count:
            rows = floor_rows(seed, len(real.train), count)
            values = comparison.compare(real.reference, real.train_features[rows])
        if len(real.test) >= count:
            key = evaluation_key(seed, 5, Purpose.SUBSET)
            rows = random_subset(key, len(real.test), count)
            values |= {
                "vendi": distances.vendi(test_features[rows]),
                "authenticity": float(authentic[rows].mean()),
            }
        return values

    def measure(rows: np.ndarray) -> dict[str, float]:
        return comparison.compare(real.reference, rows) | {"vendi": distances.vendi(rows)}

    numbers = []
    for index, (subject, fake) in enumerate(features.items()):
        count = len(fake)
        values, floor = measure(fake), floors(count)
        errors: dict[str, float] = {}
        if subject != "vae_reconstructions":
            key = evaluation_key(seed, index, Purpose.DEALING)
            label = f"{embedding.name} errors of {SUBJECTS[subject]}"
            errors = jackknife_error(key, fake, measure, progress=progress, label=label)
        for metric, value in values.items():
            against = "" if metric == "vendi" else "test"
            numbers.append(
                number(
                    subject,
                    against,
                    embedding.name,
                    metric_name(embedding, metric, count),
                    value,
                    errors.get(metric),
                    floor.get(metric),
                    count,
                    len(real.test) if against else 0,
                )
            )
        if copies and subject != "vae_reconstructions":
            numbers += _copies(embedding, subject, real, cells, fake, floor.get("authenticity"))
    return numbers


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
    cells: memorisation.Cells,
    fake: np.ndarray,
    floor: float | None,
) -> list[Number]:
    """Returns the metrics of copies of training images."""
    counts = len(fake), len(real.train)
    neighbours = jax.device_get(distances.neighbours(fake, real.train_features))
    authentic = memorisation.authentic(real.train_nearest, neighbours)
    copying, copying_error = memorisation.data_copying(
        np.asarray(real.test_neighbours.nearest),
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
