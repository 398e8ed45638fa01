"""LPIPS, a perceptual distance between images.

Zhang et al. 2018, arXiv 1801.03924, equation 1, with version 0.1 of its authors' weights: AlexNet,
their default, and linear heads, both from `alexnet.load`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from vaegan_jax import networks
from vaegan_jax.evaluation.backbones import alexnet


def distance(params: dict[str, Any], a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the perceptual distance of pairs of images, float32 [B], >= 0.

    In each layer the features of a position are normalised, and the squared differences are
    weighted by the layer's head, summed over channels and averaged over positions. The distance is
    the sum over the five layers.

    Args:
      params: from `alexnet.load`.
      a: images, float32 [B, H, W, C] in [-1, 1], C 1 or 3, H and W at least `alexnet.MIN_SIZE`.
      b: images of the same shape.
    """
    images = jnp.broadcast_to(jnp.concatenate([a, b]), (2 * len(a), *a.shape[1:3], 3))
    network, scaled = alexnet.AlexNet(), alexnet.scale(images)
    total = jnp.zeros(len(a))
    activations = networks.apply(network, params["convolutions"], scaled)
    for features, head in zip(activations, params["heads"], strict=True):
        first, second = jnp.split(alexnet.normalise(features), 2)
        weighted = jnp.square(first - second) * head[None, None, None]
        total = total + jnp.mean(jnp.sum(weighted, axis=-1), axis=(1, 2))
    return total
