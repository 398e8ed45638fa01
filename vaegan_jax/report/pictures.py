"""Grids of samples, reconstructions and interpolations, as pure functions of parameters."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import networks, randomness
from vaegan_jax.data import preprocessing
from vaegan_jax.data.feed import ImageArray
from vaegan_jax.evaluation import generation
from vaegan_jax.evaluation.latents import slerp

Convert = Callable[[jax.Array], jax.Array]
"""Latents [N, L] of one network -> those of another that match them."""

COLUMNS = 8
"""Images in a row of a grid of samples, and rows of it."""

GAP = 2
"""Pixels between the images of a grid."""

_TRAVERSED_UNITS = 8
_REACH = 3.0


def same(latents: jax.Array) -> jax.Array:
    """Returns the latents as they are."""
    return latents


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Lays out images row by row with a thin white gap between them.

    Args:
      images: uint8 [N, H, W, C].
      columns: images in a row; the last row is filled up with white.

    Returns:
      uint8 [rows * (H + 2) - 2, columns * (W + 2) - 2, C].
    """
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    cells = np.full((rows * columns, height + GAP, width + GAP, channels), 255, np.uint8)
    cells[:n, :height, :width] = images
    cells = cells.reshape(rows, columns, height + GAP, width + GAP, channels)
    picture = cells.transpose(0, 2, 1, 3, 4).reshape(rows * (height + GAP), -1, channels)
    return picture[:-GAP, :-GAP]


def fixed_latents(config: ConfigDict, count: int, distribution: str) -> jax.Array:
    """Returns the latents that every picture of a run shows: float32 [count, L]."""
    shape = (count, config.model.latent_size)
    return randomness.picture_latents(config.seed, shape, distribution)


def make_decoder_pictures(
    config: ConfigDict, image_shape: tuple[int, int, int], distribution: str
) -> Callable[[optax.Params], dict[str, np.ndarray]]:
    """Returns a function from a decoder's or generator's parameters to its pictures.

    They are `samples` from the fixed latents and `interpolations` between the first of them, a
    pair a row; each is uint8 [H, W, C].
    """
    decoder = networks.make_decoder(config.model, image_shape)

    @jax.jit
    def decode(params: optax.Params) -> tuple[jax.Array, jax.Array]:
        z = fixed_latents(config, COLUMNS**2, distribution)
        pairs = z[: COLUMNS // 2 * 2].reshape(-1, 2, z.shape[-1])
        t = jnp.linspace(0, 1, COLUMNS)
        between = jax.vmap(lambda pair: slerp(pair[0], pair[1], t))(pairs)

        def images(z: jax.Array) -> jax.Array:
            return preprocessing.to_uint8(jnp.tanh(networks.apply(decoder, params, z)))

        return images(z), images(between.reshape(-1, z.shape[-1]))

    def pictures(params: optax.Params) -> dict[str, np.ndarray]:
        samples, interpolations = jax.device_get(decode(params))
        return {
            "samples": grid(samples, COLUMNS),
            "interpolations": grid(interpolations, COLUMNS),
        }

    return pictures


def make_reconstruction_picture(
    config: ConfigDict, images: ImageArray
) -> Callable[[dict[str, optax.Params]], np.ndarray]:
    """Returns a function from a VAE's parameters to a picture of its reconstructions.

    Args:
      config: the run's config.
      images: uint8 [N, H, W, C], usually held out; the first few are shown.

    Returns:
      A function to uint8 [H, W, C]: rows of originals, each above the row of what the decoder
      makes of their posterior means.
    """
    count = min(len(images), COLUMNS * (COLUMNS // 2))
    shown = images[np.arange(count)]
    image_shape = (shown.shape[1], shown.shape[2], shown.shape[3])
    encoder = networks.make_encoder(config.model, image_shape)
    decoder = networks.make_decoder(config.model, image_shape)

    @jax.jit
    def reconstruct(params: dict[str, optax.Params], originals: jax.Array) -> jax.Array:
        images = preprocessing.to_network(originals)
        mean, _ = networks.apply(encoder, params["encoder"], images)
        return preprocessing.to_uint8(jnp.tanh(networks.apply(decoder, params["decoder"], mean)))

    def picture(params: dict[str, optax.Params]) -> np.ndarray:
        reconstructions = jax.device_get(reconstruct(params, shown))
        return grid(alternate((shown, reconstructions), COLUMNS), COLUMNS)

    return picture


def side_by_side(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    decoder_params: optax.Params,
    generator_params: optax.Params,
    to_decoder: Convert = same,
) -> np.ndarray:
    """Shows what decoder and generator make of matching latents: uint8 [H, W, C].

    Rows of the decoder's images stand above rows of the generator's; the latents are the first of
    `fixed_latents`, of the GAN's noise.

    Args:
      config: the run's config.
      image_shape: (height, width, channels).
      decoder_params: of the decoder.
      generator_params: of the generator.
      to_decoder: from the generator's latents to those of the decoder that match them.
    """
    decode = _make_decode(config, image_shape)
    z = fixed_latents(config, COLUMNS**2, config.gan.noise)[: COLUMNS * (COLUMNS // 2)]
    images = (decode(decoder_params, to_decoder(z)), decode(generator_params, z))
    return grid(alternate(images, COLUMNS), COLUMNS)


def traversals(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    params: optax.Params,
    mean: np.ndarray,
    variance: np.ndarray,
    to_network: Convert = same,
) -> np.ndarray:
    """Shows what the most active latent dimensions do, one a row: uint8 [H, W, C].

    Along a row one dimension goes from three standard deviations below the mean to three above,
    all others staying at the mean.

    Args:
      config: the run's config.
      image_shape: (height, width, channels).
      params: a decoder's or a generator's.
      mean: of the posterior means over the data, float32 [L].
      variance: of the posterior means over the data, float32 [L].
      to_network: from the VAE's latents to those that match them in the network of `params`.
    """
    columns = COLUMNS + 1  # odd, so that the middle is the mean
    units = np.argsort(-variance, kind="stable")[:_TRAVERSED_UNITS]
    z = np.tile(mean, (len(units), columns, 1))
    for row, unit in enumerate(units):
        z[row, :, unit] += np.linspace(-_REACH, _REACH, columns) * np.sqrt(variance[unit])
    latents = to_network(jnp.asarray(z.reshape(-1, len(mean))))
    return grid(_make_decode(config, image_shape)(params, latents), columns)


def pairs(samples: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Shows samples above their nearest training and held-out images: uint8 [H, W, C].

    Args:
      samples: uint8 [N, H, W, C].
      train: the training image nearest to each.
      held_out: the held-out image nearest to each.
    """
    columns = -(-len(samples) // 2)
    return grid(alternate((samples, train, held_out), columns), columns)


def alternate(sets: Iterable[np.ndarray], columns: int) -> np.ndarray:
    """Cuts sets of N images into rows, filled up with white, and takes a row of each in turn."""
    rows = []
    for images in sets:
        filled = np.full((-(-len(images) // columns) * columns, *images.shape[1:]), 255, np.uint8)
        filled[: len(images)] = images
        rows.append(filled.reshape(-1, columns, *images.shape[1:]))
    stacked = np.stack(rows, axis=1)
    return stacked.reshape(-1, *stacked.shape[3:])


def _make_decode(
    config: ConfigDict, image_shape: tuple[int, int, int]
) -> Callable[[optax.Params, jax.typing.ArrayLike], np.ndarray]:
    """Returns ``decode(params, latents) -> uint8 [N, H, W, C]``, on the host."""
    decode = generation.make_decode(config.model, image_shape)

    def images(params: optax.Params, z: jax.typing.ArrayLike) -> np.ndarray:
        made: np.ndarray = jax.device_get(preprocessing.to_uint8(decode(params, jnp.asarray(z))))
        return made

    return images
