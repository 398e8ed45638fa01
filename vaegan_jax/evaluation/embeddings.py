"""From images to features: the registry of embeddings, and the loop that applies one."""

import importlib
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from vaegan_jax import networks
from vaegan_jax.data.feed import ImageArray
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation import efflite0, inception, resizing

Embed = Callable[[Any, jax.Array], jax.Array]


class Embedding(NamedTuple):
    """What turns images into features.

    Attributes:
      name: as it stands beside every number made with it; size or way of resizing included.
      distance: what a Frechet distance in its features is called; "fid" with Inception's weights
        and the way of resizing, and with nothing else.
      embed: (params, uint8 [B, H, W, C]) -> float32 [B, d]; pure, so that it can be jitted.
      params: of the network, handed over so that no program has them built in.
      classify: (params, uint8 [B, H, W, C]) -> logits, for the Inception Score; None where there
        are none.
    """

    name: str
    distance: str
    embed: Embed
    params: Any = None
    classify: Embed | None = None


def make(name: str, size: int = 224, resize: str = "clean", weights: str = "") -> Embedding:
    """Returns an embedding by name.

    Args:
      name: "efflite0", "inception", or ``"package.module:function"`` for one of the user's own,
        a pure function uint8 [B, H, W, C] -> float32 [B, d].
      size: for efflite0, the side of the square that images are resized to.
      resize: for inception, one of `inception.RESIZES`.
      weights: for inception, its file of weights, or where that is to be downloaded to.

    Raises:
      UserError: for an unknown name, or where weights are missing.
    """
    if name == "efflite0":
        return _efflite0(size)
    if name == "inception":
        return _inception(resize, pathlib.Path(weights).expanduser())
    module, _, function = name.partition(":")
    try:
        own = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"The embedding {name!r} is unknown ({error}): use efflite0, inception, or a function "
            'of your own as "package.module:function".'
        ) from error
    return Embedding(name, f"fd_{name}", lambda _, images: own(images))


def extract(embedding: Embedding, images: ImageArray, batch_size: int = 64) -> np.ndarray:
    """Returns the features of all images: float32 [N, d].

    They are taken in batches of one size, the last one padded, so that one program serves all and
    an image's features do not depend on how many others there are.
    """
    embed, params = jax.jit(embedding.embed), jax.device_put(embedding.params)
    features = []
    for first in range(0, len(images), batch_size):
        indices = np.arange(first, first + batch_size)
        batch = images[np.minimum(indices, len(images) - 1)]
        features.append(jax.device_get(embed(params, jax.device_put(batch))))
    return np.concatenate(features)[: len(images)]


def _efflite0(size: int) -> Embedding:
    network = efflite0.EfficientNetLite0()

    def embed(params: Any, images: jax.Array) -> jax.Array:
        scaled = efflite0.scale(resizing.cubic(images, size))
        features: jax.Array = networks.apply(network, params, scaled)
        return features

    return Embedding(f"efflite0_{size}", f"fd_efflite0_{size}", embed, efflite0.load())


def _inception(resize: str, weights: pathlib.Path) -> Embedding:
    network = inception.Inception()

    def apply(params: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        results: tuple[jax.Array, jax.Array] = networks.apply(
            network, params, inception.RESIZES[resize](images)
        )
        return results

    return Embedding(
        name=f"inception_{resize}",
        distance=f"fid_{resize}",
        embed=lambda params, images: apply(params, images)[0],
        params=inception.load(weights),
        classify=lambda params, images: apply(params, images)[1],
    )
