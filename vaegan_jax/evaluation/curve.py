"""A cheap distance to held-out images, taken as training goes on."""

import functools
from collections.abc import Callable

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import randomness
from vaegan_jax.data.images import Images
from vaegan_jax.evaluation import comparison, generation
from vaegan_jax.evaluation.embeddings import Embedding, extract
from vaegan_jax.randomness import Purpose, Stage

Measure = Callable[[optax.Params, str], dict[str, float]]


def make_curve(config: ConfigDict, data: Images, embedding: Embedding) -> Measure:
    """Returns ``measure(params of a decoder or generator, distribution) -> numbers``.

    The numbers are the embedding's Frechet and kernel distance of a few samples, always from the
    same latents, to held-out images, and the Frechet distance of as many training images, which
    is its floor.
    """
    count = config.evaluation.curve_samples
    decode = generation.make_decode(config.model, data.shape)
    distance = embedding.distance

    @functools.cache
    def reference() -> tuple[comparison.Reference, float | None]:
        """Prepares the real images, once for all stages."""
        real = comparison.reference(
            extract(embedding, data.held_out.take(np.arange(min(2 * count, len(data.held_out)))))
        )
        if len(data.train) < count:
            return real, None
        fresh = extract(embedding, data.train.take(np.arange(count)))
        return real, float(comparison.compare(real, fresh)["frechet"])

    def measure(params: optax.Params, distribution: str) -> dict[str, float]:
        real, floor = reference()
        key = randomness.draw_key(
            randomness.step_key(config.seed, Stage.EVALUATION, 0, 0), Purpose.LATENT
        )
        z = randomness.latents(key, (count, config.model.latent_size), distribution)
        found = jax.device_get(
            comparison.compare(real, extract(embedding, generation.samples(decode, params, z)))
        )
        numbers = {distance: float(found["frechet"]), embedding.kernel: float(found["kernel"])}
        return numbers if floor is None else numbers | {f"{distance}_floor": floor}

    return measure
