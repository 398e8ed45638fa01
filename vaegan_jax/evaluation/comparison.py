"""Metrics of samples against real images in feature space: fidelity and diversity.

Nearest-neighbour distances are squared. `nearest` denotes distances within a set, float32
[n, k >= 1], from `distances.nearest_others`.
"""

from typing import NamedTuple

import jax
import numpy as np

from vaegan_jax.evaluation import distances

NEIGHBOURS = 5
"""Number of nearest neighbours stored per reference image."""

METRICS = ("frechet", "kernel", "precision", "recall", "density", "coverage")
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


def reference(features: np.ndarray) -> Reference:
    """Returns the reference of real features, float32 [n, d] with n > `NEIGHBOURS`."""
    on_device = jax.device_put(features)
    return Reference(
        on_device,
        distances.gaussian(features),
        distances.nearest_others(on_device, NEIGHBOURS),
        distances.mean_within(distances.cubic_kernel, on_device),
    )


def compare(real: Reference, fake: np.ndarray) -> dict[str, float]:
    """Returns the `METRICS` of fake features, float32 [m, d]."""
    distance = distances.frechet(real.gaussian, distances.gaussian(fake))
    others = jax.device_get(_compare(real.features, real.nearest, real.kernel, fake))
    return {"frechet": distance} | {name: float(value) for name, value in others.items()}


@jax.jit
def _compare(
    real: jax.Array, nearest: jax.Array, kernel: jax.Array, fake: jax.Array
) -> dict[str, jax.Array]:
    cubic = distances.cubic_kernel
    between = distances.mean_between(cubic, fake, real)
    return {
        "kernel": kernel + distances.mean_within(cubic, fake) - 2 * between,
        **distances.manifold(real, nearest, fake)._asdict(),
    }
