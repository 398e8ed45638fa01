"""The evaluation of a run: its samples and reconstructions compared with real images.

Three sets are judged alike: samples of the VAE's decoder, reconstructions of held-out images, and
samples of the generator. Each is compared with the training and with the held-out images. Beside
each number stand its standard error and its floor, the same number of real images in the place of
the set.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import randomness
from vaegan_jax.data.feed import ImageArray
from vaegan_jax.data.images import Images, Split
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation import (
    comparison,
    copies,
    distances,
    generation,
    judge_vae,
    latents,
    uncertainty,
    vae_quality,
)
from vaegan_jax.evaluation.batches import Watch, map_batches
from vaegan_jax.evaluation.embeddings import Embedding, extract
from vaegan_jax.evaluation.number import Number, choose, draw_key, mean, number
from vaegan_jax.randomness import Purpose

_MAX_BY_DEFAULT = 10_000
_PAIRS = 16

_LABELS = {
    "vae_samples": "VAE samples",
    "vae_reconstructions": "VAE reconstructions",
    "gan_samples": "GAN samples",
}

Tree = dict[str, dict[str, Any]]


class Models(NamedTuple):
    """The networks that are judged; None where a run has not come so far, or has none.

    Attributes:
      encoder: its parameters.
      decoder: its parameters.
      generator: the running average of its parameters.
      likelihood: the VAE's learned likelihood.
    """

    encoder: optax.Params | None
    decoder: optax.Params | None
    generator: optax.Params | None
    likelihood: optax.Params | None = None


class Pairs(NamedTuple):
    """Samples, each with the real images nearest to it: uint8 [n, H, W, C].

    The first half are those that lie nearest to a training image, for how far that one is from its
    own neighbours; the others are the first of the rest.
    """

    samples: np.ndarray
    train: np.ndarray
    held_out: np.ndarray


class Evaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
      numbers: all of them.
      pairs: nearest real images, of the samples of the generator, or else of the decoder.
      units: the latent dimensions of the VAE, where there is one.
    """

    numbers: list[Number]
    pairs: Pairs
    units: judge_vae.Units | None


class _Side(NamedTuple):
    """One side of the data: its images, their features, and what those are compared by."""

    images: Split
    features: np.ndarray
    reference: comparison.Reference


def require_enough(data: Images) -> None:
    """Checks that there are images enough to compare with.

    Raises:
      UserError: where there are not.
    """
    if min(len(data.held_out), len(data.train)) < uncertainty.MIN_SAMPLES:
        raise UserError(
            f"An evaluation needs at least {uncertainty.MIN_SAMPLES} images on either side of the "
            f"split, and there are {len(data.train)} to train on and {len(data.held_out)} held "
            "out: use more images or another data.held_out_one_in, or set "
            "evaluation.embedding=none."
        )


def evaluate(
    config: ConfigDict,
    data: Images,
    models: Models,
    embedding: Embedding,
    statistics: distances.Statistics | None,
    watch: Watch,
) -> Evaluation:
    """Evaluators the networks of a run.

    All draws follow from the seed, so the same networks give the same numbers to the last bit.

    Args:
      config: the run's config.
      data: the run's images.
      models: at least a decoder or a generator.
      embedding: in whose features images are compared.
      statistics: of other real images, to take a Frechet distance from as well.
      watch: sees all batches go by.
    """
    seed, wanted = config.seed, config.evaluation
    sides: dict[str, _Side] = {}
    for index, (name, split) in enumerate((("train", data.train), ("held_out", data.held_out))):
        most = wanted.max_reference_images or len(split)
        chosen = split.take(choose(draw_key(seed, index, Purpose.SUBSET), len(split), most))
        label = f"features of {name.replace('_', '-')} images"
        features = extract(embedding, chosen, watch=watch, label=label)
        sides[name] = _Side(chosen, features, comparison.reference(features))

    count = wanted.samples or min(len(data.held_out), _MAX_BY_DEFAULT)
    decode = generation.make_decode(config.model, data.shape)
    sources = {"vae_samples": (models.decoder, "normal"),
               "gan_samples": (models.generator, config.gan.noise)}  # fmt: skip
    sources = {name: source for name, source in sources.items() if source[0] is not None}
    sets: dict[str, np.ndarray] = {}
    for name, (params, noise) in sources.items():
        # One key: decoder and generator are judged at the same latents.
        key = draw_key(seed, 0, Purpose.LATENT)
        z = randomness.latents(key, (count, config.model.latent_size), noise)
        sets[name] = generation.samples(decode, params, z, watch, _LABELS[name])
    numbers: list[Number] = []
    units = None
    if models.encoder is not None and models.decoder is not None:
        vae = {"encoder": models.encoder, "decoder": models.decoder}
        if models.likelihood is not None:
            vae["likelihood"] = models.likelihood
        judged = judge_vae.judge(
            config, vae, sides["train"].images, sides["held_out"].images, count, watch
        )
        sets["vae_reconstructions"] = judged.reconstructions
        units = judged.units
        numbers += judged.numbers

    pairs = None
    for index, name in enumerate(_LABELS):
        if name not in sets:
            continue
        images, label = sets[name], f"features of {_LABELS[name]}"
        features = extract(embedding, images, watch=watch, label=label)
        numbers += _compare(seed, index, name, features, sides, embedding, watch)
        floor = float(_sharpness(sides["held_out"].images).mean())
        numbers.append(mean(name, "sharpness", _sharpness(images), floor))
        if statistics is not None:
            numbers.append(_from_statistics(seed, index, name, features, statistics, embedding))
        if embedding.classify is not None:
            numbers.append(_inception_score(seed, index, name, images, embedding, watch))
        if name in sources:
            pairs = _pairs(features, images, sides)
    assert pairs is not None
    for name, (params, noise) in sources.items():
        label = f"path lengths of {_LABELS[name]}"
        lengths = _path_lengths(config, params, noise, decode, embedding, watch, label)
        numbers.append(mean(name, "path_length", lengths))
    return Evaluation(numbers, pairs, units)


def _compare(
    seed: int,
    index: int,
    name: str,
    features: np.ndarray,
    sides: dict[str, _Side],
    embedding: Embedding,
    watch: Watch,
) -> list[Number]:
    """Returns a set's numbers that are taken from features, with errors and floors."""
    count = len(features)
    # As many real images of either side; the same ones for all sets of this size.
    fresh = {
        side: of_side.features[
            choose(draw_key(seed, 4 + i, Purpose.SUBSET), len(of_side.features), count)
        ]
        for i, (side, of_side) in enumerate(sides.items())
        if len(of_side.features) >= count
    }
    as_many = fresh.get("held_out", fresh.get("train"))
    nearest = None if as_many is None else distances.nearest_others(jnp.asarray(as_many), 1)

    def measure(fakes: np.ndarray) -> Tree:
        rows = jnp.asarray(fakes)
        found = {name: comparison.compare(side.reference, rows) for name, side in sides.items()}
        if nearest is not None:
            found[""] = comparison.diversity(nearest, rows)
        return found

    values: Tree = jax.device_get(measure(features))
    errors = uncertainty.jackknife_error(
        draw_key(seed, index, Purpose.DEALING),
        features,
        measure,
        watch=watch,
        label=f"errors of {_LABELS[name]}",
    )
    floors: Tree = {against: {} for against in values}
    for against, other in (("train", "held_out"), ("held_out", "train")):
        if other in fresh:
            rows = jnp.asarray(fresh[other])
            floors[against] = jax.device_get(comparison.compare(sides[against].reference, rows))
    if nearest is not None and len(fresh) == len(sides):
        floors[""] = jax.device_get(comparison.diversity(nearest, jnp.asarray(fresh["train"])))
    names = {"frechet": embedding.distance, "kernel": embedding.kernel}
    numbers = [
        number(
            name,
            against,
            names.get(metric, metric),
            values[against][metric],
            errors[against][metric],
            floors[against].get(metric),
            count,
            len(sides[against].features) if against else 0,
        )
        for against in values
        for metric in (comparison.METRICS if against else values[against])
    ]
    share, error = copies.memorisation(
        draw_key(seed, index, Purpose.MEMORISATION),
        jnp.asarray(features),
        jnp.asarray(sides["train"].features),
        jnp.asarray(sides["held_out"].features),
    )
    # Fresh images would lie as near to either side.
    numbers.append(number(name, "", "nearer_to_training", share, error, 0.5, count))
    return numbers


def _sharpness(images: ImageArray) -> np.ndarray:
    values: np.ndarray = map_batches(
        len(images), lambda indices: vae_quality.sharpness(jnp.asarray(images[indices]))
    )
    return values


def _from_statistics(
    seed: int,
    index: int,
    name: str,
    features: np.ndarray,
    statistics: distances.Statistics,
    embedding: Embedding,
) -> Number:
    """Returns the Frechet distance from stored statistics, in float64 on the host."""

    def distance(fakes: np.ndarray) -> float:
        return distances.frechet_from_statistics(statistics, distances.statistics(fakes))

    error = uncertainty.jackknife_error(
        draw_key(seed, index, Purpose.STATISTICS), features, distance
    )
    value = distance(features)
    return number(name, "statistics", embedding.distance, value, error, None, len(features))


def _inception_score(
    seed: int, index: int, name: str, images: np.ndarray, embedding: Embedding, watch: Watch
) -> Number:
    assert embedding.classify is not None
    classes = embedding._replace(embed=embedding.classify)
    logits = extract(classes, images, watch=watch, label=f"classes of {_LABELS[name]}")

    def score(rows: np.ndarray) -> jax.Array:
        return distances.inception_score(jnp.asarray(rows))[0]

    error = uncertainty.jackknife_error(
        draw_key(seed, index, Purpose.INCEPTION_SCORE), logits, score
    )
    return number(name, "", "inception_score", score(logits), error, None, len(logits))


def _pairs(features: np.ndarray, images: np.ndarray, sides: dict[str, _Side]) -> Pairs:
    """Finds the real images nearest to the most suspicious samples, and to some others."""
    train, held_out = sides["train"], sides["held_out"]
    found = jax.device_get(distances.neighbours(jnp.asarray(features), jnp.asarray(train.features)))
    own = np.asarray(train.reference.nearest)[found.row, 0]
    by_suspicion = np.argsort(found.nearest / np.maximum(own, 1e-12), kind="stable")
    suspects = by_suspicion[: _PAIRS // 2]
    others = np.setdiff1d(np.arange(len(images)), suspects)[: _PAIRS // 2]
    shown = np.concatenate([suspects, others])
    nearest = distances.neighbours(jnp.asarray(features[shown]), jnp.asarray(held_out.features))
    rows = np.asarray(jax.device_get(nearest.row))
    return Pairs(images[shown], train.images[found.row[shown]], held_out.images[rows])


def _path_lengths(
    config: ConfigDict,
    params: optax.Params,
    noise: str,
    decode: generation.Decode,
    embedding: Embedding,
    watch: Watch,
    label: str,
) -> np.ndarray:
    """Returns path lengths between random pairs of latents, through a decoder or generator."""
    shape = (2, config.evaluation.path_samples, config.model.latent_size)
    key = draw_key(config.seed, 1, Purpose.LATENT)
    start, end = randomness.latents(key, shape, noise)
    key = draw_key(config.seed, 0, Purpose.PLACE)
    places = jax.random.uniform(
        key, (config.evaluation.path_samples,), maxval=1 - latents.PATH_STEP
    )

    @jax.jit
    def lengths(
        params: optax.Params, network: Any, start: jax.Array, end: jax.Array, t: jax.Array
    ) -> jax.Array:
        def embed(z: jax.Array) -> jax.Array:
            return embedding.embed(network, (decode(params, z) + 1) * 127.5)

        return latents.path_lengths(start, end, t, embed)

    network = jax.device_put(embedding.params)
    values: np.ndarray = map_batches(
        len(places),
        lambda i: lengths(params, network, start[i], end[i], places[i]),
        watch=watch,
        label=label,
    )
    return values
