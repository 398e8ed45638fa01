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
from vaegan_jax.data.feed import ImageArray
from vaegan_jax.data.images import Images, Split
from vaegan_jax.evaluation import distances, feature_metrics, latents, pixels, vae_metrics
from vaegan_jax.evaluation.batches import Progress, map_batches
from vaegan_jax.evaluation.embeddings import Embedding, extract
from vaegan_jax.evaluation.memorisation import Nearest
from vaegan_jax.evaluation.number import (
    SUBJECTS,
    Number,
    evaluation_key,
    mean,
    random_subset,
)
from vaegan_jax.randomness import Purpose
from vaegan_jax.rules import MIN_SAMPLES

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


class Pairs(NamedTuple):
    """Samples and their nearest real images: uint8 [n, H, W, C] each.

    The first half are the samples nearest to a training image, relative to the distance between
    that image and its nearest neighbour; the second half are the first remaining samples.
    """

    samples: np.ndarray
    train: np.ndarray
    test: np.ndarray


class Evaluation(NamedTuple):
    """The results; `pairs` are of the generator, or of the decoder if there is no generator."""

    numbers: list[Number]
    pairs: Pairs
    units: vae_metrics.Units | None


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
        numbers, images["vae_reconstructions"], units = vae_metrics.evaluate_vae(
            config, vae, train, test, count, progress
        )
    images = {name: images[name] for name in SUBJECTS if name in images}
    numbers += _pixel_numbers(images, test)
    pairs = None
    for embedding in embeddings:
        label = f"{embedding.name} features of"
        train_features = extract(embedding, train, progress, f"{label} training images")
        test_features = extract(embedding, test, progress, f"{label} test images")
        features = {
            name: extract(embedding, each, progress, f"{label} {SUBJECTS[name]}")
            for name, each in images.items()
        }
        numbers += feature_metrics.feature_numbers(
            seed, embedding, train_features, test_features, features, progress
        )
        if pairs is None:
            samples = {name: features[name] for name in features if name != "vae_reconstructions"}
            copies, nearest = feature_metrics.copy_numbers(
                seed, embedding.name, train_features, test_features, samples
            )
            numbers += copies
            newest = "gan_samples" if "gan_samples" in images else "vae_samples"
            shown = _suspects(nearest[newest])
            _, to_test = distances.neighbours(features[newest][shown], test_features)
            pairs = Pairs(
                images[newest][shown],
                train[nearest[newest].row[shown]],
                test[np.asarray(to_test)],
            )
            # The other embeddings need the floor's images only.
            train = train.take(feature_metrics.floor_rows(seed, len(train), count))
    assert pairs is not None
    return Evaluation(numbers, pairs, units)


def _suspects(nearest: Nearest) -> np.ndarray:
    """Returns the rows of the most likely copies among the samples, and of as many others."""
    suspects = np.argsort(nearest.ratio, kind="stable")[: _PAIRS // 2]
    others = np.setdiff1d(np.arange(len(nearest.ratio)), suspects)[: _PAIRS // 2]
    return np.concatenate([suspects, others])


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
    z = dict.fromkeys(SUBJECTS, draw(shape, config.gan.noise)) | {"vae_samples": draw(shape)}
    if _is_matched(models):
        factor = np.asarray(models.latent_factor, np.float64)
        matched = np.asarray(models.latent_mean) + np.asarray(z["matched_samples"]) @ factor.T
        z["matched_samples"] = jnp.asarray(matched, jnp.float32)
    return {
        name: latents.decode_images(decode, params, z[name], progress, SUBJECTS[name])
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
    def measure(images: ImageArray) -> Any:
        return map_batches(len(images), lambda i: pixels.artefacts(jnp.asarray(images[i])))

    floors = {name: float(values.mean()) for name, values in measure(test).items()}
    return [
        mean(subject, name, values, floors[name])
        for subject, each in images.items()
        for name, values in measure(each).items()
    ]


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
        validation = data.validation.take(np.arange(min(2 * count, len(data.validation))))
        real = distances.gaussian(extract(embeddings[index], validation))
        if len(data.train) < count:
            return real, math.nan
        train = extract(embeddings[index], data.train.take(np.arange(count)))
        return real, distances.frechet(real, distances.gaussian(train))

    def measure(params: optax.Params, distribution: str) -> dict[str, float]:
        key = evaluation_key(config.seed, 2, Purpose.LATENT)
        z = randomness.latents(key, (count, config.model.latent_size), distribution)
        images = latents.decode_images(decode, params, z)
        numbers: dict[str, float] = {}
        for index, embedding in enumerate(embeddings):
            real, floor = reference(index)
            name = f"{feature_metrics.frechet_name(embedding, count)}_{embedding.name}"
            fake = distances.gaussian(extract(embedding, images))
            numbers |= {name: distances.frechet(real, fake), f"{name}_floor": floor}
        return {name: value for name, value in numbers.items() if math.isfinite(value)}

    return measure
