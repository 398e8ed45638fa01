"""Penalties on the discriminator: ``penalty(discriminate, real, fake, key)`` -> float32 [B].

`discriminate` maps images [B, H, W, C] to logits [B], independently for each image; `real` and
`fake` are batches of the same shape; `key` is for penalties that draw random numbers.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vaegan_jax import registry

Discriminate = Callable[[jax.Array], jax.Array]
Penalty = Callable[[Discriminate, jax.Array, jax.Array, jax.Array], jax.Array]


def r1(discriminate: Discriminate, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
    """The squared norm of the gradient of the logit at each real image: float32 [B].

    Mescheder et al. 2018, arXiv 1801.04406, equation 9, which weights its mean by gamma / 2.
    """
    del fake, key
    return _squared_norm(_gradient(discriminate, real))


def r2(discriminate: Discriminate, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
    """The squared norm of the gradient of the logit at each fake image: float32 [B].

    Mescheder et al. 2018, arXiv 1801.04406, equation 10, which weights its mean by gamma / 2.
    """
    del real, key
    return _squared_norm(_gradient(discriminate, fake))


def gradient_penalty(
    discriminate: Discriminate, real: jax.Array, fake: jax.Array, key: jax.Array
) -> jax.Array:
    """Returns (|gradient| - 1)^2 between real and fake images: float32 [B].

    Gulrajani et al. 2017, arXiv 1704.00028, equation 3, at a random point on the line between the
    images of each pair.
    """
    t = jax.random.uniform(key, (len(real), 1, 1, 1), real.dtype)
    gradient = _gradient(discriminate, fake + t * (real - fake))
    squares = _squared_norm(gradient)
    # The root has no gradient at 0; take 0. The inner `where` keeps infinities out of the backward
    # pass.
    flat = squares == 0
    norm = jnp.where(flat, 0, jnp.sqrt(jnp.where(flat, 1, squares)))
    return jnp.square(norm - 1)


def _gradient(discriminate: Discriminate, images: jax.Array) -> jax.Array:
    # Each logit depends on one image, so the gradient of their sum holds the gradient of each.
    gradient: jax.Array = jax.grad(lambda images: jnp.sum(discriminate(images)))(images)
    return gradient


def _squared_norm(gradient: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(gradient), axis=(1, 2, 3))


class Term(NamedTuple):
    """A penalty in the discriminator's loss.

    Attributes:
      name: the name of the logged scalar.
      weight: the weight of the batch mean.
      penalty: the function.
    """

    name: str
    weight: float
    penalty: Penalty


def make_terms(gan: ConfigDict) -> list[Term]:
    """Returns the penalties with a weight above 0 in the section `gan` of a config.

    The gammas of R1 and R2 are multiplied by 1/2, as in their papers.

    Raises:
      UserError: if a user's penalty cannot be loaded.
      ValueError: if the weight of R1 is automatic and not yet chosen.
    """
    if gan.r1_weight < 0:
        raise ValueError("gan.r1_weight is automatic: call recipe.resolve, or set it.")
    terms = [
        Term("r1", gan.r1_weight / 2, r1),
        Term("r2", gan.r2_weight / 2, r2),
        Term("gradient_penalty", gan.gradient_penalty_weight, gradient_penalty),
    ]
    if gan.penalty:
        penalty = registry.load("penalty", gan.penalty)
        terms.append(Term("penalty", gan.penalty_weight, penalty))
    return [term for term in terms if term.weight]
