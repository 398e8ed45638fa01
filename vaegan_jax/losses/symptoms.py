"""Per-batch diagnostics of training failures, computed in the train step; pure functions.

`training/monitor.py` applies rules to them over many steps.
"""

import math

import jax
import jax.numpy as jnp

from vaegan_jax.runtime import parallel

ACTIVE_VARIANCE = 0.01
"""A unit is active if its posterior mean varies more than this over the data.

Burda et al. 2015, arXiv 1509.00519, section 5.2.
"""

_NEAR = 0.2
_NORMAL_QUANTILE = 2.326  # of 0.99

# Thresholds of the rules in training/monitor.py: rules of thumb, see docs/troubles.md.
MAX_AUC = 0.9999  # of the discriminator,
MIN_PAIRS = 10_000  # over at least so many pairs: fewer are often all in order by chance
MIN_GENERATOR_SLOPE = 0.02  # mean |d generator loss / d logit|
MIN_SWING = 1.0  # oscillation: the mean |logit margin| is at least this,
MAX_STEADINESS = 0.3  # and |mean logit margin| is at most this fraction of it
MAX_LOGIT = 100.0  # |mean logit|
MIN_DIVERSITY = 0.3  # relative to real images
MAX_DUPLICATES = 0.1  # fraction of pairs of fakes, minus that of real images
MIN_KL = 1.0  # nats per image
MIN_ACTIVE = 0.05  # fraction of the latent dimensions
# Blur has two thresholds, as fractions of the sharpness of real images. During training only
# severe blur calls for another config, since images get sharper with every step; the evaluation
# (evaluation/findings.py) describes a finished model, so it reports moderate blur too.
MIN_SHARPNESS_IN_TRAINING = 0.25
MIN_SHARPNESS_IN_EVALUATION = 0.6
SHARPENING = 1.2  # a generator whose sharpness has grown by this factor makes progress


def active_units(mean: jax.Array) -> jax.Array:
    """Counts the latent dimensions whose posterior mean [N, L] varies over a data set.

    Burda et al. 2015, arXiv 1509.00519, section 5.2, with the threshold `ACTIVE_VARIANCE`: a
    float32 scalar from 0 to L.
    """
    return jnp.sum(jnp.var(mean, axis=0) > ACTIVE_VARIANCE).astype(jnp.float32)


def active_units_of_batch(mean: jax.Array) -> jax.Array:
    """Counts the latent dimensions whose posterior mean [B, L] varies significantly in a batch.

    Those whose unbiased sample variance s^2 exceeds `ACTIVE_VARIANCE` by a one-sided chi-squared
    test at the level of 1 %, ``s^2 > ACTIVE_VARIANCE q / (B - 1)``, q the 99 % quantile with B - 1
    degrees of freedom in the approximation of Wilson and Hilferty 1931. So at most about 1 % of the
    inactive dimensions are counted for any batch size, whereas the sample variance of a small
    batch often exceeds that of the data set. A float32 scalar from 0 to L.
    """
    degrees = max(len(mean) - 1, 1)
    spread = 2 / (9 * degrees)
    limit = ACTIVE_VARIANCE * (1 - spread + _NORMAL_QUANTILE * math.sqrt(spread)) ** 3
    squares = jnp.sum(jnp.square(mean - jnp.mean(mean, axis=0, keepdims=True)), axis=0)
    return jnp.sum(squares / degrees > limit).astype(jnp.float32)


def auc(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """Returns the fraction of (real, fake) pairs in which the real logit is larger.

    Ties count 1/2: the area under the ROC curve, U / (B B') with the U of Mann and Whitney 1947. It
    needs no decision boundary, so it has one meaning for all objectives, and its expectation does
    not depend on the batch sizes. Inputs are float32 [B] and [B'], the result a float32 scalar.
    """
    real, fake = (parallel.gather_batch(x) for x in (real_logits, fake_logits))
    real, fake = real[:, None], fake[None]
    return jnp.mean(jnp.where(real == fake, 0.5, real > fake))


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
    flat = parallel.gather_batch(x.reshape(len(x), -1).astype(jnp.float32))
    flat -= jnp.mean(flat, axis=0, keepdims=True)
    products = jnp.matmul(flat, flat.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.sum(flat**2, axis=1)
    squared = squares[:, None] + squares[None, :] - 2 * products
    return jnp.where(jnp.eye(len(x), dtype=bool), jnp.inf, jnp.sqrt(jnp.maximum(squared, 0)))


def diversity(fake: jax.Array, real: jax.Array) -> jax.Array:
    """Returns the mean pairwise distance of fakes relative to real images: a float32 scalar.

    Inputs are [B, ...]. About 1 is expected; values near 0 indicate mode collapse.
    """
    return _mean_distance(fake) / _above_zero(_mean_distance(real))


def near_duplicates(fake: jax.Array, real: jax.Array) -> jax.Array:
    """Returns the fraction of pairs of fakes that are near duplicates, minus that of real images.

    Near duplicates are closer than 1/5 of the mean pairwise distance of real images. A generator
    that is limited to k images with equal probability scores about 1/k for any batch size, since
    pairs are counted, not images that have a duplicate (the birthday test of Arora and Zhang 2017,
    arXiv 1706.08224, needs batches of about the square root of k). This detects collapse to a few
    images; `diversity` detects collapse to a single one. Inputs are [B, ...], the result a float32
    scalar in [-1, 1].
    """
    limit = _NEAR * _mean_distance(real)
    close = [jnp.sum(distances(x) < limit) / _pairs(x) for x in (fake, real)]
    return close[0] - close[1]


def _mean_distance(x: jax.Array) -> jax.Array:
    pairwise = distances(x)
    return jnp.sum(jnp.where(jnp.isinf(pairwise), 0, pairwise)) / _pairs(x)


def _pairs(x: jax.Array) -> int:
    return max(len(x) * (len(x) - 1), 1)


def _above_zero(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 1e-12)
