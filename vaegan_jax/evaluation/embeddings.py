"""Embeddings, which map images to features, and their batched application."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import registry
from vaegan_jax.data.feed import ImageArray
from vaegan_jax.errors import UserError, one_line
from vaegan_jax.evaluation.backbones import alexnet, efflite0, inception
from vaegan_jax.evaluation.batches import Progress, map_batches, no_progress
from vaegan_jax.runtime import sources

Embed = Callable[[Any, jax.Array], jax.Array]

# Networks and their default input sizes; docs/embeddings.md says how these were chosen.
_NETWORKS: dict[str, tuple[Any, int]] = {
    "efflite0": (efflite0, 224),
    "alexnet": (alexnet, 160),
    "inception": (inception, inception.SIZE),
}
_GRID = 8


class Embedding(NamedTuple):
    """A function from images to features.

    Attributes:
      name: the name in reports, with the input size or resize mode, such as "efflite0_224".
      embed: (params, images [B, H, W, C] in [0, 255], uint8 or float32) -> float32 [B, d]; pure.
      params: parameters of the network.
      facts: identifying metadata, such as the hash of the weights.
      distance: the name of the Frechet distance of these features, "fid" only for Inception's.
    """

    name: str
    embed: Embed
    params: Any = None
    facts: dict[str, Any] = {}  # noqa: RUF012 - the default of a NamedTuple, never mutated
    distance: str = "fd"


def make(name: str, weights: str = "") -> Embedding:
    """Returns an embedding by name.

    Args:
      name: a built-in name, with an input size in pixels for those in `registry.SIZED`, such as
        "efflite0" or "efflite0_128", or ``"package.module:function"`` for a user's pure function
        from images [B, H, W, C] in [0, 255], uint8 or float32, to float32 [B, d].
      weights: the path of inception's weights; defaults to a file in ~/.cache/vaegan_jax.

    Raises:
      UserError: if the name is unknown or the weights are missing.
    """
    kind, size = registry.split_embedding(name)
    function = registry.load("embedding", kind)
    if registry.is_path(name):
        facts: dict[str, Any] = {"source": sources.digests(name.partition(":")[0])}
        return Embedding(name, lambda _, images: function(images), facts=facts)
    if kind == "pixels":
        return Embedding(kind, function, facts={"resize": f"means over {_GRID}x{_GRID} cells"})
    network, default_size = _NETWORKS[kind]
    size = size or default_size
    embed = _resized(function, size)
    facts = {"sha256": network.SHA256, "resize": f"bicubic, antialiased, to {size}x{size}"}
    if kind == "inception":
        return Embedding("inception_clean", embed, inception.load(weights), facts, "fid")
    return Embedding(f"{kind}_{size}", embed, network.load(), facts)


def make_all(names: str, weights: str = "") -> list[Embedding]:
    """Returns the embeddings of a comma-separated list, see `make`."""
    return [make(name.strip(), weights) for name in names.split(",")]


def require_valid(embedding: Embedding, image_shape: tuple[int, int, int]) -> None:
    """Raises a `UserError` if an embedding fails, or its features are not float32 [B, d]."""
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


def extract(
    embedding: Embedding, images: ImageArray, progress: Progress = no_progress
) -> np.ndarray:
    """Returns the features of images, uint8 [N, H, W, C]: float32 [N, d]; see `map_batches`."""
    embed, params = jax.jit(embedding.embed), jax.device_put(embedding.params)
    features: np.ndarray = map_batches(
        len(images), lambda i: embed(params, jax.device_put(images[i])), 0, progress
    )
    return features


@functools.cache  # so runs of several seeds share compiled programs
def _resized(features: Embed, size: int) -> Embed:
    return lambda params, images: features(params, resize(images, size))


def cell_means(_: Any, images: jax.Array) -> jax.Array:
    """Embeds images by the mean colours of the cells of an 8x8 grid, float32 in [0, 1]."""
    count, height, width, channels = images.shape  # the sides are multiples of 16
    cells = images.reshape(count, _GRID, height // _GRID, _GRID, width // _GRID, channels)
    return jnp.mean(cells.astype(jnp.float32) / 255, axis=(2, 4)).reshape(count, -1)


def resize(images: jax.Array, size: int) -> jax.Array:
    """Resizes like clean-fid: Pillow's bicubic (a = -0.5) on floats, antialiased and clipped.

    Parmar et al. 2022, arXiv 2104.11222, section 4. Images are uint8 or float [B, H, W, C] in
    [0, 255], C 1 or 3; the result is float32 [B, size, size, 3] in [0, 255].
    """
    batch, height, width, _ = images.shape
    x = jnp.broadcast_to(images.astype(jnp.float32), (batch, height, width, 3))
    if height == width == size:
        return x
    # XLA (jax 0.10.2) fails to compile jax.image.resize, and one einsum of all three arrays, for an
    # H100 under --xla_gpu_deterministic_ops=true.
    precision = jax.lax.Precision.HIGHEST
    x = x.reshape(batch, height, width * 3)
    x = jnp.einsum("ih,bhx->bix", _weights(height, size), x, precision=precision)
    x = x.reshape(batch * size, width, 3)
    x = jnp.einsum("jw,bwc->bjc", _weights(width, size), x, precision=precision)
    return jnp.clip(x.reshape(batch, size, size, 3), 0, 255)


def _weights(before: int, after: int) -> np.ndarray:
    """Returns the weights of pixels, float32 [after, before]; the rows sum to 1.

    The cubic convolution kernel of Keys 1981 (equation 15, a = -0.5) is widened by the factor of a
    reduction (antialiasing) and cut off at the border.
    """
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale - 0.5
    x = np.abs(centres[:, None] - np.arange(before)) / max(scale, 1)
    inner = (1.5 * x - 2.5) * x**2 + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights: np.ndarray = np.select([x < 1, x < 2], [inner, outer], 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)
