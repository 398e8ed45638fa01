"""How good a VAE is as a density: bounds on the likelihood, and what its latent is used for.

All bounds are in nats per image until `bits_per_dim`; arrays of draws have them first, [K, B].
"""

import math

import jax
import jax.numpy as jnp

from vaegan_jax.losses import vae as losses

BIN_WIDTH = 2 / 255
"""Between two neighbouring grey values of images in [-1, 1]."""


def dequantise(key: jax.Array, images: jax.Array) -> jax.Array:
    """Spreads grey values evenly over their bins: images in [-1, 1] -> the same, with noise.

    Theis et al. 2015, arXiv 1511.01844, section 3.1: without it a density of grey values has no
    upper bound, with it the bound is one on the probability of the grey values.
    """
    return images + jax.random.uniform(key, images.shape, images.dtype, -0.5, 0.5) * BIN_WIDTH


def gaussian_log_likelihood(
    squared_error: jax.Array, dimensions: int, variance: jax.typing.ArrayLike
) -> jax.Array:
    """Returns log N(x; x', variance I) in nats, from ``|x - x'|^2``.

    For a VAE trained with the squared error and a KL weight b, the variance is b / 2. The variance
    under which data is likeliest is its mean squared error per dimension (Rybkin et al. 2020,
    arXiv 2006.13202, equation 4).

    Args:
      squared_error: summed over each image, float32 [...].
      dimensions: how many pixels and channels an image has.
      variance: of every one of them, a scalar.

    Returns:
      float32 [...].
    """
    return -0.5 * (squared_error / variance + dimensions * jnp.log(2 * math.pi * variance))


def log_normal(x: jax.Array, mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Returns log N(x; mean, exp(log_variance)), summed over the last axis: [..., L] -> [...]."""
    squares = (x - mean) ** 2 * jnp.exp(-log_variance)
    return -0.5 * jnp.sum(squares + log_variance + math.log(2 * math.pi), axis=-1)


def elbo(log_likelihood: jax.Array, mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Returns the evidence lower bound of each image, its KL term in closed form.

    Kingma and Welling 2013, arXiv 1312.6114, equation 7.

    Args:
      log_likelihood: log p(x|z) of K draws of z from the posterior, float32 [K, B].
      mean: the posterior's, float32 [B, L].
      log_variance: the posterior's, float32 [B, L].

    Returns:
      float32 [B], nats.
    """
    return jnp.mean(log_likelihood, axis=0) - jnp.sum(losses.kl(mean, log_variance), axis=-1)


def iwae(
    log_likelihood: jax.Array, z: jax.Array, mean: jax.Array, log_variance: jax.Array
) -> jax.Array:
    """Returns the importance-weighted bound of each image; it rises with K towards log p(x).

    Burda et al. 2015, arXiv 1509.00519, equation 8.

    Args:
      log_likelihood: log p(x|z), float32 [K, B].
      z: the draws, float32 [K, B, L].
      mean: the posterior's, float32 [B, L].
      log_variance: the posterior's, float32 [B, L].

    Returns:
      float32 [B], nats.
    """
    prior = log_normal(z, jnp.zeros_like(z), jnp.zeros_like(z))
    posterior = log_normal(z, mean[None], log_variance[None])
    weights = log_likelihood + prior - posterior
    return jax.nn.logsumexp(weights, axis=0) - math.log(len(weights))


def bits_per_dim(bound: jax.Array, dimensions: int) -> jax.Array:
    """Returns bits per pixel and channel from a bound in nats on dequantised images in [-1, 1].

    A grey value's bin is 2/255 wide, so that the density's bits are short by log2(255/2) = 6.99 of
    those of the grey value.
    """
    return -bound / (dimensions * math.log(2)) - math.log2(BIN_WIDTH)
