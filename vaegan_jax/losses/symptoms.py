"""Per-batch diagnostics of training failures, computed in the train step; pure functions.

`training/monitor.py` applies rules to them over many steps.
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
MIN_GENERATOR_SLOPE = 0.02  # mean |d generator loss / d logit|
MIN_SWING = 1.0  # oscillation: the mean |logit margin| is at least this,
MAX_STEADINESS = 0.3  # and |mean logit margin| is at most this fraction of it
MAX_LOGIT = 100.0  # |mean logit|
MIN_DIVERSITY = 0.3  # relative to real images
MAX_DUPLICATES = 0.5  # fraction of near duplicates in a batch
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
    """Returns the mean square of the discrete Laplacian: float [B, H, W, C] -> float32 [B].

    The Laplacian is the sum of four neighbours minus four times the centre; the result has squared
    pixel units. Blur lowers it and noise raises it, so compare it with that of real images.
    """
    centre = images[:, 1:-1, 1:-1]
    around = images[:, :-2, 1:-1] + images[:, 2:, 1:-1] + images[:, 1:-1, :-2] + images[:, 1:-1, 2:]
    return jnp.mean(jnp.square(around - 4 * centre), axis=(1, 2, 3))


def relative_sharpness(fake: jax.Array, real: jax.Array) -> jax.Array:
    """Returns the mean `sharpness` of fake images relative to real images: a scalar."""
    return jnp.mean(sharpness(fake)) / _above_zero(jnp.mean(sharpness(real)))


def distances(x: jax.Array) -> jax.Array:
    """Returns pairwise Euclidean distances: [B, ...] -> float32 [B, B] with an infinite diagonal.

    Computed as |x|^2 + |y|^2 - 2 xy after centring the batch; distances below about 1/1000 of the
    norms are dominated by rounding errors.
    """
    flat = x.reshape(len(x), -1).astype(jnp.float32)
    flat -= jnp.mean(flat, axis=0, keepdims=True)
    products = jnp.matmul(flat, flat.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.diagonal(products)
    squared = squares[:, None] + squares[None, :] - 2 * products
    return jnp.where(jnp.eye(len(x), dtype=bool), jnp.inf, jnp.sqrt(jnp.maximum(squared, 0)))


def diversity(fake: jax.Array, real: jax.Array) -> jax.Array:
    """Returns the mean pairwise distance of fakes relative to real images: a float32 scalar.

    Inputs are [B, ...]. About 1 is expected; values near 0 indicate mode collapse.
    """
    return _mean_distance(fake) / _above_zero(_mean_distance(real))


def near_duplicates(fake: jax.Array, real: jax.Array) -> jax.Array:
    """Returns the fraction of fakes with a near duplicate in the batch: a float32 scalar.

    Near duplicates are closer than 1/4 of the mean nearest-neighbour distance of real images, with
    distances normalised by the mean pairwise distance of each batch. This detects collapse to a few
    modes even with blur; `diversity` detects collapse to a single mode. Inputs are [B, ...].
    """
    usual = jnp.mean(jnp.min(distances(real), axis=0)) / _above_zero(_mean_distance(real))
    return jnp.mean(jnp.min(distances(fake), axis=0) < _NEAR * usual * _mean_distance(fake))


def _mean_distance(x: jax.Array) -> jax.Array:
    pairwise = distances(x)
    total = jnp.sum(jnp.where(jnp.isinf(pairwise), 0, pairwise))
    return total / max(len(x) * (len(x) - 1), 1)


def _above_zero(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 1e-12)
