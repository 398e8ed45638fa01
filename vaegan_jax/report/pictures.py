"""Grids of samples, reconstructions, interpolations and traversals."""

from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import networks, randomness
from vaegan_jax.data import preprocessing
from vaegan_jax.data.feed import ImageArray
from vaegan_jax.evaluation.latents import decode_images, slerp
from vaegan_jax.runtime import compilation

Convert = Callable[[jax.Array], jax.Array]
"""Latents [N, L] of one network -> the equivalent latents of another."""

COLUMNS = 8
"""Number of columns and rows of a sample grid."""

GAP = 2
"""Pixels between the images of a grid."""

_TRAVERSED_UNITS = 8
_MAX_DEVIATIONS = 3.0


def same(latents: jax.Array) -> jax.Array:
    """Returns the latents unchanged."""
    return latents


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Arranges images in a grid with white gaps; the last row is padded with white.

    uint8 [N, H, W, C] -> uint8 [rows * (H + 2) - 2, columns * (W + 2) - 2, C].
    """
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    cells = np.full((rows * columns, height + GAP, width + GAP, channels), 255, np.uint8)
    cells[:n, :height, :width] = images
    cells = cells.reshape(rows, columns, height + GAP, width + GAP, channels)
    picture = cells.transpose(0, 2, 1, 3, 4).reshape(rows * (height + GAP), -1, channels)
    return picture[:-GAP, :-GAP]


def alternate(sets: Iterable[np.ndarray], columns: int) -> np.ndarray:
    """Splits sets of N images into rows, padded with white, and alternates the sets by row."""
    rows = []
    for images in sets:
        padded = np.full((-(-len(images) // columns) * columns, *images.shape[1:]), 255, np.uint8)
        padded[: len(images)] = images
        rows.append(padded.reshape(-1, columns, *images.shape[1:]))
    stacked = np.stack(rows, axis=1)
    return stacked.reshape(-1, *stacked.shape[3:])


def fixed_latents(config: ConfigDict, count: int, distribution: str) -> jax.Array:
    """Returns the latents of all pictures of a run: float32 [count, L]."""
    shape = (count, config.model.latent_size)
    return randomness.picture_latents(config.seed, shape, distribution)


def make_decoder_pictures(
    config: ConfigDict, image_shape: tuple[int, int, int], distribution: str
) -> Callable[[optax.Params], dict[str, np.ndarray]]:
    """Returns a function that maps decoder or generator parameters to pictures.

    The pictures are `samples` at the fixed latents and `interpolations` between the first of these
    latents, one pair per row; each is uint8 [H, W, C].
    """
    compute = _make_decoder_images(config.model, image_shape, COLUMNS)

    def pictures(params: optax.Params) -> dict[str, np.ndarray]:
        z = fixed_latents(config, COLUMNS**2, distribution)
        samples, interpolations = jax.device_get(compute(params, z))
        return {
            "samples": grid(samples, COLUMNS),
            "interpolations": grid(interpolations, COLUMNS),
        }

    return pictures


@compilation.per_config
def _make_decoder_images(
    model: ConfigDict, image_shape: tuple[int, int, int], columns: int
) -> Callable[[optax.Params, jax.Array], tuple[jax.Array, ...]]:
    decode = networks.make_decode(model, image_shape)

    @jax.jit
    def compute(params: optax.Params, z: jax.Array) -> tuple[jax.Array, ...]:
        pairs = z[: columns // 2 * 2].reshape(-1, 2, z.shape[-1])
        t = jnp.linspace(0, 1, columns)
        between = jax.vmap(lambda pair: slerp(pair[0], pair[1], t))(pairs)
        between = between.reshape(-1, z.shape[-1])
        return tuple(preprocessing.to_uint8(decode(params, latents)) for latents in (z, between))

    return compute


def make_reconstruction_picture(
    config: ConfigDict, images: ImageArray
) -> Callable[[dict[str, optax.Params]], np.ndarray]:
    """Returns a function that maps VAE parameters to a picture of reconstructions.

    In the picture, uint8 [H, W, C], rows of the first `images`, uint8 [N, H, W, C], alternate with
    rows of their reconstructions from the posterior means.
    """
    count = min(len(images), COLUMNS * (COLUMNS // 2))
    originals = images[np.arange(count)]
    image_shape = (originals.shape[1], originals.shape[2], originals.shape[3])
    reconstruct = _make_reconstruct(config.model, image_shape)

    def picture(params: dict[str, optax.Params]) -> np.ndarray:
        reconstructions = jax.device_get(reconstruct(params, originals))
        return grid(alternate((originals, reconstructions), COLUMNS), COLUMNS)

    return picture


@compilation.per_config
def _make_reconstruct(
    model: ConfigDict, image_shape: tuple[int, int, int]
) -> Callable[[dict[str, optax.Params], jax.typing.ArrayLike], jax.Array]:
    encode = networks.make_encode(model, image_shape)
    decode = networks.make_decode(model, image_shape)

    @jax.jit
    def reconstruct(params: dict[str, optax.Params], originals: jax.Array) -> jax.Array:
        mean, _ = encode(params["encoder"], preprocessing.to_network(originals))
        return preprocessing.to_uint8(decode(params["decoder"], mean))

    return reconstruct


def side_by_side(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    sources: Sequence[tuple[optax.Params, Convert]],
) -> np.ndarray:
    """Shows samples of several networks for equivalent latents, one row each: uint8 [H, W, C].

    The latents are the first of `fixed_latents`, with the GAN's distribution.

    Args:
      config: the run's config.
      image_shape: (height, width, channels).
      sources: parameters of decoders or generators, and the maps from these latents to theirs.
    """
    z = fixed_latents(config, COLUMNS**2, config.gan.noise)[: 2 * COLUMNS]
    images = [_decode(config, image_shape, params, convert(z)) for params, convert in sources]
    return grid(alternate(images, COLUMNS), COLUMNS)


def traversals(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    params: optax.Params,
    mean: np.ndarray,
    variance: np.ndarray,
    to_network: Convert = same,
) -> np.ndarray:
    """Shows the effect of the most active latent dimensions, one per row: uint8 [H, W, C].

    Along a row one dimension changes from -3 to 3 standard deviations around the mean while the
    others stay at the mean. Mean and variance are those of the posterior means over the data,
    float32 [L]; `to_network` maps the VAE's latents to those of the network of `params`.
    """
    columns = COLUMNS + 1  # odd, so the middle column is the mean
    units = np.argsort(-variance, kind="stable")[:_TRAVERSED_UNITS]
    z = np.tile(mean, (len(units), columns, 1))
    offsets = np.linspace(-_MAX_DEVIATIONS, _MAX_DEVIATIONS, columns)
    for row, unit in enumerate(units):
        z[row, :, unit] += offsets * np.sqrt(variance[unit])
    latents = to_network(jnp.asarray(z.reshape(-1, len(mean))))
    return grid(_decode(config, image_shape, params, latents), columns)


def pairs(samples: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Shows samples above the nearest training and test images, all uint8 [N, H, W, C]."""
    columns = -(-len(samples) // 2)
    return grid(alternate((samples, train, test), columns), columns)


def _decode(
    config: ConfigDict, image_shape: tuple[int, int, int], params: optax.Params, z: jax.Array
) -> np.ndarray:
    decode = jax.jit(networks.make_decode(config.model, image_shape))
    return decode_images(decode, params, z)
