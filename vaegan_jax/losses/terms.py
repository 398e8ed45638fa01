"""Terms of the losses: ``term(batch, **options)`` -> float32 [B], one number per example.

A loss adds ``weight * mean(term)``, and gradients reach the network whose loss it is. What no term
uses of its batch costs nothing: the compiler drops it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from vaegan_jax import registry
from vaegan_jax.losses.signatures import call_checked
from vaegan_jax.runtime import parallel


@dataclasses.dataclass(frozen=True)
class VAEBatch:
    """What a term of the VAE's loss sees.

    Attributes:
      images: float32 [B, H, W, C] in [-1, 1].
      logits: of the decoder, float32 [B, H, W, C].
      reconstruction: tanh(logits).
      mean: of the posterior, float32 [B, L].
      log_variance: of the posterior, float32 [B, L].
      latents: the draws from the posterior that were decoded, float32 [B, L].
      step: steps taken before this one, int32 scalar.
      key: of this term at this step.
    """

    images: jax.Array
    logits: jax.Array
    reconstruction: jax.Array
    mean: jax.Array
    log_variance: jax.Array
    latents: jax.Array
    step: jax.Array
    key: jax.Array


@dataclasses.dataclass(frozen=True)
class GANBatch:
    """What a penalty on the discriminator, or a term of the generator's loss, sees.

    Attributes:
      real: float32 [B, H, W, C] in [-1, 1]; for a penalty after augmentation.
      fake: the generator's images at `latents`; for a penalty after augmentation.
      real_logits: of the augmented real images, float32 [B].
      fake_logits: of the augmented fake images, float32 [B].
      real_features: before the discriminator's last layer, [B, H', W', C'].
      fake_features: the same for the fake images.
      discriminate: images [N, H, W, C] -> logits float32 [N], independently for each image.
      generate: latents [N, L] -> images [N, H, W, C] in [-1, 1].
      latents: float32 [B, L].
      step: steps taken before this one, int32 scalar.
      key: of this term at this step.
    """

    real: jax.Array
    fake: jax.Array
    real_logits: jax.Array
    fake_logits: jax.Array
    real_features: jax.Array
    fake_features: jax.Array
    discriminate: Callable[[jax.Array], jax.Array]
    generate: Callable[[jax.Array], jax.Array]
    latents: jax.Array
    step: jax.Array
    key: jax.Array


Batch = TypeVar("Batch", VAEBatch, GANBatch)


class Term(NamedTuple):
    """A term of a loss.

    Attributes:
      name: its name in the config, and in the metrics.
      weight: the weight of its mean over the batch.
      function: batch -> float32 [B].
      every: the interval in steps at which it is computed, and by which it is multiplied.
    """

    name: str
    weight: float
    function: Callable[..., jax.Array]
    every: int = 1


def make_terms(kind: str, text: str) -> tuple[Term, ...]:
    """Returns the terms with a weight above 0 that a field of a config names.

    `kind` is a key of `registry.TERM_OPTIONS`, the text such as
    ``"r1(weight=3, every=4), my_losses:small_logits"``.

    Raises:
      UserError: if a term cannot be loaded, or its options are wrong.
    """
    terms = []
    for call in registry.parse(text):
        weight, every = call.options.get("weight", 1.0), call.options.get("every", 1)
        if weight:
            terms.append(Term(call.name, weight, registry.bind(kind, call), every))
    return tuple(terms)


def add_terms(
    loss: jax.Array, terms: Sequence[Term], batch: Batch
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns ``loss + sum_i weight_i * every_i * mean(term_i)``, and ``every_i * mean(term_i)``.

    The loss is a scalar. All terms see the batch, each with another key.

    Raises:
      UserError: if a term raises, or returns anything other than float32 [B].
    """
    scalars = {}
    for index, (name, weight, function, every) in enumerate(terms):
        own = dataclasses.replace(batch, key=jax.random.fold_in(batch.key, index))
        values = call_checked("term", name, function, (own,), (len(batch.latents),))
        scalars[name] = every * jnp.mean(values)
        loss += weight * scalars[name]
    return loss, scalars


def mmd(batch: VAEBatch, deviation: float | None = None) -> jax.Array:
    """Squared maximum mean discrepancy between latents and prior; against unused latents.

    Zhao et al. 2017, arXiv 1706.02262 (InfoVAE), in the unbiased form of Gretton et al. 2012
    (JMLR 13), equation 3, with as many draws from the prior as images. The kernel is
    ``exp(-|x - y|^2 / (2 deviation^2))``, with a deviation of sqrt(L) unless it is set. The mean
    over the batch is the estimate, which may be negative.
    """
    latents = parallel.gather_batch(batch.latents)
    count, size = latents.shape
    prior = jax.random.normal(batch.key, latents.shape)
    scale = 2 * (size if deviation is None else deviation**2)

    def kernel(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.exp(-jnp.sum(jnp.square(x[:, None] - y[None]), axis=-1) / scale)

    def within(x: jax.Array) -> jax.Array:
        return (jnp.sum(kernel(x, x), axis=1) - 1) / max(count - 1, 1)

    return within(latents) + within(prior) - 2 * jnp.mean(kernel(latents, prior), axis=1)


def feature_matching(batch: GANBatch) -> jax.Array:
    """Squared distance of the mean features of real and fake images; for unstable training.

    Salimans et al. 2016, arXiv 1606.03498, section 3.1, with the features before the
    discriminator's last layer. All examples have the same value.
    """
    real, fake = (
        jnp.mean(features.astype(jnp.float32), axis=0)
        for features in (batch.real_features, batch.fake_features)
    )
    return jnp.full(len(batch.latents), jnp.sum(jnp.square(real - fake)))


def mode_seeking(batch: GANBatch) -> jax.Array:
    """Distance of latents over distance of their images, in pairs; against mode collapse.

    Mao et al. 2019, arXiv 1903.05628, section 3.2, whose ratio is inverted to be minimised, with
    mean absolute differences. Each latent is paired with the next one of the batch.
    """
    images, latents = (
        jnp.mean(jnp.abs(x - jnp.roll(x, 1, axis=0)), axis=tuple(range(1, x.ndim)))
        for x in (batch.fake, batch.latents)
    )
    return latents / (images + _EPSILON)


_EPSILON = 1e-5
