"""Embeddings, which map images to features, and their batched application."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import networks, registry
from vaegan_jax.data.feed import ImageArray
from vaegan_jax.errors import UserError, one_line
from vaegan_jax.evaluation import resizing
from vaegan_jax.evaluation.backbones import efflite0, inception
from vaegan_jax.evaluation.batches import Progress, map_batches, no_progress
from vaegan_jax.runtime import sources

Embed = Callable[[Any, jax.Array], jax.Array]

PIXELS_SIZE = 8


class Embedding(NamedTuple):
    """A function from images to features.

    Attributes:
      name: the name in reports, with the image size or resize mode.
      distance: the name of the Frechet distance, such as "fid_clean"; only Inception's is called
        FID.
      kernel: the name of the kernel distance, such as "kid_clean".
      embed: (params, images [B, H, W, C] in [0, 255], uint8 or float32) -> float32 [B, d]; pure.
      params: parameters of the network.
      classify: (params, images) -> logits for the Inception Score, or None.
      facts: identifying metadata, such as the hash of the weights.
    """

    name: str
    distance: str
    kernel: str
    embed: Embed
    params: Any = None
    classify: Embed | None = None
    is_fid: bool = False
    facts: dict[str, Any] = {}  # noqa: RUF012 - the default of a NamedTuple, never mutated


def make(name: str, size: int = 224, resize: str = "clean", weights: str = "") -> Embedding:
    """Returns an embedding by name.

    Args:
      name: a built-in name, or ``"package.module:function"`` for a user's pure function
        from images [B, H, W, C] in [0, 255], uint8 or float32, to float32 [B, d].
      size: the input size of efflite0, in pixels.
      resize: the resize mode of inception, a key of `inception.RESIZES`.
      weights: the path of inception's weights, downloaded if missing; defaults to a file in
        ~/.cache/vaegan_jax.

    Raises:
      UserError: if the name is unknown or the weights are missing.
    """
    function = registry.load("embedding", name)
    if not registry.is_path(name):
        embedding: Embedding = function(size, resize, weights)
        return embedding
    return Embedding(
        name,
        f"fd_{name}",
        f"kd_{name}",
        lambda _, images: function(images),
        facts={"source": sources.digests(name.partition(":")[0])},
    )


def feature_count(embedding: Embedding, image_shape: tuple[int, int, int]) -> int:
    """Returns the number of features for an image shape, by abstract evaluation.

    Raises:
      UserError: if the embedding fails, or its features are not float32 [B, d].
    """
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.uint8)
    try:
        features = jax.eval_shape(embedding.embed, embedding.params, images)
        valid = features.dtype == jnp.float32 and len(features.shape) == 2 and len(features) == 2
        result = f"{features.dtype}{list(features.shape)}"
    except Exception as error:  # a user's function may raise anything
        valid, result = False, one_line(repr(error))
    if not valid:
        raise UserError(
            f"The embedding {embedding.name} must map uint8 images {list(images.shape)} to float32 "
            f"[B, d], but gave {result}: fix it or set evaluation.embedding to another."
        )
    count: int = features.shape[1]
    return count


def extract(
    embedding: Embedding,
    images: ImageArray,
    batch_size: int = 0,
    progress: Progress = no_progress,
    label: str = "",
) -> np.ndarray:
    """Returns the features of images, uint8 [N, H, W, C]: float32 [N, d]; see `map_batches`."""
    embed, params = jax.jit(embedding.embed), jax.device_put(embedding.params)
    features: np.ndarray = map_batches(
        len(images),
        lambda indices: embed(params, jax.device_put(images[indices])),
        batch_size,
        progress,
        label,
    )
    return features


def make_efflite0(size: int, resize: str, weights: str) -> Embedding:
    """Returns the EfficientNet-Lite0 embedding; see `make`."""
    del resize, weights
    return Embedding(
        name=f"efflite0_{size}",
        distance=f"fd_efflite0_{size}",
        kernel=f"kd_efflite0_{size}",
        embed=_embed_efflite0(size),
        params=efflite0.load(),
        facts={"sha256": efflite0.SHA256, "resize": f"bicubic, antialiased, to {size}x{size}"},
    )


def make_inception(size: int, resize: str, weights: str) -> Embedding:
    """Returns the Inception embedding of the FID; see `make`."""
    del size
    embed, classify = _apply_inception(resize)
    return Embedding(
        name=f"inception_{resize}",
        distance=f"fid_{resize}",
        kernel=f"kid_{resize}",
        embed=embed,
        params=inception.load(pathlib.Path(weights or inception.DEFAULT_PATH).expanduser()),
        classify=classify,
        facts={"sha256": inception.SHA256, "resize": f"{resize}, to 299x299"},
    )


def make_pixels(size: int, resize: str, weights: str) -> Embedding:
    """Returns an embedding by average colours over a grid; see `make`."""
    del size, resize, weights
    return Embedding(
        name="pixels",
        distance="fd_pixels",
        kernel="kd_pixels",
        embed=_embed_pixels,
        facts={"resize": f"bilinear, antialiased, to {PIXELS_SIZE}x{PIXELS_SIZE}"},
    )


# The functions are cached or global, so runs of several seeds share compiled programs.


@functools.cache
def _embed_efflite0(size: int) -> Embed:
    network = efflite0.EfficientNetLite0()

    def embed(params: Any, images: jax.Array) -> jax.Array:
        scaled = efflite0.scale(resizing.cubic(images, size))
        features: jax.Array = networks.apply(network, params, scaled)
        return features

    return embed


@functools.cache
def _apply_inception(resize: str) -> tuple[Embed, Embed]:
    """Returns the functions for features and for logits."""
    network = inception.Inception()

    def apply(params: Any, images: jax.Array) -> Any:
        return networks.apply(network, params, inception.RESIZES[resize](images))

    return lambda params, images: apply(params, images)[0], lambda p, images: apply(p, images)[1]


def _embed_pixels(_: Any, images: jax.Array) -> jax.Array:
    """Averages images over an 8x8 grid: coarse colour and layout."""
    size = (len(images), PIXELS_SIZE, PIXELS_SIZE, images.shape[-1])
    cells = jax.image.resize(images.astype(jnp.float32) / 255, size, "linear", antialias=True)
    features: jax.Array = cells.reshape(len(images), -1)
    return features
