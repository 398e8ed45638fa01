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
from vaegan_jax.evaluation.backbones import alexnet, efflite0, inception
from vaegan_jax.evaluation.batches import Progress, map_batches, no_progress
from vaegan_jax.runtime import sources

Embed = Callable[[Any, jax.Array], jax.Array]

DEFAULT_SIZES = {"efflite0": 224, "alexnet": 160}
"""Input size in pixels of an embedding without a size in its name; see docs/embeddings.md."""

PIXELS_SIZE = 8


class Embedding(NamedTuple):
    """A function from images to features.

    Attributes:
      name: the name in reports, with the input size or resize mode, such as "efflite0_224".
      embed: (params, images [B, H, W, C] in [0, 255], uint8 or float32) -> float32 [B, d]; pure.
      params: parameters of the network.
      facts: identifying metadata, such as the hash of the weights.
      is_fid: whether the Frechet distance of these features is the FID.
    """

    name: str
    embed: Embed
    params: Any = None
    facts: dict[str, Any] = {}  # noqa: RUF012 - the default of a NamedTuple, never mutated
    is_fid: bool = False


def make(name: str, weights: str = "") -> Embedding:
    """Returns an embedding by name.

    Args:
      name: a built-in name, with an input size in pixels for those in `registry.SIZED`, such as
        "efflite0" or "efflite0_128", or ``"package.module:function"`` for a user's pure function
        from images [B, H, W, C] in [0, 255], uint8 or float32, to float32 [B, d].
      weights: the path of inception's weights, downloaded if missing; defaults to a file in
        ~/.cache/vaegan_jax.

    Raises:
      UserError: if the name is unknown or the weights are missing.
    """
    kind, size = registry.split_embedding(name)
    function = registry.load("embedding", kind)
    if kind in registry.SIZED:
        sized: Embedding = function(size or DEFAULT_SIZES[kind])
        return sized
    if not registry.is_path(name):
        embedding: Embedding = function(weights)
        return embedding
    facts = {"source": sources.digests(name.partition(":")[0])}
    return Embedding(name, lambda _, images: function(images), facts=facts)


def make_all(names: str, weights: str = "") -> list[Embedding]:
    """Returns the embeddings of a comma-separated list, see `make`; an empty list for "none".

    Raises:
      UserError: if a name is unknown, weights are missing, or two embeddings are the same.
    """
    parts = [] if names == "none" else [name.strip() for name in names.split(",")]
    made = {name: make(name, weights) for name in parts}
    if len({embedding.name for embedding in made.values()}) < len(parts):
        raise UserError(f"The embeddings {names} are not all different: name each once.")
    return list(made.values())


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
            f"[B, d], but gave {result}: fix it or set evaluation.embeddings to another."
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


def make_efflite0(size: int) -> Embedding:
    """Returns the EfficientNet-Lite0 embedding at an input size, see `make`."""
    facts = {"sha256": efflite0.SHA256, "resize": _resize_fact(size)}
    return Embedding(f"efflite0_{size}", _embed_efflite0(size), efflite0.load(), facts)


def make_alexnet(size: int) -> Embedding:
    """Returns the AlexNet embedding at an input size, see `make`."""
    facts = {"sha256": alexnet.SHA256, "resize": _resize_fact(size)}
    params = alexnet.load()["convolutions"]
    return Embedding(f"alexnet_{size}", _embed_alexnet(size), params, facts)


def make_inception(weights: str) -> Embedding:
    """Returns the Inception embedding of the FID with clean-fid's resizing, see `make`."""
    params = inception.load(pathlib.Path(weights or inception.DEFAULT_PATH).expanduser())
    facts = {"sha256": inception.SHA256, "resize": _resize_fact(inception.SIZE)}
    return Embedding("inception_clean", _embed_inception, params, facts, is_fid=True)


def make_pixels(weights: str) -> Embedding:
    """Returns an embedding by average colours over a grid, see `make`."""
    del weights
    facts = {"resize": f"bilinear, antialiased, to {PIXELS_SIZE}x{PIXELS_SIZE}"}
    return Embedding("pixels", _embed_pixels, facts=facts)


def _resize_fact(size: int) -> str:
    return f"bicubic, antialiased, to {size}x{size}"


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
def _embed_alexnet(size: int) -> Embed:
    network = alexnet.AlexNet()

    def embed(params: Any, images: jax.Array) -> jax.Array:
        scaled = alexnet.scale(resizing.cubic(images, size) / 127.5 - 1)
        return alexnet.features(networks.apply(network, params, scaled))

    return embed


def _embed_inception(params: Any, images: jax.Array) -> jax.Array:
    scaled = inception.scale(resizing.cubic(images, inception.SIZE))
    features: jax.Array = networks.apply(inception.Inception(), params, scaled)
    return features


def _embed_pixels(_: Any, images: jax.Array) -> jax.Array:
    """Averages images over an 8x8 grid: coarse colour and layout."""
    cells = resizing.linear(images, PIXELS_SIZE) / 255
    return cells.reshape(len(images), -1)
