"""From images to features: the registry of embeddings, and the loop that applies one."""

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
from vaegan_jax.evaluation.batches import Watch, map_batches, unwatched
from vaegan_jax.runtime import sources

Embed = Callable[[Any, jax.Array], jax.Array]

PIXELS_SIZE = 8


class Embedding(NamedTuple):
    """What turns images into features.

    Attributes:
      name: as it stands beside every number made with it; size or way of resizing included.
      distance: what a Frechet distance in its features is called; "fid" with Inception's weights
        and the way of resizing, and with nothing else.
      kernel: the name of a kernel distance in its features, such as "kid".
      embed: (params, images [B, H, W, C] in [0, 255], uint8 or float32) -> float32 [B, d]; pure,
        so that it can be jitted.
      params: of the network, handed over so that no program has them built in.
      classify: (params, uint8 [B, H, W, C]) -> logits, for the Inception Score; None where there
        are none.
      facts: what else has to stand beside the numbers, such as the hash of the weights.
    """

    name: str
    distance: str
    kernel: str
    embed: Embed
    params: Any = None
    classify: Embed | None = None
    facts: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's default, never written to


def make(name: str, size: int = 224, resize: str = "clean", weights: str = "") -> Embedding:
    """Returns an embedding by name.

    Args:
      name: "efflite0", "inception", "pixels", or ``"package.module:function"`` for one of the
        user's own, a pure function from images [B, H, W, C] in [0, 255], uint8 or float32, to
        float32 [B, d].
      size: for efflite0, the side of the square that images are resized to.
      resize: for inception, one of `inception.RESIZES`.
      weights: for inception, its file of weights, or where that is to be downloaded to; in
        ~/.cache/vaegan_jax if empty.

    Raises:
      UserError: for an unknown name, or where weights are missing.
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
    """Returns how many features an embedding makes of an image of a shape, without computing.

    Raises:
      UserError: where it fails on them, or gives anything but float32 [B, d].
    """
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.uint8)
    try:
        features = jax.eval_shape(embedding.embed, embedding.params, images)
        fits = features.dtype == jnp.float32 and len(features.shape) == 2 and len(features) == 2
        found = f"{features.dtype}{list(features.shape)}"
    except Exception as error:  # a user's own function may raise anything
        fits, found = False, one_line(repr(error))
    if not fits:
        raise UserError(
            f"The embedding {embedding.name} must make float32 [B, d] of uint8 images "
            f"{list(images.shape)}, and gave {found}: change it, or evaluation.embedding."
        )
    count: int = features.shape[1]
    return count


def extract(
    embedding: Embedding,
    images: ImageArray,
    batch_size: int = 0,
    watch: Watch = unwatched,
    label: str = "",
) -> np.ndarray:
    """Returns the features of all images: float32 [N, d].

    Args:
      embedding: from `make`.
      images: uint8 [N, H, W, C].
      batch_size: see `batches.over`.
      watch: see `batches.over`.
      label: see `batches.over`.
    """
    embed, params = jax.jit(embedding.embed), jax.device_put(embedding.params)
    features: np.ndarray = map_batches(
        len(images),
        lambda indices: embed(params, jax.device_put(images[indices])),
        batch_size,
        watch,
        label,
    )
    return features


def make_efflite0(size: int, resize: str, weights: str) -> Embedding:
    """Returns EfficientNet-Lite0, see `make`."""
    del resize, weights
    network = efflite0.EfficientNetLite0()

    def embed(params: Any, images: jax.Array) -> jax.Array:
        scaled = efflite0.scale(resizing.cubic(images, size))
        features: jax.Array = networks.apply(network, params, scaled)
        return features

    return Embedding(
        name=f"efflite0_{size}",
        distance=f"fd_efflite0_{size}",
        kernel=f"kd_efflite0_{size}",
        embed=embed,
        params=efflite0.load(),
        facts={"sha256": efflite0.SHA256, "resize": f"bicubic, antialiased, to {size}x{size}"},
    )


def make_inception(size: int, resize: str, weights: str) -> Embedding:
    """Returns the Inception network of the FID, see `make`."""
    del size
    path = pathlib.Path(weights or inception.DEFAULT_PATH).expanduser()
    network = inception.Inception()

    def apply(params: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        results: tuple[jax.Array, jax.Array] = networks.apply(
            network, params, inception.RESIZES[resize](images)
        )
        return results

    return Embedding(
        name=f"inception_{resize}",
        distance=f"fid_{resize}",
        kernel=f"kid_{resize}",
        embed=lambda params, images: apply(params, images)[0],
        params=inception.load(path),
        classify=lambda params, images: apply(params, images)[1],
        facts={"sha256": inception.SHA256, "resize": f"{resize}, to 299x299"},
    )


def _embed_pixels(_: Any, images: jax.Array) -> jax.Array:
    """Averages images over a grid of 8x8 cells: colour and layout, and nothing finer."""
    size = (len(images), PIXELS_SIZE, PIXELS_SIZE, images.shape[-1])
    cells = jax.image.resize(images.astype(jnp.float32) / 255, size, "linear", antialias=True)
    features: jax.Array = cells.reshape(len(images), -1)
    return features


def make_pixels(size: int, resize: str, weights: str) -> Embedding:
    """Returns average colours over a grid, see `make`."""
    del size, resize, weights
    return Embedding(
        name="pixels",
        distance="fd_pixels",
        kernel="kd_pixels",
        embed=_embed_pixels,
        facts={"resize": f"bilinear, antialiased, to {PIXELS_SIZE}x{PIXELS_SIZE}"},
    )
