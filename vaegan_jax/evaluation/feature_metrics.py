"""Metrics in the features of an embedding: distances, variety, copies of training images."""

import functools
import math

import jax
import numpy as np

from vaegan_jax.evaluation import distances, memorisation
from vaegan_jax.evaluation.batches import Progress
from vaegan_jax.evaluation.embeddings import Embedding
from vaegan_jax.evaluation.number import (
    SUBJECTS,
    Number,
    evaluation_key,
    jackknife_error,
    random_subset,
)
from vaegan_jax.randomness import Purpose


def floor_rows(seed: int, size: int, count: int) -> np.ndarray:
    """Returns which of `size` training images serve as the floor for `count` samples."""
    return random_subset(evaluation_key(seed, 4, Purpose.SUBSET), size, count)


def _test_rows(seed: int, size: int, count: int) -> np.ndarray:
    return random_subset(evaluation_key(seed, 5, Purpose.SUBSET), size, count)


def frechet_name(embedding: Embedding, count: int) -> str:
    """Returns the name of the Frechet distance of `count` images, which depends on their number.

    Only Inception's is called FID.
    """
    return f"{embedding.distance}_n{count}"


def feature_numbers(
    seed: int,
    embedding: Embedding,
    train: np.ndarray,
    test: np.ndarray,
    features: dict[str, np.ndarray],
    progress: Progress,
) -> list[Number]:
    """Returns the metrics of sets of images in an embedding, with errors and floors.

    Reconstructions of test images have no errors, since they are not samples.

    Args:
      seed: of the jackknife and the subsets.
      embedding: of the features.
      train: features of training images, float32 [n, d].
      test: features of the test images, float32 [m, d].
      features: by subject, float32 [N, d].
      progress: see `Progress`.
    """
    reference = distances.reference(test)

    def measure(rows: np.ndarray) -> dict[str, float]:
        return distances.compare(reference, rows) | {"vendi": distances.vendi(rows)}

    @functools.cache
    def floors(count: int) -> dict[str, float]:
        """Returns the metrics of `count` real images, those that there are enough images for."""
        values: dict[str, float] = {}
        if len(train) >= count:
            values |= distances.compare(reference, train[floor_rows(seed, len(train), count)])
        if len(test) >= count:
            values["vendi"] = distances.vendi(test[_test_rows(seed, len(test), count)])
        return values

    numbers = []
    for subject, fake in features.items():
        count = len(fake)
        errors: dict[str, float] = {}
        if subject != "vae_reconstructions":
            key = evaluation_key(seed, list(SUBJECTS).index(subject), Purpose.DEALING)
            label = f"{embedding.name} errors of {SUBJECTS[subject]}"
            errors = jackknife_error(key, fake, measure, progress=progress, label=label)
        for metric, value in measure(fake).items():
            name = frechet_name(embedding, count) if metric == "frechet" else metric
            against, real_count = ("", 0) if metric == "vendi" else ("test", len(test))
            uncertainty = errors.get(metric), floors(count).get(metric)
            place = subject, against, embedding.name, name
            numbers.append(Number(*place, value, *uncertainty, count, real_count))
    return numbers


def copy_numbers(
    seed: int,
    embedding: str,
    train: np.ndarray,
    test: np.ndarray,
    samples: dict[str, np.ndarray],
) -> tuple[list[Number], dict[str, memorisation.Nearest]]:
    """Returns the metrics of copies, and the nearest training images, of samples by subject.

    The features are float32: of training images [n, d], test images [m, d] and samples [N, d].
    """
    on_device = jax.device_put(train)
    usual = jax.device_get(distances.nearest_others(on_device, 1))[:, 0]
    of_test = memorisation.nearest_train(test, on_device, usual)
    centres = memorisation.cell_centres(
        evaluation_key(seed, 0, Purpose.MEMORISATION), train, len(test)
    )
    test_cells = memorisation.cells(test, centres)
    nearest = {
        subject: memorisation.nearest_train(fake, on_device, usual)
        for subject, fake in samples.items()
    }
    numbers = []
    for subject, fake in samples.items():
        count, (_, distance, ratio) = len(fake), nearest[subject]
        authentic, floor = ratio > 1, None
        if len(test) >= count:
            floor = np.mean(of_test.ratio[_test_rows(seed, len(test), count)] > 1)
        error = authentic.std(ddof=1) / math.sqrt(count)
        copying, copying_error = memorisation.data_copying(
            of_test.distance, distance, test_cells, memorisation.cells(fake, centres)
        )
        place, counts = (subject, "train", embedding), (count, len(train))
        numbers += [
            Number(*place, "authenticity", authentic.mean(), error, floor, *counts),
            Number(*place, "data_copying", copying, copying_error, 0.0, *counts),
        ]
    return numbers, nearest
