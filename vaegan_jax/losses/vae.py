"""The terms of the VAE's loss, in nats per image up to a constant.

A reconstruction term is ``term(images, logits) -> float32 [B]``, with images float32 [B, H, W, C]
in [-1, 1] and the decoder's logits of the same shape. Each is a negative log likelihood, up to a
constant, which gives the KL weight its meaning.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from vaegan_jax import registry

Reconstruction = Callable[[jax.Array, jax.Array], jax.Array]


def make_reconstruction(reconstruction: str) -> Reconstruction:
    """Returns ``vae.reconstruction``.

    Raises:
      UserError: if it cannot be loaded, or its options are wrong.
    """
    (call,) = registry.parse(reconstruction)
    term: Reconstruction = registry.bind("reconstruction", call)
    return term


def squared_error(images: jax.Array, logits: jax.Array) -> jax.Array:
    """The plain ``||x - x'||^2`` with x' = tanh(logits), summed over the image: float32 [B].

    It is -log N(x; x', s^2 I) with s^2 = 1/2, up to a constant. A KL weight of b is equivalent to a
    weight of 1 with a Gaussian of variance b/2, so it sets the precision of reconstructions (Rybkin
    et al. 2020, arXiv 2006.13202, section 3).
    """
    return jnp.sum(jnp.square(images - jnp.tanh(logits)), axis=(1, 2, 3))


def cross_entropy(images: jax.Array, logits: jax.Array) -> jax.Array:
    """Cross entropy of images scaled to [0, 1], summed over the image: float32 [B].

    With t = (x + 1) / 2 and a = 2 logits it is -t log sigmoid(a) - (1 - t) log(1 - sigmoid(a)),
    computed from the logits, so it stays finite when they saturate. For t in {0, 1} it is the
    Bernoulli likelihood (Kingma and Welling 2013, arXiv 1312.6114, equation 11); for other values
    its minimum is the entropy of t, not 0.
    """
    terms = optax.sigmoid_binary_cross_entropy(2 * logits, (images + 1) / 2)
    return jnp.sum(terms, axis=(1, 2, 3))


def laplace(images: jax.Array, logits: jax.Array) -> jax.Array:
    """The plain sum of ``|x - x'|`` with x' = tanh(logits) over the image: float32 [B].

    It is -log Laplace(x; x', 1), up to a constant. A KL weight of b is equivalent to a weight of 1
    with a Laplace density of scale b.
    """
    return jnp.sum(jnp.abs(images - jnp.tanh(logits)), axis=(1, 2, 3))


def huber(images: jax.Array, logits: jax.Array, delta: float = 0.1) -> jax.Array:
    """Sum of r^2 / 2, or delta (|r| - delta / 2) where |r| > delta, r = x - tanh(logits): [B].

    Huber 1964 (Annals of Mathematical Statistics 35): the density is normal in the middle, with
    the tails of a Laplace density. Outliers weigh less than in `squared_error`.
    """
    return jnp.sum(optax.losses.huber_loss(jnp.tanh(logits), images, delta=delta), axis=(1, 2, 3))


VARIANCE_FLOOR = 1e-6
"""Minimum variance of `gaussian`: below (2/255)^2 / 12 = 5e-6, that of rounding to 8 bits."""


def best_variance(images: jax.Array, logits: jax.Array) -> jax.Array:
    """The maximum likelihood variance of a Gaussian around x' = tanh(logits), for a batch.

    It is the mean of (x - x')^2 over the batch and all pixels and channels (Rybkin et al. 2020,
    arXiv 2006.13202, the optimal sigma-VAE), and at least `VARIANCE_FLOOR`: a float32 scalar.
    """
    mean = jnp.mean(squared_error(images, logits)) / math.prod(images.shape[1:])
    return jnp.maximum(mean, VARIANCE_FLOOR)


def gaussian(images: jax.Array, logits: jax.Array) -> jax.Array:
    """-log N(x; x', s^2 I) with x' = tanh(logits) and s^2 the `best_variance`: float32 [B].

    It is |x - x'|^2 / (2 s^2) + D/2 log(2 pi s^2) for an image of D numbers, in nats, with all
    constants, so that with a KL weight of 1 the loss bounds the log likelihood (Rybkin et al. 2020,
    arXiv 2006.13202). No gradient passes through s^2: it minimises the mean over the batch, whose
    derivative in s^2 is therefore 0 (the envelope theorem).
    """
    variance = jax.lax.stop_gradient(best_variance(images, logits))
    return gaussian_given(jnp.log(variance))(images, logits)


def gaussian_given(log_variance: jax.Array) -> Reconstruction:
    """Returns `gaussian` with a specified variance, for example a learned one.

    Rybkin et al. 2020, arXiv 2006.13202, the sigma-VAE with one variance for every pixel and
    channel. The gradient passes through its logarithm, a float32 scalar; below about -80 the
    inverse overflows.
    """

    def term(images: jax.Array, logits: jax.Array) -> jax.Array:
        constant = math.prod(images.shape[1:]) / 2 * (math.log(2 * math.pi) + log_variance)
        return 0.5 * jnp.exp(-log_variance) * squared_error(images, logits) + constant

    return term


def kl(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) per latent dimension: [B, L] -> float32 [B, L].

    Kingma and Welling 2013, arXiv 1312.6114, appendix B. Sum over L for nats per image.
    """
    return 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance)


def free_bits(kl: jax.Array, floor: float) -> jax.Array:
    """The KL of a batch with free bits: `floor` nats per latent dimension without penalty.

    Kingma et al. 2016, arXiv 1606.04934, with one group per dimension: the mean over the batch, its
    maximum with the floor, then the sum over dimensions. A floor of 0 gives exactly the mean of the
    sum. From float32 [B, L] to a scalar, nats per image.
    """
    if not floor:
        return jnp.mean(jnp.sum(kl, axis=-1))
    return jnp.sum(jnp.maximum(jnp.mean(kl, axis=0), floor))


Schedule = Callable[[jax.typing.ArrayLike, int, int, int], jax.Array]
"""``schedule(step, steps, warmup, cycles)`` -> the KL weight's factor in [0, 1], float32.

`step` starts at 0 and may be traced; `steps` is their total number; `warmup` and `cycles` belong to
the schedules that use them.
"""


def constant(step: jax.typing.ArrayLike, steps: int, warmup: int, cycles: int) -> jax.Array:
    """1 at every step."""
    del steps, warmup, cycles
    return jnp.ones(jnp.shape(step))


def linear(step: jax.typing.ArrayLike, steps: int, warmup: int, cycles: int) -> jax.Array:
    """Rises linearly from 0 at the first step to 1 after `warmup` steps.

    Sønderby et al. 2016, arXiv 1602.02282. Without warm-up it is 1 from the first step.
    """
    del cycles
    if not warmup:
        return constant(step, steps, 0, 0)
    return jnp.minimum(jnp.asarray(step, jnp.float32) / warmup, 1)


def cyclical(step: jax.typing.ArrayLike, steps: int, warmup: int, cycles: int) -> jax.Array:
    """Repeats a linear rise from 0 to 1, `cycles` times in the run.

    Fu et al. 2019, arXiv 1903.10145, with R = 1/2: it rises in the first half of each cycle and is
    1 in the second. A cycle has steps / cycles steps, rounded up.
    """
    del warmup
    length = math.ceil(steps / cycles)
    return jnp.minimum(jnp.asarray(step) % length / (length / 2), 1)
