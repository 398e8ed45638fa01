"""Metrics of samples against real images in feature space: fidelity, diversity, memorisation.

Nearest-neighbour distances are squared. `nearest` denotes distances within a set, float32
[n, k >= 1], from `distances.nearest_others`; `neighbours` denotes the nearest real image of each
fake, from `distances.neighbours`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vaegan_jax.evaluation import distances
from vaegan_jax.evaluation.distances import Neighbours

NEIGHBOURS = 5
"""Number of nearest neighbours stored per reference image."""

METRICS = ("frechet", "kernel", "precision", "recall", "density", "coverage",
           "authenticity", "completeness")  # fmt: skip
"""The metrics of `compare`, in the order of the tables."""


class Reference(NamedTuple):
    """Features of real images and precomputed statistics.

    Attributes:
      features: float32 [n, d].
      gaussian: the Gaussian fitted to the features.
      nearest: squared distances to the nearest other real images, float32 [n, NEIGHBOURS].
      kernel: the mean of the cubic kernel over pairs of distinct images.
    """

    features: jax.Array
    gaussian: distances.Gaussian
    nearest: jax.Array
    kernel: jax.Array


@jax.jit
def reference(features: jax.Array) -> Reference:
    """Returns the reference of real features, float32 [n, d] with n > `NEIGHBOURS`."""
    return Reference(
        features,
        distances.gaussian(features),
        distances.nearest_others(features, NEIGHBOURS),
        distances.mean_within(distances.cubic_kernel, features),
    )


@jax.jit
def compare(real: Reference, fake: jax.Array) -> dict[str, jax.Array]:
    """Returns the `METRICS` of fake features, float32 [m, d], as float32 scalars."""
    neighbours = distances.neighbours(fake, real.features)
    cubic = distances.cubic_kernel
    between = distances.mean_between(cubic, fake, real.features)
    manifold = distances.manifold(real.features, real.nearest, fake)
    return {
        "frechet": distances.frechet(real.gaussian, distances.gaussian(fake)),
        "kernel": real.kernel + distances.mean_within(cubic, fake) - 2 * between,
        **manifold._asdict(),
        "authenticity": authenticity(real.nearest, neighbours),
        "completeness": completeness(real.nearest, neighbours),
    }


@jax.jit
def diversity(nearest: jax.Array, fake: jax.Array) -> dict[str, jax.Array]:
    """Returns `vendi` and `duplicates` of fake features, float32 [m, d], as float32 scalars.

    `nearest`, float32 [m, 1], must come from the same number of real images.
    """
    nearest_fakes = distances.nearest_others(fake, 1)
    return {"vendi": distances.vendi(fake), "duplicates": duplicate_rate(nearest, nearest_fakes)}


def authenticity(nearest: jax.Array, neighbours: Neighbours) -> jax.Array:
    """Returns the fraction of fakes that are not copies of training images.

    Alaa et al. 2022, arXiv 2102.08921, section 3.3: a fake is authentic if it is further from its
    nearest real image than that image is from its own nearest neighbour. In low dimensions about
    half of fresh samples from the data distribution are authentic.
    """
    return jnp.mean(neighbours.nearest > nearest[neighbours.row, 0])


def completeness(nearest: jax.Array, neighbours: Neighbours, quantile: float = 0.95) -> jax.Array:
    """Returns the fraction of fakes close to a real image.

    The threshold is the given quantile of the nearest-neighbour distances among real images, so
    unseen real images score about 0.95. Low values mean that parts of the latent space decode to
    images unlike the data.
    """
    return jnp.mean(neighbours.nearest <= jnp.quantile(nearest[:, 0], quantile))


def duplicate_rate(
    nearest: jax.Array, nearest_fakes: jax.Array, quantile: float = 0.01
) -> jax.Array:
    """Returns the fraction of fakes that are near duplicates of another fake.

    Near duplicates are closer than the given quantile of the nearest-neighbour distances among
    real images. Unseen real images score about 0.01, a collapsed generator up to 1. Both sets must
    have the same size, since larger sets are denser.
    """
    return jnp.mean(nearest_fakes[:, 0] < jnp.quantile(nearest[:, 0], quantile))


class Memorisation(NamedTuple):
    """A test for memorisation of the training images.

    Attributes:
      share: the fraction of fakes whose nearest real image is a training image; 0.5 without
        memorisation.
      error: the standard error of `share`, over resampled fakes and real images.
    """

    share: jax.Array
    error: jax.Array


@jax.jit
def _nearest_by_group(fake: jax.Array, groups: jax.Array) -> jax.Array:
    by_group: jax.Array = jax.lax.map(lambda real: distances.neighbours(fake, real).nearest, groups)
    return by_group


def memorisation(
    key: jax.Array, fake: jax.Array, train: jax.Array, held_out: jax.Array, groups: int = 10
) -> Memorisation:
    """Returns the fraction of fakes that are nearer to training than to held-out images.

    The test of Meehan et al. 2020, arXiv 2004.05675, section 3, as a fraction. Equal numbers of
    training and held-out images are drawn, because distances shrink with the size of the set. Fakes
    unlike all real images may share one nearest image, from a random split; the error therefore
    includes a jackknife over real images (see `number.jackknife_error`). All inputs are float32
    [n, d]; the real sets need n >= groups.
    """
    size = min(len(train), len(held_out)) // groups * groups

    def nearest(key: jax.Array, real: jax.Array) -> jax.Array:
        """Returns the distances to the nearest real image of each group: [groups, m]."""
        drawn = real[jax.random.choice(key, len(real), (size,), replace=False)]
        by_group: jax.Array = _nearest_by_group(fake, drawn.reshape(groups, -1, real.shape[1]))
        return by_group

    key_train, key_held_out = jax.random.split(key)
    to_train, to_held_out = nearest(key_train, train), nearest(key_held_out, held_out)

    def share_of(kept: jax.Array) -> jax.Array:
        a, b = (
            jnp.min(jnp.where(kept[:, None], by_group, jnp.inf), axis=0)
            for by_group in (to_train, to_held_out)
        )
        return jnp.mean(jnp.where(a == b, 0.5, 1.0 * (a < b)))

    share = share_of(jnp.ones(groups, bool))
    jackknife = jax.vmap(share_of)(~jnp.eye(groups, dtype=bool))
    over_real = (groups - 1) * jnp.var(jackknife)
    over_fake = share * (1 - share) / len(fake)
    return Memorisation(share, jnp.sqrt(over_real + over_fake))
