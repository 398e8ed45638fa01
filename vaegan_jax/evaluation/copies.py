"""Whether a generator repeats itself or its training images, in the features of an embedding.

Distances are squared; those of real images to one another come from `distances.nearest_others`,
those of fakes to real images from `distances.neighbours`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vaegan_jax.evaluation.distances import Neighbours, neighbours


class Memorisation(NamedTuple):
    """Whether fakes lie nearer to what was trained on than to what was held out.

    Attributes:
      share: of fakes whose nearest image is one of training; 0.5 where nothing is memorised.
      error: its standard error, over other fakes and over other real images.
    """

    share: jax.Array
    error: jax.Array


def memorisation(
    key: jax.Array, fake: jax.Array, train: jax.Array, held_out: jax.Array, groups: int = 10
) -> Memorisation:
    """Compares fakes' nearest training image with their nearest held-out image.

    Of the larger set only as many are drawn as the smaller one has, since among more images the
    nearest is nearer whatever was learnt. It is the comparison of Meehan et al. 2020,
    arXiv 2004.05675, section 3, as a share. Fakes that are unlike all real images may all be
    nearest to the same one, and then which side that one stands on is chance: hence the jackknife
    over real images in the error (`uncertainty.jackknife_error`).

    Args:
      key: of the draw.
      fake: float32 [m, d].
      train: float32 [n, d].
      held_out: float32 [k, d], n and k no less than the groups.
      groups: into which both sides are dealt for the error.
    """
    size = min(len(train), len(held_out)) // groups * groups

    def nearest(key: jax.Array, real: jax.Array) -> jax.Array:
        """Returns the distances to the nearest real image of each group: [groups, m]."""
        drawn = real[jax.random.choice(key, len(real), (size,), replace=False)]
        distances: jax.Array = jax.lax.map(
            lambda group: neighbours(fake, group).nearest, drawn.reshape(groups, -1, real.shape[1])
        )
        return distances

    key_train, key_held_out = jax.random.split(key)
    to_train, to_held_out = nearest(key_train, train), nearest(key_held_out, held_out)

    def share_of(kept: jax.Array) -> jax.Array:
        a, b = (
            jnp.min(jnp.where(kept[:, None], distances, jnp.inf), axis=0)
            for distances in (to_train, to_held_out)
        )
        return jnp.mean(jnp.where(a == b, 0.5, 1.0 * (a < b)))

    share = share_of(jnp.ones(groups, bool))
    without = jax.vmap(share_of)(~jnp.eye(groups, dtype=bool))
    over_real = (groups - 1) * jnp.var(without)
    over_fake = share * (1 - share) / len(fake)
    return Memorisation(share, jnp.sqrt(over_real + over_fake))


def authenticity(nearest: jax.Array, found: Neighbours) -> jax.Array:
    """Returns the share of fakes that are no copies of training images.

    A fake counts where it is further from its nearest real image than that one is from its own.
    Alaa et al. 2022, arXiv 2102.08921, section 3.3: a copy of a training image, slightly changed,
    lies nearer to it than any other training image does. Of fresh samples of the same distribution
    about half are authentic in low dimensions.

    Args:
      nearest: the training images' own distances, float32 [n, 1 or more].
      found: each fake's nearest training image.

    Returns:
      float32 scalar from 0 to 1.
    """
    return jnp.mean(found.nearest > nearest[found.row, 0])


def duplicate_rate(nearest: jax.Array, fakes: jax.Array, quantile: float = 0.01) -> jax.Array:
    """Returns the share of fakes that lie nearer to another fake than real images do to each other.

    "Nearer" is below the distance that all but a hundredth of the real images keep from their
    nearest. So fresh samples of the same distribution, as many, give 0.01; a collapsed generator
    gives up to 1.

    Args:
      nearest: the real images' own distances, float32 [n, 1 or more].
      fakes: the fakes' own distances, float32 [m, 1 or more]; more fakes lie closer together, so
        compare equal numbers.
      quantile: the share of real images that counts as too near.
    """
    return jnp.mean(fakes[:, 0] < jnp.quantile(nearest[:, 0], quantile))


def completeness(nearest: jax.Array, found: Neighbours, quantile: float = 0.95) -> jax.Array:
    """Returns the share of fakes that lie as near to real images as those do to each other.

    It asks of a latent space whether all of it decodes to something like the data: a fake counts
    where its nearest real image is within the distance that 95 % of the real images keep from
    their nearest. Fresh real images give about 0.95.

    Args:
      nearest: the real images' own distances, float32 [n, 1 or more].
      found: the nearest real image of each fake, from draws of the prior.
      quantile: of the real images' own distances.
    """
    return jnp.mean(found.nearest <= jnp.quantile(nearest[:, 0], quantile))
