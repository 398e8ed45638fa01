"""Signs by which trouble is known, taken from one batch within a train step; pure functions.

What is made of them, over many steps, is decided in `monitor`.
"""

import jax
import jax.numpy as jnp

ACTIVE_VARIANCE = 0.01
"""A unit is active if its posterior mean varies more than this over the data.

Burda et al. 2015, arXiv 1509.00519, section 5.2.
"""

_NEAR = 0.25

# Thresholds of the rules in training/monitor.py: rules of thumb, see docs/troubles.md.
MAX_ACCURACY = 0.98  # of the discriminator
MIN_GENERATOR_SLOPE = 0.02  # mean size of the derivative of the generator's loss by a logit
MIN_SWING = 1.0  # an oscillation has a margin of the logits of at least this mean size,
MAX_STEADINESS = 0.3  # and a mean margin of at most this fraction of that size
MAX_LOGIT = 100.0  # size of a mean logit
MIN_DIVERSITY = 0.3  # of that of real images
MAX_DUPLICATES = 0.5  # fraction of a batch that nearly equals another of its images
MIN_KL = 1.0  # nats per image
MIN_ACTIVE = 0.05  # fraction of the latent dimensions
# Blur has two thresholds, as fractions of the sharpness of real images. During training only
# severe blur calls for another config, since images get sharper with every step; the evaluation
# (evaluation/findings.py) describes a finished model, so it reports moderate blur too.
MIN_SHARPNESS_IN_TRAINING = 0.25
MIN_SHARPNESS_IN_EVALUATION = 0.6


def active_units(mean: jax.Array) -> jax.Array:
    """Counts the latent dimensions whose posterior mean [B, L] varies over the batch.

    Burda et al. 2015, arXiv 1509.00519, section 5.2, with the threshold `ACTIVE_VARIANCE`: a
    float32 scalar from 0 to L.
    """
    return jnp.sum(jnp.var(mean, axis=0) > ACTIVE_VARIANCE).astype(jnp.float32)


def sharpness(images: jax.Array) -> jax.Array:
    """Returns how much fine detail images have: float [B, H, W, C] -> float32 [B].

    It is the mean square of the discrete Laplacian (four neighbours less four times the centre),
    in squared units of the images; blur takes it away first. Noise raises it, so hold it against
    that of real images.
    """
    centre = images[:, 1:-1, 1:-1]
    around = images[:, :-2, 1:-1] + images[:, 2:, 1:-1] + images[:, 1:-1, :-2] + images[:, 1:-1, 2:]
    return jnp.mean(jnp.square(around - 4 * centre), axis=(1, 2, 3))


def relative_sharpness(fake: jax.Array, real: jax.Array) -> jax.Array:
    """Returns the mean `sharpness` of fake images in units of that of real ones: a scalar."""
    return jnp.mean(sharpness(fake)) / _above_zero(jnp.mean(sharpness(real)))


def distances(x: jax.Array) -> jax.Array:
    """Returns the Euclidean distances within a batch: [B, ...] -> float32 [B, B], infinite to self.

    Taken as |x|^2 + |y|^2 - 2 xy around the batch's mean; what is nearer than about a thousandth
    of the norms is rounding error.
    """
    flat = x.reshape(len(x), -1).astype(jnp.float32)
    flat -= jnp.mean(flat, axis=0, keepdims=True)
    products = jnp.matmul(flat, flat.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.diagonal(products)
    squared = squares[:, None] + squares[None, :] - 2 * products
    return jnp.where(jnp.eye(len(x), dtype=bool), jnp.inf, jnp.sqrt(jnp.maximum(squared, 0)))


def diversity(fake: jax.Array, real: jax.Array) -> jax.Array:
    """Returns how far fakes lie apart in units of how far real ones do: a float32 scalar.

    It is the mean distance between two different ones of the batch, both [B, ...]; about 1 is as
    it should be, 0 is mode collapse.
    """
    return _mean_distance(fake) / _above_zero(_mean_distance(real))


def near_duplicates(fake: jax.Array, real: jax.Array) -> jax.Array:
    """Returns the share of fakes that nearly equal another one of their batch: a float32 scalar.

    Nearly means within a quarter of what real ones are from their nearest, on average, where all
    distances are in units of the mean distance within their batch: a few modes are seen so,
    however blurred, and `diversity` sees a single one. Both are [B, ...].
    """
    usual = jnp.mean(jnp.min(distances(real), axis=0)) / _above_zero(_mean_distance(real))
    return jnp.mean(jnp.min(distances(fake), axis=0) < _NEAR * usual * _mean_distance(fake))


def _mean_distance(x: jax.Array) -> jax.Array:
    apart = distances(x)
    total = jnp.sum(jnp.where(jnp.isinf(apart), 0, apart))
    return total / max(len(x) * (len(x) - 1), 1)


def _above_zero(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 1e-12)
