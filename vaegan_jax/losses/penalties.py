"""Penalties on the discriminator, terms of its loss; see `terms.GANBatch`."""

import jax
import jax.numpy as jnp

from vaegan_jax.losses.terms import GANBatch


def r1(batch: GANBatch) -> jax.Array:
    """Half the squared gradient norm of the logit at real images; the usual penalty.

    Mescheder et al. 2018, arXiv 1801.04406, equation 9, with gamma as weight.
    """
    return 0.5 * _squared_norm(_gradient(batch, batch.real))


def r2(batch: GANBatch) -> jax.Array:
    """Half the squared gradient norm of the logit at fake images; with r1, for relativistic GANs.

    Mescheder et al. 2018, arXiv 1801.04406, equation 10, with gamma as weight.
    """
    return 0.5 * _squared_norm(_gradient(batch, batch.fake))


def gradient_penalty(batch: GANBatch) -> jax.Array:
    """(|gradient| - 1)^2 between real and fake images; for the Wasserstein objective.

    Gulrajani et al. 2017, arXiv 1704.00028, equation 3, at a random point on the line between the
    images of each pair.
    """
    t = jax.random.uniform(batch.key, (len(batch.real), 1, 1, 1), batch.real.dtype)
    gradient = _gradient(batch, batch.fake + t * (batch.real - batch.fake))
    squares = _squared_norm(gradient)
    # The root has no gradient at 0; take 0. The inner `where` keeps infinities out of the backward
    # pass.
    flat = squares == 0
    norm = jnp.where(flat, 0, jnp.sqrt(jnp.where(flat, 1, squares)))
    return jnp.square(norm - 1)


def _gradient(batch: GANBatch, images: jax.Array) -> jax.Array:
    # Each logit depends on one image, so the gradient of their sum holds the gradient of each.
    gradient: jax.Array = jax.grad(lambda images: jnp.sum(batch.discriminate(images)))(images)
    return gradient


def _squared_norm(gradient: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(gradient), axis=(1, 2, 3))
