"""Evaluates a run: compares samples and reconstructions with real images.

Samples of the VAE, of the matched decoder (the GAN's generator at step 0) and of the generator
(raw weights and EMA), and reconstructions of test images are compared with test images in the
features of every embedding, and with training images to detect copies. Metrics have a standard
error and, where possible, a floor: their value for the same number of real images.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import networks, randomness
from vaegan_jax.data.feed import ImageArray
from vaegan_jax.data.images import Images, Split
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation import (
    comparison,
    distances,
    feature_metrics,
    latents,
    pixels,
    vae_metrics,
)
from vaegan_jax.evaluation.batches import Progress, map_batches
from vaegan_jax.evaluation.embeddings import Embedding, extract
from vaegan_jax.evaluation.feature_metrics import RealFeatures
from vaegan_jax.evaluation.number import (
    MIN_SAMPLES,
    SUBJECTS,
    Number,
    evaluation_key,
    jackknife_error,
    mean,
    random_subset,
)
from vaegan_jax.randomness import Purpose

_MAX_DEFAULT_SAMPLES = 10_000
_PAIRS = 16

Measure = Callable[[optax.Params, str], dict[str, float]]
"""``measure(params of a decoder or generator, latent distribution) -> distances by name``."""


class Models(NamedTuple):
    """Parameters of the evaluated networks by their names in a run; None for missing networks.

    `generator` is the EMA; `latent_mean` and `latent_factor` are those of `gan.GANInit`.
    """

    encoder: optax.Params | None
    decoder: optax.Params | None
    generator: optax.Params | None
    raw_generator: optax.Params | None = None
    latent_mean: jax.Array | None = None
    latent_factor: jax.Array | None = None
    likelihood: optax.Params | None = None


class Pairs(NamedTuple):
    """Samples and their nearest real images: uint8 [n, H, W, C] each.

    The first half are the samples nearest to a training image, relative to the distance between
    that image and its nearest neighbour; the second half are the first remaining samples.
    """

    samples: np.ndarray
    train: np.ndarray
    test: np.ndarray


class Evaluation(NamedTuple):
    """The results of an evaluation.

    `pairs` are for the generator, or for the decoder if there is no generator.
    """

    numbers: list[Number]
    pairs: Pairs
    units: vae_metrics.Units | None


def require_enough(data: Images) -> None:
    """Raises a `UserError` if there are too few training or test images to evaluate."""
    counts = len(data.train), len(data.validation), len(data.test)
    if min(counts) < MIN_SAMPLES:
        raise UserError(
            f"An evaluation needs at least {MIN_SAMPLES} training, validation and test images, and "
            f"there are {counts[0]}, {counts[1]} and {counts[2]}: use more images, change "
            "data.held_out_one_in, or set evaluation.embeddings=none."
        )


def evaluate(
    config: ConfigDict,
    data: Images,
    models: Models,
    embeddings: Sequence[Embedding],
    progress: Progress,
) -> Evaluation:
    """Evaluates the networks of a run; results are bit-identical for identical networks.

    `models` must have a decoder or a generator, and there must be at least one embedding. Copies of
    training images are searched in the first embedding.
    """
    seed, most = config.seed, config.evaluation.max_reference_images
    train, test = (
        split.take(random_subset(evaluation_key(seed, i, Purpose.SUBSET), len(split), most))
        if most
        else split
        for i, split in enumerate((data.train, data.test))
    )
    count = config.evaluation.samples or min(len(data.test), _MAX_DEFAULT_SAMPLES)
    images = sample(config, data.shape, models, count, progress)
    numbers: list[Number] = []
    units = None
    if models.encoder is not None and models.decoder is not None:
        vae = {"encoder": models.encoder, "decoder": models.decoder}
        if models.likelihood is not None:
            vae["likelihood"] = models.likelihood
        result = vae_metrics.evaluate_vae(config, vae, train, test, count, progress)
        images["vae_reconstructions"], units = result.reconstructions, result.units
        numbers += result.numbers
    images = {name: images[name] for name in SUBJECTS if name in images}
    numbers += _pixel_numbers(images, test)
    pairs = None
    for embedding in embeddings:
        searches = pairs is None  # for copies, in the first embedding only
        real = feature_metrics.embed_real(seed, train, test, embedding, progress, searches)
        features = _embed_all(embedding, images, progress)
        neighbours = _nearest_training_images(features, real) if searches else {}
        numbers += feature_metrics.feature_numbers(
            seed, embedding, real, features, neighbours, progress
        )
        if searches:
            newest = "gan_samples" if "gan_samples" in images else "vae_samples"
            pairs = _nearest_pairs(neighbours[newest], features[newest], images[newest], real)
            # The other embeddings need the floor's images only.
            train = train.take(feature_metrics.floor_rows(seed, len(train), count))
    assert pairs is not None
    return Evaluation(numbers, pairs, units)


def sample(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    models: Models,
    count: int,
    progress: Progress,
) -> dict[str, np.ndarray]:
    """Returns `count` samples of each network by subject, uint8 [N, H, W, C].

    All of them use the same key, so they are compared at the same latents.
    """
    decode = jax.jit(networks.make_decode(config.model, image_shape))
    shape = (count, config.model.latent_size)
    draw = functools.partial(randomness.latents, evaluation_key(config.seed, 0, Purpose.LATENT))
    z = draw(shape, config.gan.noise)
    z_by_subject = {"vae_samples": draw(shape)}
    if _is_matched(models):
        assert models.latent_mean is not None
        assert models.latent_factor is not None
        factor = np.asarray(models.latent_factor, np.float64)
        matched = np.asarray(models.latent_mean) + np.asarray(z) @ factor.T
        z_by_subject["matched_samples"] = jnp.asarray(matched, jnp.float32)
    return {
        name: latents.decode_images(
            decode, params, z_by_subject.get(name, z), progress, SUBJECTS[name]
        )
        for name, params in sampled_networks(models).items()
    }


def sampled_networks(models: Models) -> dict[str, optax.Params]:
    """Returns the parameters of the decoders and generators that are sampled, by subject."""
    sampled = {
        "vae_samples": models.decoder,
        "matched_samples": models.decoder if _is_matched(models) else None,
        "gan_raw_samples": models.raw_generator,
        "gan_samples": models.generator,
    }
    return {name: params for name, params in sampled.items() if params is not None}


def _is_matched(models: Models) -> bool:
    """Returns whether the GAN started from other latents than those that the VAE samples."""
    if models.decoder is None or models.latent_factor is None:
        return False
    return bool(np.any(models.latent_factor != np.eye(len(models.latent_factor))))


def _pixel_numbers(images: dict[str, np.ndarray], test: Split) -> list[Number]:
    def measure(images: ImageArray) -> dict[str, np.ndarray]:
        values: dict[str, np.ndarray] = map_batches(
            len(images), lambda indices: pixels.artefacts(jnp.asarray(images[indices]))
        )
        return values

    floors = {name: float(values.mean()) for name, values in measure(test).items()}
    return [
        mean(subject, name, values, floors[name])
        for subject, each in images.items()
        for name, values in measure(each).items()
    ]


def _embed_all(
    embedding: Embedding, images: dict[str, np.ndarray], progress: Progress
) -> dict[str, np.ndarray]:
    """Returns the features of all sets, computed in one pass."""
    together = np.concatenate(list(images.values()))
    label = f"{embedding.name} features of all samples"
    features = extract(embedding, together, progress=progress, label=label)
    ends = np.cumsum([len(each) for each in images.values()])
    return dict(zip(images, np.split(features, ends[:-1]), strict=True))


def _curve_name(embedding: Embedding, metric: str, count: int) -> str:
    return f"{feature_metrics.metric_name(embedding, metric, count)}_{embedding.name}"


def _nearest_training_images(
    features: dict[str, np.ndarray], real: RealFeatures
) -> dict[str, distances.Neighbours]:
    """Returns the nearest training images of each set of samples, by subject, arrays [N]."""
    return {
        subject: jax.device_get(distances.neighbours(rows, real.train_features))
        for subject, rows in features.items()
        if subject != "vae_reconstructions"
    }


def _nearest_pairs(
    to_train: distances.Neighbours, features: np.ndarray, images: np.ndarray, real: RealFeatures
) -> Pairs:
    """Returns the most likely copies among the samples and some others, with nearest images."""
    assert real.copies is not None
    rows = np.asarray(to_train.row)
    usual = real.copies.train_nearest[rows, 0]
    by_suspicion = np.argsort(to_train.nearest / np.maximum(usual, 1e-12), kind="stable")
    suspects = by_suspicion[: _PAIRS // 2]
    others = np.setdiff1d(np.arange(len(images)), suspects)[: _PAIRS // 2]
    shown = np.concatenate([suspects, others])
    to_test = jax.device_get(distances.neighbours(features[shown], real.reference.features))
    return Pairs(images[shown], real.train[rows[shown]], real.test[to_test.row])


def compare_generators(
    config: ConfigDict, data: Images, embedding: Embedding, a: optax.Params, b: optax.Params
) -> tuple[float, float]:
    """Returns how much larger the Frechet distance of generator a is, and its standard error.

    To the same validation images as that of the curve, from the same number of samples, but at
    other latents, which both share. The error is that of the difference, by the jackknife over
    pairs of samples; it does not cover other validation images.
    """
    count = config.evaluation.curve_samples
    decode = jax.jit(networks.make_decode(config.model, data.shape))
    key = evaluation_key(config.seed, 6, Purpose.LATENT)
    z = randomness.latents(key, (count, config.model.latent_size), config.gan.noise)
    real = distances.gaussian(extract(embedding, _validation(data, count)))
    pairs = np.stack(
        [extract(embedding, latents.decode_images(decode, each, z)) for each in (a, b)], axis=1
    )

    def difference(pairs: np.ndarray) -> float:
        of_a, of_b = (distances.frechet(real, distances.gaussian(pairs[:, i])) for i in (0, 1))
        return of_a - of_b

    key = evaluation_key(config.seed, 6, Purpose.DEALING)
    return difference(pairs), jackknife_error(key, pairs, difference)


def _validation(data: Images, count: int) -> Split:
    """Returns the validation images of the curve."""
    return data.validation.take(np.arange(min(2 * count, len(data.validation))))


def make_measure(config: ConfigDict, data: Images, embeddings: Sequence[Embedding]) -> Measure:
    """Returns a function that measures distances during training.

    In every embedding, it computes the Frechet and kernel distances from
    `evaluation.curve_samples` samples at fixed latents to validation images, and as a floor the
    Frechet distance of the same number of training images. Non-finite values are omitted.
    """
    count = config.evaluation.curve_samples
    decode = jax.jit(networks.make_decode(config.model, data.shape))

    @functools.cache
    def reference(index: int) -> tuple[comparison.Reference, float]:
        """Returns the reference and the floor in an embedding, computed once for both stages."""
        real = comparison.reference(extract(embeddings[index], _validation(data, count)))
        if len(data.train) < count:
            return real, math.nan
        train = extract(embeddings[index], data.train.take(np.arange(count)))
        return real, comparison.compare(real, train)["frechet"]

    def measure(params: optax.Params, distribution: str) -> dict[str, float]:
        key = evaluation_key(config.seed, 2, Purpose.LATENT)
        z = randomness.latents(key, (count, config.model.latent_size), distribution)
        images = latents.decode_images(decode, params, z)
        numbers: dict[str, float] = {}
        for index, embedding in enumerate(embeddings):
            real, floor = reference(index)
            values = comparison.compare(real, extract(embedding, images))
            distance = _curve_name(embedding, "frechet", count)
            numbers |= {
                distance: values["frechet"],
                _curve_name(embedding, "kernel", count): values["kernel"],
                f"{distance}_floor": floor,
            }
        return {name: value for name, value in numbers.items() if math.isfinite(value)}

    return measure
