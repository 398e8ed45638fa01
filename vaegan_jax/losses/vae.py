"""The terms of the VAE's loss, in nats per image up to a constant.

A reconstruction term is ``term(images, logits)``: images float32 [B, H, W, C] in [-1, 1], logits
of the same shape from the decoder, result float32 [B]. Each is the negative logarithm of a
likelihood, and that gives the KL weight its meaning.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax


def squared_error(images: jax.Array, logits: jax.Array) -> jax.Array:
    """The plain ``||x - x'||^2`` with x' = tanh(logits), summed over the image: float32 [B].

    It is -log N(x; x', s^2 I) with s^2 = 1/2, less a constant. A KL weight of b beside it is the
    same as a weight of 1 beside a Gaussian of variance b/2: the weight says how exact a
    reconstruction one asks for (Rybkin et al. 2020, arXiv 2006.13202, section 3).
    """
    return jnp.sum(jnp.square(images - jnp.tanh(logits)), axis=(1, 2, 3))


def cross_entropy(images: jax.Array, logits: jax.Array) -> jax.Array:
    """Cross entropy of images scaled to [0, 1], summed over the image: float32 [B].

    With t = (x + 1) / 2 and a = 2 logits it is -t log sigmoid(a) - (1 - t) log(1 - sigmoid(a)),
    which is computed from the logits and stays finite when they saturate. For t in {0, 1} it is
    the Bernoulli likelihood (Kingma and Welling 2013, arXiv 1312.6114, equation 11); for grey
    values its least value is the entropy of t, not 0.
    """
    terms = optax.sigmoid_binary_cross_entropy(2 * logits, (images + 1) / 2)
    return jnp.sum(terms, axis=(1, 2, 3))


def kl(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) per latent dimension: [B, L] -> float32 [B, L].

    Kingma and Welling 2013, arXiv 1312.6114, appendix B. Sum over L for nats per image.
    """
    return 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance)


Reconstruction = Callable[[jax.Array, jax.Array], jax.Array]

RECONSTRUCTIONS: dict[str, Reconstruction] = {
    "squared_error": squared_error,
    "cross_entropy": cross_entropy,
}
