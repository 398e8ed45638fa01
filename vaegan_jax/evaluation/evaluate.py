"""Evaluates a run: compares samples and reconstructions with real images.

Decoder samples, reconstructions of held-out images and generator samples are each compared with
training and held-out images. Every metric has a standard error and, where possible, a floor: its
value for the same number of real images.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import networks, randomness
from vaegan_jax.data.feed import ImageArray
from vaegan_jax.data.images import Images, Split
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation import comparison, distances, latents, vae_metrics
from vaegan_jax.evaluation.batches import Progress, map_batches
from vaegan_jax.evaluation.embeddings import Embed, Embedding, extract
from vaegan_jax.evaluation.number import (
    MIN_SAMPLES,
    SUBJECTS,
    Number,
    evaluation_key,
    jackknife_error,
    mean,
    number,
    random_subset,
)
from vaegan_jax.randomness import Purpose

_MAX_DEFAULT_SAMPLES = 10_000
_PAIRS = 16

Measure = Callable[[optax.Params, str], dict[str, float]]
"""``measure(params of a decoder or generator, latent distribution) -> distances by name``."""

_Values = dict[str, dict[str, Any]]
"""Metric values by reference set ("" for none) and name."""


class Models(NamedTuple):
    """Parameters of the evaluated networks (EMA for the generator); None for missing networks."""

    encoder: optax.Params | None
    decoder: optax.Params | None
    generator: optax.Params | None
    likelihood: optax.Params | None = None


class Pairs(NamedTuple):
    """Samples and their nearest real images: uint8 [n, H, W, C] each.

    The first half are the samples nearest to a training image, relative to the distance between
    that image and its nearest neighbour; the second half are the first remaining samples.
    """

    samples: np.ndarray
    train: np.ndarray
    held_out: np.ndarray


class Evaluation(NamedTuple):
    """The results of an evaluation.

    `pairs` are for the generator, or for the decoder if there is no generator.
    """

    numbers: list[Number]
    pairs: Pairs
    units: vae_metrics.Units | None


class _RealSet(NamedTuple):
    """Real images, their features, and the reference computed from the features."""

    images: Split
    features: np.ndarray
    reference: comparison.Reference


class _Context(NamedTuple):
    """Shared inputs of an evaluation; `real` has the keys "train" and "held_out"."""

    config: ConfigDict
    real: dict[str, _RealSet]
    embedding: Embedding
    statistics: distances.Statistics | None
    progress: Progress


def require_enough(data: Images) -> None:
    """Raises a `UserError` if there are too few images of a split to evaluate."""
    counts = [len(split) for split in (data.train, data.validation, data.test)]
    if min(counts) < MIN_SAMPLES:
        raise UserError(
            f"An evaluation needs at least {MIN_SAMPLES} training, validation and test images, and "
            "there are {}, {} and {}: use more images, change data.held_out_one_in, or set "
            "evaluation.embedding=none.".format(*counts)
        )


def evaluate(
    config: ConfigDict,
    data: Images,
    models: Models,
    embedding: Embedding,
    statistics: distances.Statistics | None,
    progress: Progress,
) -> Evaluation:
    """Evaluates the networks of a run; results are bit-identical for identical networks.

    `models` must have a decoder or a generator. If `statistics` are given, the Frechet distance to
    them is computed too.
    """
    context = _Context(
        config, _real_sets(config, data, embedding, progress), embedding, statistics, progress
    )
    count = config.evaluation.samples or min(len(data.test), _MAX_DEFAULT_SAMPLES)
    decode = jax.jit(networks.make_decode(config.model, data.shape))
    sources = {
        name: (params, noise)
        for name, params, noise in (
            ("vae_samples", models.decoder, "normal"),
            ("gan_samples", models.generator, config.gan.noise),
        )
        if params is not None
    }
    images = {}
    for name, (params, noise) in sources.items():
        # Decoder and generator share the key, so they are compared at the same latents.
        key = evaluation_key(config.seed, 0, Purpose.LATENT)
        z = randomness.latents(key, (count, config.model.latent_size), noise)
        images[name] = latents.decode_images(decode, params, z, progress, SUBJECTS[name])

    numbers: list[Number] = []
    units = None
    if models.encoder is not None and models.decoder is not None:
        vae = {"encoder": models.encoder, "decoder": models.decoder}
        if models.likelihood is not None:
            vae["likelihood"] = models.likelihood
        train, held_out = (context.real[name].images for name in ("train", "held_out"))
        result = vae_metrics.evaluate_vae(config, vae, train, held_out, count, progress)
        images["vae_reconstructions"], units = result.reconstructions, result.units
        numbers += result.numbers

    features = {}
    for index, name in enumerate(SUBJECTS):
        if name in images:
            label = f"features of {SUBJECTS[name]}"
            features[name] = extract(embedding, images[name], progress=progress, label=label)
            numbers += _set_numbers(context, index, name, images[name], features[name])
    newest = list(sources)[-1]
    pairs = _nearest_pairs(features[newest], images[newest], context.real)
    for name, (params, noise) in sources.items():
        numbers.append(_path_length(context, name, params, noise))
    return Evaluation(numbers, pairs, units)


def _real_sets(
    config: ConfigDict, data: Images, embedding: Embedding, progress: Progress
) -> dict[str, _RealSet]:
    sets = {}
    for index, (name, split) in enumerate((("train", data.train), ("held_out", data.test))):
        count = config.evaluation.max_reference_images or len(split)
        key = evaluation_key(config.seed, index, Purpose.SUBSET)
        chosen = split.take(random_subset(key, len(split), count))
        label = f"features of {name.replace('_', '-')} images"
        features = extract(embedding, chosen, progress=progress, label=label)
        sets[name] = _RealSet(chosen, features, comparison.reference(features))
    return sets


def _set_numbers(
    context: _Context, index: int, name: str, images: np.ndarray, features: np.ndarray
) -> list[Number]:
    """Returns the metrics of a set of images; `index` gives each set its own PRNG keys."""
    floor = float(_sharpness(context.real["held_out"].images).mean())
    numbers = [
        *_comparison_numbers(context, index, name, features),
        _memorisation(context, index, name, features),
        mean(name, "sharpness", _sharpness(images), floor),
    ]
    if context.statistics is not None:
        numbers.append(_statistics_distance(context, index, name, features))
    if context.embedding.classify is not None:
        numbers.append(_inception_score(context, index, name, images))
    return numbers


def _comparison_numbers(
    context: _Context, index: int, name: str, features: np.ndarray
) -> list[Number]:
    """Returns the metrics of features against both real sets, and the diversity metrics."""
    real, count, seed = context.real, len(features), context.config.seed
    # Real images for the floors, shared by all evaluated sets of this size.
    equal = {
        key: real_set.features[
            random_subset(
                evaluation_key(seed, 4 + i, Purpose.SUBSET), len(real_set.features), count
            )
        ]
        for i, (key, real_set) in enumerate(real.items())
        if len(real_set.features) >= count
    }
    diverse = equal.get("held_out", equal.get("train"))
    nearest = None if diverse is None else distances.nearest_others(jnp.asarray(diverse), 1)

    def measure(rows: np.ndarray) -> _Values:
        fake = jnp.asarray(rows)
        values = {key: comparison.compare(part.reference, fake) for key, part in real.items()}
        if nearest is not None:
            values[""] = comparison.diversity(nearest, fake)
        return values

    values: _Values = jax.device_get(measure(features))
    key = evaluation_key(seed, index, Purpose.DEALING)
    label = f"errors of {SUBJECTS[name]}"
    errors = jackknife_error(key, features, measure, progress=context.progress, label=label)
    floors: _Values = {against: {} for against in values}
    for against, other in (("train", "held_out"), ("held_out", "train")):
        if other in equal:
            fake = jnp.asarray(equal[other])
            floors[against] = jax.device_get(comparison.compare(real[against].reference, fake))
    if nearest is not None and len(equal) == len(real):
        floors[""] = jax.device_get(comparison.diversity(nearest, jnp.asarray(equal["train"])))
    names = {"frechet": context.embedding.distance, "kernel": context.embedding.kernel}
    return [
        number(
            name,
            against,
            names.get(metric, metric),
            values[against][metric],
            errors[against][metric],
            floors[against].get(metric),
            count,
            len(real[against].features) if against else 0,
        )
        for against in values
        for metric in (comparison.METRICS if against else values[against])
    ]


def _memorisation(context: _Context, index: int, name: str, features: np.ndarray) -> Number:
    train, held_out = (jnp.asarray(real.features) for real in context.real.values())
    key = evaluation_key(context.config.seed, index, Purpose.MEMORISATION)
    share, error = comparison.memorisation(key, jnp.asarray(features), train, held_out)
    return number(name, "", "nearer_to_training", share, error, 0.5, len(features))


def _sharpness(images: ImageArray) -> np.ndarray:
    values: np.ndarray = map_batches(
        len(images), lambda indices: vae_metrics.sharpness(jnp.asarray(images[indices]))
    )
    return values


def _statistics_distance(context: _Context, index: int, name: str, features: np.ndarray) -> Number:
    """Returns the Frechet distance from stored statistics, in float64 on the host."""
    statistics = context.statistics
    assert statistics is not None

    def distance(rows: np.ndarray) -> float:
        return distances.frechet_from_statistics(statistics, distances.statistics(rows))

    key = evaluation_key(context.config.seed, index, Purpose.STATISTICS)
    value, error = distance(features), jackknife_error(key, features, distance)
    metric = context.embedding.distance
    return number(name, "statistics", metric, value, error, None, len(features))


def _inception_score(context: _Context, index: int, name: str, images: np.ndarray) -> Number:
    embedding = context.embedding
    assert embedding.classify is not None
    classifier = embedding._replace(embed=embedding.classify)
    label = f"classes of {SUBJECTS[name]}"
    logits = extract(classifier, images, progress=context.progress, label=label)

    def score(rows: np.ndarray) -> jax.Array:
        return distances.inception_score(jnp.asarray(rows))

    key = evaluation_key(context.config.seed, index, Purpose.INCEPTION_SCORE)
    error = jackknife_error(key, logits, score)
    return number(name, "", "inception_score", score(logits), error, None, len(logits))


def _nearest_pairs(features: np.ndarray, images: np.ndarray, real: dict[str, _RealSet]) -> Pairs:
    """Returns the most likely copies among the samples and some others, with nearest images."""
    train, held_out = real["train"], real["held_out"]
    to_train = jax.device_get(
        distances.neighbours(jnp.asarray(features), jnp.asarray(train.features))
    )
    usual = np.asarray(train.reference.nearest)[to_train.row, 0]
    by_suspicion = np.argsort(to_train.nearest / np.maximum(usual, 1e-12), kind="stable")
    suspects = by_suspicion[: _PAIRS // 2]
    others = np.setdiff1d(np.arange(len(images)), suspects)[: _PAIRS // 2]
    shown = np.concatenate([suspects, others])
    to_held_out = jax.device_get(
        distances.neighbours(jnp.asarray(features[shown]), jnp.asarray(held_out.features))
    )
    return Pairs(images[shown], train.images[to_train.row[shown]], held_out.images[to_held_out.row])


def _path_length(context: _Context, name: str, params: optax.Params, noise: str) -> Number:
    """Returns the mean perceptual path length between random pairs of latents."""
    model, held_out = context.config.model, context.real["held_out"]
    seed, count = context.config.seed, context.config.evaluation.path_samples
    shape = (2, count, model.latent_size)
    start, end = randomness.latents(evaluation_key(seed, 1, Purpose.LATENT), shape, noise)
    key = evaluation_key(seed, 0, Purpose.PLACE)
    t = jax.random.uniform(key, (count,), maxval=1 - latents.PATH_STEP)

    decode = networks.make_decode(model, held_out.images.image_shape)
    lengths = _make_lengths(decode, context.embedding.embed)
    network = jax.device_put(context.embedding.params)
    values: np.ndarray = map_batches(
        count,
        lambda i: lengths(params, network, start[i], end[i], t[i]),
        progress=context.progress,
        label=f"path lengths of {SUBJECTS[name]}",
    )
    return mean(name, "path_length", values)


@functools.cache
def _make_lengths(decode: Callable[..., jax.Array], embed: Embed) -> Callable[..., jax.Array]:
    @jax.jit
    def lengths(
        params: optax.Params, network: Any, start: jax.Array, end: jax.Array, t: jax.Array
    ) -> jax.Array:
        def embed_decoded(z: jax.Array) -> jax.Array:
            return embed(network, (decode(params, z) + 1) * 127.5)

        return latents.path_lengths(start, end, t, embed_decoded)

    return lengths


def make_measure(config: ConfigDict, data: Images, embedding: Embedding) -> Measure:
    """Returns a function that measures distances during training.

    It computes the Frechet and kernel distances from `evaluation.curve_samples` samples at fixed
    latents to validation images, and as a floor the Frechet distance of the same number of training
    images. Non-finite values are omitted.
    """
    count = config.evaluation.curve_samples
    decode = jax.jit(networks.make_decode(config.model, data.shape))
    distance = embedding.distance

    @functools.cache
    def reference() -> tuple[comparison.Reference, float]:
        """Returns the validation reference and the floor, computed once for both stages."""
        validation = data.validation.take(np.arange(min(2 * count, len(data.validation))))
        real = comparison.reference(extract(embedding, validation))
        if len(data.train) < count:
            return real, math.nan
        train = extract(embedding, data.train.take(np.arange(count)))
        return real, float(comparison.compare(real, train)["frechet"])

    def measure(params: optax.Params, distribution: str) -> dict[str, float]:
        real, floor = reference()
        key = evaluation_key(config.seed, 2, Purpose.LATENT)
        z = randomness.latents(key, (count, config.model.latent_size), distribution)
        features = extract(embedding, latents.decode_images(decode, params, z))
        values = jax.device_get(comparison.compare(real, features))
        numbers = {
            distance: float(values["frechet"]),
            embedding.kernel: float(values["kernel"]),
            f"{distance}_floor": floor,
        }
        return {name: value for name, value in numbers.items() if math.isfinite(value)}

    return measure
