"""Evaluates a run: compares samples and reconstructions with real images.

They are compared with test images in the features of every embedding, and with training images to
detect copies. Metrics have a standard error and, where possible, a floor: their value for the same
number of real images.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import networks, randomness
from vaegan_jax.config.rules import MIN_SAMPLES
from vaegan_jax.data.feed import ImageArray
from vaegan_jax.data.images import Images, Split
from vaegan_jax.evaluation import distances, latents, pixels, vae_metrics
from vaegan_jax.evaluation.batches import MakeProgress, map_batches
from vaegan_jax.evaluation.embeddings import Embedding, extract
from vaegan_jax.evaluation.memorisation import copy_numbers
from vaegan_jax.evaluation.number import (
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


class Evaluation(NamedTuple):
    """The results.

    Attributes:
      numbers: all metrics.
      pairs: samples of the generator, or of the decoder if there is no generator, and their nearest
        training and test images, uint8 [n, H, W, C] each. The first half are the samples nearest to
        a training image, relative to the distance between that image and its nearest neighbour; the
        second half are the first remaining samples.
      units: the mean and the variance of the posterior means over test images, float32 [L] each, or
        None without a VAE.
    """

    numbers: list[Number]
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray]
    units: tuple[np.ndarray, np.ndarray] | None


def shortage(data: Images) -> str:
    """Returns the error message for too few images to evaluate, or an empty string."""
    counts = len(data.train), len(data.validation), len(data.test)
    if min(counts) >= MIN_SAMPLES:
        return ""
    return (
        f"An evaluation needs at least {MIN_SAMPLES} training, validation and test images, and "
        f"there are {counts[0]}, {counts[1]} and {counts[2]}: use more images, change "
        "data.held_out_one_in, or set evaluation.embeddings=none."
    )


def evaluate(
    config: ConfigDict,
    data: Images,
    models: Models,
    embeddings: Sequence[Embedding],
    progress: MakeProgress,
) -> Evaluation:
    """Evaluates the networks of a run; results are bit-identical for identical networks.

    `models` must have a decoder or a generator, and there must be at least one embedding. Copies of
    training images are searched in the first embedding.
    """
    seed, most = config.seed, config.evaluation.max_reference_images
    train, test = (
        split.take(random_subset(seed, i, len(split), most)) if most else split
        for i, split in enumerate((data.train, data.test))
    )
    count = config.evaluation.samples or min(len(data.test), _MAX_DEFAULT_SAMPLES)
    images = sample(config, data.shape, models, count, progress)
    numbers: list[Number] = []
    units = None
    if models.encoder is not None and models.decoder is not None:
        vae = {"encoder": models.encoder, "decoder": models.decoder}
        numbers, images["vae_reconstructions"], units = vae_metrics.evaluate_vae(
            config, vae, train, test, count, progress
        )
    images = {name: images[name] for name in SUBJECTS if name in images}
    numbers += _pixel_numbers(images, test)
    pairs = None
    for embedding in embeddings:
        label = f"{embedding.name} features of"
        of_train = extract(embedding, train, progress(f"{label} training images"))
        of_test = extract(embedding, test, progress(f"{label} test images"))
        features = {
            name: extract(embedding, each, progress(f"{label} {SUBJECTS[name]}"))
            for name, each in images.items()
        }
        numbers += _feature_numbers(seed, embedding, of_train, of_test, features, progress)
        if pairs is None:
            samples = {name: features[name] for name in features if name != "vae_reconstructions"}
            copies, nearest = copy_numbers(seed, embedding.name, of_train, of_test, samples)
            numbers += copies
            newest = "gan_samples" if "gan_samples" in images else "vae_samples"
            suspects = np.argsort(nearest[newest].ratio, kind="stable")[: _PAIRS // 2]
            others = np.setdiff1d(np.arange(count), suspects)[: _PAIRS // 2]
            shown = np.concatenate([suspects, others])
            _, to_test = distances.neighbours(features[newest][shown], of_test)
            rows = nearest[newest].row[shown], np.asarray(to_test)
            pairs = images[newest][shown], train[rows[0]], test[rows[1]]
            # The other embeddings need the floor's images only.
            train = train.take(random_subset(seed, 4, len(train), count))
    assert pairs is not None
    return Evaluation(numbers, pairs, units)


def sample(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    models: Models,
    count: int,
    progress: MakeProgress,
) -> dict[str, np.ndarray]:
    """Returns `count` samples of each network by subject, uint8 [N, H, W, C].

    All of them use the same key, so they are compared at the same latents.
    """
    decode = jax.jit(networks.make_decode(config.model, image_shape))
    sampled = sampled_networks(models)
    z = dict.fromkeys(sampled, _latents(config, 0, count, config.gan.noise))
    z["vae_samples"] = _latents(config, 0, count)
    if "matched_samples" in sampled:
        factor = np.asarray(models.latent_factor, np.float64)
        matched = np.asarray(models.latent_mean) + np.asarray(z["matched_samples"]) @ factor.T
        z["matched_samples"] = jnp.asarray(matched, jnp.float32)
    return {
        name: latents.decode_images(decode, params, z[name], progress(SUBJECTS[name]))
        for name, params in sampled.items()
    }


def _latents(config: ConfigDict, index: int, count: int, distribution: str = "normal") -> jax.Array:
    key = evaluation_key(config.seed, index, Purpose.LATENT)
    return randomness.latents(key, (count, config.model.latent_size), distribution)


def sampled_networks(models: Models) -> dict[str, optax.Params]:
    """Returns the parameters of the decoders and generators that are sampled, by subject."""
    factor = models.latent_factor
    # Whether the GAN started from other latents than those that the VAE samples.
    is_matched = factor is not None and bool(np.any(factor != np.eye(len(factor))))
    sampled = {
        "vae_samples": models.decoder,
        "matched_samples": models.decoder if is_matched else None,
        "gan_raw_samples": models.raw_generator,
        "gan_samples": models.generator,
    }
    return {name: params for name, params in sampled.items() if params is not None}


def _pixel_numbers(images: dict[str, np.ndarray], test: Split) -> list[Number]:
    def measure(images: ImageArray) -> Any:
        return map_batches(len(images), lambda i: pixels.artefacts(jnp.asarray(images[i])))

    floors = {name: float(values.mean()) for name, values in measure(test).items()}
    return [
        mean(subject, name, values, floors[name])
        for subject, each in images.items()
        for name, values in measure(each).items()
    ]


def _feature_numbers(
    seed: int,
    embedding: Embedding,
    train: np.ndarray,
    test: np.ndarray,
    features: dict[str, np.ndarray],
    progress: MakeProgress,
) -> list[Number]:
    """Returns the metrics of sets of images in an embedding, with errors and floors.

    Reconstructions of test images have no errors, since they are not samples. The features are
    float32: of training images [n, d], test images [m, d] and, by subject, the sets [N, d].
    """
    compare = distances.make_compare(test)

    def measure(rows: np.ndarray) -> dict[str, float]:
        return compare(rows) | {"vendi": distances.vendi(rows)}

    @functools.cache
    def floors(count: int) -> dict[str, float]:
        """Returns the metrics of `count` real images, those that there are enough images for."""
        values: dict[str, float] = {}
        if len(train) >= count:
            values |= compare(train[random_subset(seed, 4, len(train), count)])
        if len(test) >= count:
            values["vendi"] = distances.vendi(test[random_subset(seed, 5, len(test), count)])
        return values

    numbers = []
    for subject, fake in features.items():
        count = len(fake)
        errors: dict[str, float] = {}
        if subject != "vae_reconstructions":
            index = list(SUBJECTS).index(subject)
            shown = progress(f"{embedding.name} errors of {SUBJECTS[subject]}")
            errors = jackknife_error(seed, index, fake, measure, shown)
        for metric, value in measure(fake).items():
            name = f"{embedding.distance}_n{count}" if metric == "frechet" else metric
            against, real_count = ("", 0) if metric == "vendi" else ("test", len(test))
            uncertainty = errors.get(metric), floors(count).get(metric)
            place = subject, against, embedding.name, name
            numbers.append(Number(*place, value, *uncertainty, count, real_count))
    return numbers


def compare_generators(
    config: ConfigDict, data: Images, embedding: Embedding, a: optax.Params, b: optax.Params
) -> tuple[float, float]:
    """Returns how much larger the Frechet distance of generator a is, and its standard error.

    To the same validation images as that of the curve, from the same number of samples, but at
    other latents, which both share. The error is that of the difference, by the jackknife over
    pairs of samples; it does not cover other validation images.
    """
    decode = jax.jit(networks.make_decode(config.model, data.shape))
    z = _latents(config, 6, config.evaluation.curve_samples, config.gan.noise)
    real = _validation_gaussian(config, data, embedding)
    pairs = np.stack(
        [extract(embedding, latents.decode_images(decode, each, z)) for each in (a, b)], axis=1
    )

    def difference(pairs: np.ndarray) -> float:
        of_a, of_b = (distances.frechet(real, distances.gaussian(pairs[:, i])) for i in (0, 1))
        return of_a - of_b

    return difference(pairs), jackknife_error(config.seed, 6, pairs, difference)


def _validation_gaussian(
    config: ConfigDict, data: Images, embedding: Embedding
) -> distances.Gaussian:
    """Returns the Gaussian of the validation images of the curve."""
    count = min(2 * config.evaluation.curve_samples, len(data.validation))
    return distances.gaussian(extract(embedding, data.validation.take(np.arange(count))))


def make_measure(config: ConfigDict, data: Images, embeddings: Sequence[Embedding]) -> Measure:
    """Returns a function that measures distances during training.

    In every embedding, these are the Frechet distances to validation images of
    `evaluation.curve_samples` samples at fixed latents, and as a floor of as many training images.
    Non-finite values are omitted.
    """
    count = config.evaluation.curve_samples
    decode = jax.jit(networks.make_decode(config.model, data.shape))

    @functools.cache
    def reference(index: int) -> tuple[distances.Gaussian, float]:
        """Returns the reference and the floor in an embedding, computed once for both stages."""
        real = _validation_gaussian(config, data, embeddings[index])
        if len(data.train) < count:
            return real, math.nan
        train = extract(embeddings[index], data.train.take(np.arange(count)))
        return real, distances.frechet(real, distances.gaussian(train))

    def measure(params: optax.Params, distribution: str) -> dict[str, float]:
        images = latents.decode_images(decode, params, _latents(config, 2, count, distribution))
        numbers: dict[str, float] = {}
        for index, embedding in enumerate(embeddings):
            real, floor = reference(index)
            name = f"{embedding.distance}_n{count}_{embedding.name}"
            fake = distances.gaussian(extract(embedding, images))
            numbers |= {name: distances.frechet(real, fake), f"{name}_floor": floor}
        return {name: value for name, value in numbers.items() if math.isfinite(value)}

    return measure
