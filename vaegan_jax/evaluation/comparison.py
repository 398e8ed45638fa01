"""Everything that features say of a set of images, beside real ones and by itself."""

from typing import NamedTuple

import jax

from vaegan_jax.evaluation import copies, distances

NEIGHBOURS = 5
"""How many of its neighbours the reference knows each of its images by."""


METRICS = (
    "frechet",
    "kernel",
    "precision",
    "recall",
    "density",
    "coverage",
    "authenticity",
    "completeness",
)
"""What `compare` measures, in the order in which it is told."""


class Reference(NamedTuple):
    """Real images that others are compared with, and what need be computed only once of them.

    Attributes:
      features: float32 [n, d].
      gaussian: fitted to them.
      nearest: their squared distances to their nearest others, float32 [n, NEIGHBOURS].
      kernel: the mean of the cubic kernel over their pairs.
    """

    features: jax.Array
    gaussian: distances.Gaussian
    nearest: jax.Array
    kernel: jax.Array


@jax.jit
def reference(features: jax.Array) -> Reference:
    """Prepares real images, float32 [n, d] with n above `NEIGHBOURS`, for comparisons."""
    return Reference(
        features,
        distances.gaussian(features),
        distances.nearest_others(features, NEIGHBOURS),
        distances.mean_within(distances.cubic_kernel, features),
    )


@jax.jit
def compare(real: Reference, fake: jax.Array) -> dict[str, jax.Array]:
    """Compares fakes, float32 [m, d], with real images.

    Returns:
      float32 scalars by the names of `METRICS`.
    """
    found = distances.neighbours(fake, real.features)
    cubic = distances.cubic_kernel
    between = distances.mean_between(cubic, fake, real.features)
    manifold = distances.manifold(real.features, real.nearest, fake)
    return {
        "frechet": distances.frechet(real.gaussian, distances.gaussian(fake)),
        "kernel": real.kernel + distances.mean_within(cubic, fake) - 2 * between,
        **manifold._asdict(),
        "authenticity": copies.authenticity(real.nearest, found),
        "completeness": copies.completeness(real.nearest, found),
    }


@jax.jit
def diversity(nearest: jax.Array, fake: jax.Array) -> dict[str, jax.Array]:
    """Says how much fakes differ among themselves.

    Args:
      nearest: the distances to their nearest others of as many real images, float32 [m, 1].
      fake: float32 [m, d].

    Returns:
      float32 scalars: `vendi`, `duplicates`.
    """
    own = distances.nearest_others(fake, 1)
    return {
        "vendi": distances.vendi(fake),
        "duplicates": copies.duplicate_rate(nearest, own),
    }
