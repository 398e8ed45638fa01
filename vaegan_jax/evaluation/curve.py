"""A cheap distance to held-out images, measured during training."""

import functools
import math
from collections.abc import Callable

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import randomness
from vaegan_jax.data.images import Images
from vaegan_jax.evaluation import comparison, generation
from vaegan_jax.evaluation.embeddings import Embedding, extract
from vaegan_jax.evaluation.number import draw_key
from vaegan_jax.randomness import Purpose

Measure = Callable[[optax.Params, str], dict[str, float]]


def make_curve(config: ConfigDict, data: Images, embedding: Embedding) -> Measure:
    """Returns ``measure(params of a decoder or generator, distribution) -> numbers``.

    The numbers are the embedding's Frechet and kernel distance of a few samples, always from the
    same latents, to held-out images, and the Frechet distance of as many training images, which
    is its floor; those that are not finite are left out.
    """
    count = config.evaluation.curve_samples
    decode = generation.make_decode(config.model, data.shape)
    distance = embedding.distance

    @functools.cache
    def reference() -> tuple[comparison.Reference, float]:
        """Prepares the real images, once for all stages."""
        real = comparison.reference(
            extract(embedding, data.held_out.take(np.arange(min(2 * count, len(data.held_out)))))
        )
        if len(data.train) < count:
            return real, math.nan
        fresh = extract(embedding, data.train.take(np.arange(count)))
        return real, float(comparison.compare(real, fresh)["frechet"])

    def measure(params: optax.Params, distribution: str) -> dict[str, float]:
        real, floor = reference()
        key = draw_key(config.seed, 2, Purpose.LATENT)
        z = randomness.latents(key, (count, config.model.latent_size), distribution)
        found = jax.device_get(
            comparison.compare(real, extract(embedding, generation.samples(decode, params, z)))
        )
        numbers = {
            distance: float(found["frechet"]),
            embedding.kernel: float(found["kernel"]),
            f"{distance}_floor": floor,
        }
        return {name: value for name, value in numbers.items() if math.isfinite(value)}

    return measure
