"""From images to features: the registry of embeddings, and the loop that applies one."""

import functools
import importlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import networks
from vaegan_jax.data.feed import ImageArray
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation import efflite0

Embed = Callable[[jax.Array], jax.Array]


class Embedding(NamedTuple):
    """What turns images into features.

    Attributes:
      name: as it stands beside every number made with it, input size included.
      embed: uint8 [B, H, W, C] -> float32 [B, d]; pure, so that it can be jitted.
    """

    name: str
    embed: Embed


def make(name: str, size: int) -> Embedding:
    """Returns an embedding by name.

    Args:
      name: one of `EMBEDDINGS`, or ``"package.module:function"`` for one of the user's own, a
        pure function uint8 [B, H, W, C] -> float32 [B, d].
      size: the side of the square that images are resized to; a user's function does as it likes.

    Raises:
      UserError: for a name that is neither, or where weights are missing.
    """
    if name in EMBEDDINGS:
        return Embedding(f"{name}_{size}", EMBEDDINGS[name](size))
    module, _, function = name.partition(":")
    try:
        embed: Embed = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"The embedding {name!r} is unknown ({error}): use {' or '.join(EMBEDDINGS)}, or a "
            'function as "package.module:function".'
        ) from error
    return Embedding(name, embed)


def to_rgb_square(images: jax.Array, size: int) -> jax.Array:
    """Resizes images as clean-fid does: cubic (a = -0.5), antialiased when shrinking, clipped.

    Parmar et al. 2022, arXiv 2104.11222, section 4: Pillow's bicubic filter on floats.

    Args:
      images: uint8 [B, H, W, C]; one channel is repeated.
      size: the side of the result, whatever the shape of the images.

    Returns:
      float32 [B, size, size, 3] in [0, 255].
    """
    images = jnp.broadcast_to(images, (*images.shape[:-1], 3)).astype(jnp.float32)
    shape = (len(images), size, size, 3)
    resized = jax.image.resize(
        images, shape, "cubic", antialias=True, precision=jax.lax.Precision.HIGHEST
    )
    return jnp.clip(resized, 0, 255)


def extract(embedding: Embedding, images: ImageArray, batch_size: int = 64) -> np.ndarray:
    """Returns the features of all images: float32 [N, d].

    They are taken in batches of one size, the last one padded, so that one program serves all and
    an image's features do not depend on how many others there are.
    """
    embed = jax.jit(embedding.embed)
    features = []
    for first in range(0, len(images), batch_size):
        indices = np.arange(first, first + batch_size)
        batch = images[np.minimum(indices, len(images) - 1)]
        features.append(jax.device_get(embed(jax.device_put(batch))))
    return np.concatenate(features)[: len(images)]


def _make_efflite0(size: int) -> Embed:
    params = jax.device_put(efflite0.load())
    network = efflite0.EfficientNetLite0()

    def embed(params: dict[str, object], images: jax.Array) -> jax.Array:
        scaled = efflite0.scale(to_rgb_square(images, size))
        features: jax.Array = networks.apply(network, params, scaled)
        return features

    return functools.partial(embed, params)


EMBEDDINGS: dict[str, Callable[[int], Embed]] = {"efflite0": _make_efflite0}
