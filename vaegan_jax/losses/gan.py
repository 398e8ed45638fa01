"""GAN objectives: pairs of pure functions of the discriminator's logits.

With D = sigmoid(logits), log D = -softplus(-logits) and log(1 - D) = -softplus(logits), which
cannot overflow and needs no epsilon. Every function takes the logits of real and of fake images,
float32 [B] each, and returns a float32 scalar. Objectives that compare images pair them by index.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vaegan_jax import registry
from vaegan_jax.errors import UserError, one_line

Loss = Callable[[jax.Array, jax.Array], jax.Array]


class Objective(NamedTuple):
    """The losses of both networks.

    Attributes:
      discriminator: (real logits [B], fake logits [B]) -> scalar.
      generator: (real logits [B], fake logits [B]) -> scalar; most ignore real logits.
    """

    discriminator: Loss
    generator: Loss


def make_objective(objective: str) -> Objective:
    """Returns ``gan.objective``: an `Objective`, or what a function returns for its options.

    Raises:
      UserError: if a user's objective cannot be loaded, or is none.
    """
    (call,) = registry.parse(objective)
    value = registry.bind("objective", call)
    try:
        value = value() if callable(value) else value
    except Exception as error:  # a user's function may raise anything
        raise UserError(
            f"The objective {objective!r} cannot be made ({one_line(repr(error))}): "
            "docs/extending.md shows its form."
        ) from error
    if not isinstance(value, Objective):
        raise UserError(
            f"The objective {objective!r} must be an Objective, or a function that returns one for "
            f"its options, and is {one_line(repr(value))}."
        )
    return value


def discriminator_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """-E log D(x) - E log(1 - D(G(z))), in nats.

    Goodfellow et al. 2014, arXiv 1406.2661, equation 1, negated. It is 2 log 2 for a
    discriminator at chance.
    """
    return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))


def minimax_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """E log(1 - D(G(z))), in nats.

    Goodfellow et al. 2014, arXiv 1406.2661, equation 1. Its gradient vanishes for a
    confident discriminator.
    """
    del real
    return -jnp.mean(jax.nn.softplus(fake))


def non_saturating_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """-E log D(G(z)), in nats.

    Goodfellow et al. 2014, arXiv 1406.2661, section 3: the same fixed point, without the
    vanishing gradient.
    """
    del real
    return jnp.mean(jax.nn.softplus(-fake))


def hinge_discriminator_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))), with D the logit.

    Lim and Ye 2017, arXiv 1705.02894; Miyato et al. 2018, arXiv 1802.05957, equation 16. The
    gradient is 0 for logits beyond the margin.
    """
    return jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))


def linear_generator_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """-E D(G(z)), with D the logit; the generator loss of hinge and Wasserstein GANs.

    Miyato et al. 2018, arXiv 1802.05957, equation 17; Arjovsky et al. 2017, arXiv 1701.07875,
    algorithm 1.
    """
    del real
    return -jnp.mean(fake)


def least_squares_discriminator_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """(E (D(x) - 1)^2 + E D(G(z))^2) / 2, with D the logit.

    Mao et al. 2016, arXiv 1611.04076, equation 9, with labels 1 and 0.
    """
    return (jnp.mean(jnp.square(real - 1)) + jnp.mean(jnp.square(fake))) / 2


def least_squares_generator_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """E (D(G(z)) - 1)^2 / 2, with D the logit: Mao et al. 2016, arXiv 1611.04076, equation 9."""
    del real
    return jnp.mean(jnp.square(fake - 1)) / 2


def wasserstein_critic_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """E D(G(z)) - E D(x), with D the logit; an estimate of minus the Wasserstein-1 distance.

    Arjovsky et al. 2017, arXiv 1701.07875, equation 3. The estimate requires a 1-Lipschitz
    discriminator, which `penalties.gradient_penalty` encourages.
    """
    return jnp.mean(fake) - jnp.mean(real)


def relativistic_discriminator_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """E softplus(D(G(z)) - D(x)) over pairs, in nats, with D the logit.

    Jolicoeur-Martineau 2018, arXiv 1807.00734, the relativistic standard GAN; Huang et al. 2024,
    arXiv 2501.05441, section 2. It compares each real image with its fake, and is log 2 for a
    discriminator at chance.
    """
    return jnp.mean(jax.nn.softplus(fake - real))


def relativistic_generator_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """E softplus(D(x) - D(G(z))) over pairs, in nats: the discriminator loss, roles exchanged."""
    return jnp.mean(jax.nn.softplus(real - fake))


minimax = Objective(discriminator_loss, minimax_loss)
non_saturating = Objective(discriminator_loss, non_saturating_loss)
hinge = Objective(hinge_discriminator_loss, linear_generator_loss)
least_squares = Objective(least_squares_discriminator_loss, least_squares_generator_loss)
wasserstein = Objective(wasserstein_critic_loss, linear_generator_loss)
relativistic = Objective(relativistic_discriminator_loss, relativistic_generator_loss)
