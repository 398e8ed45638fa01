"""Whether a generator repeats itself or its training images, in the features of an embedding."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vaegan_jax.evaluation.distances import neighbours, radii


class Memorisation(NamedTuple):
    """Whether fakes lie nearer to what was trained on than to what was held out.

    Attributes:
      share: of fakes whose nearest image is one of training; 0.5 where nothing is memorised.
      error: its standard error.
      nearest: which training image is nearest to each fake, int32 [m].
      distance: how far that is, squared, float32 [m].
    """

    share: jax.Array
    error: jax.Array
    nearest: jax.Array
    distance: jax.Array


def memorisation(
    key: jax.Array, fake: jax.Array, train: jax.Array, held_out: jax.Array
) -> Memorisation:
    """Compares fakes' nearest training image with their nearest held-out image.

    As many training images are drawn as there are held-out ones, since among more images the
    nearest is nearer whatever was learnt; the pairs to be shown are from all of them. It is the
    comparison of Meehan et al. 2020, arXiv 2004.05675, section 3, as a share.

    Args:
      key: of the draw of training images.
      fake: float32 [m, d].
      train: float32 [n, d], n no less than the held-out images.
      held_out: float32 [k, d].
    """
    drawn = jax.random.choice(key, len(train), (len(held_out),), replace=False)
    to_train = neighbours(fake, train[drawn]).nearest
    to_held_out = neighbours(fake, held_out).nearest
    nearer = jnp.where(to_train == to_held_out, 0.5, 1.0 * (to_train < to_held_out))
    share = jnp.mean(nearer)
    nearest = neighbours(fake, train)
    error = jnp.sqrt(share * (1 - share) / len(fake))
    return Memorisation(share, error, nearest.row, nearest.nearest)


def duplicate_rate(real: jax.Array, fake: jax.Array, quantile: float = 0.01) -> jax.Array:
    """Returns the share of fakes that lie nearer to another fake than real images do to each other.

    "Nearer" is below the distance that all but a hundredth of the real images keep from their
    nearest. So fresh samples of the same distribution, as many, give 0.01; a collapsed generator
    gives up to 1.

    Args:
      real: float32 [n, d].
      fake: float32 [m, d]; more fakes lie closer together, so compare equal numbers.
      quantile: the share of real images that counts as too near.
    """
    limit = jnp.quantile(radii(real, 1), quantile)
    return jnp.mean(radii(fake, 1) < limit)


def completeness(real: jax.Array, fake: jax.Array, quantile: float = 0.95) -> jax.Array:
    """Returns the share of fakes that lie as near to real images as those do to each other.

    It asks of a latent space whether all of it decodes to something like the data: a fake counts
    where its nearest real image is within the distance that 95 % of the real images keep from
    their nearest. Fresh real images give about 0.95.

    Args:
      real: float32 [n, d].
      fake: float32 [m, d], from draws of the prior.
      quantile: of the real images' own distances.
    """
    limit = jnp.quantile(radii(real, 1), quantile)
    return jnp.mean(neighbours(fake, real).nearest <= limit)
