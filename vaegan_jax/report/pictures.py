"""Grids of samples, reconstructions and interpolations, as pure functions of parameters."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import networks, randomness
from vaegan_jax.data import preprocessing
from vaegan_jax.data.feed import ImageArray
from vaegan_jax.randomness import Purpose, Stage

_GAP = 2


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
    cells = np.full((rows * columns, height + _GAP, width + _GAP, channels), 255, np.uint8)
    cells[:n, :height, :width] = images
    cells = cells.reshape(rows, columns, height + _GAP, width + _GAP, channels)
    picture = cells.transpose(0, 2, 1, 3, 4).reshape(rows * (height + _GAP), -1, channels)
    return picture[:-_GAP, :-_GAP]


def slerp(a: jax.Array, b: jax.Array, t: jax.Array) -> jax.Array:
    """Interpolates between latents along a great circle: [L], [L], [T] -> [T, L].

    White 2016, arXiv 1609.04468, section 2.1. The length stays that of a Gaussian draw all the
    way, where a straight line would pass through latents that are rarely drawn.
    """
    cosine = jnp.vdot(a, b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
    angle = jnp.arccos(jnp.clip(cosine, -1, 1))
    t = t[:, None]
    sine = jnp.sin(angle)
    nearly_parallel = sine < 1e-4
    sine = jnp.where(nearly_parallel, 1, sine)
    weight_a = jnp.where(nearly_parallel, 1 - t, jnp.sin((1 - t) * angle) / sine)
    weight_b = jnp.where(nearly_parallel, t, jnp.sin(t * angle) / sine)
    return weight_a * a[None] + weight_b * b[None]


def fixed_latents(config: ConfigDict, count: int, distribution: str) -> jax.Array:
    """Returns the latents that every picture of a run shows: float32 [count, L]."""
    key = randomness.step_key(config.seed, Stage.PICTURES, 0, 0)
    shape = (count, config.model.latent_size)
    return randomness.latents(randomness.draw_key(key, Purpose.LATENT), shape, distribution)


def make_decoder_pictures(
    config: ConfigDict, image_shape: tuple[int, int, int], distribution: str
) -> Callable[[optax.Params], dict[str, np.ndarray]]:
    """Returns a function from a decoder's or generator's parameters to its pictures.

    They are `samples` from the fixed latents and `interpolations` between the first of them, a
    pair a row; each is uint8 [H, W, C].
    """
    columns = config.training.picture_columns
    decoder = networks.make_decoder(config.model, image_shape)

    @jax.jit
    def decode(params: optax.Params) -> tuple[jax.Array, jax.Array]:
        z = fixed_latents(config, columns**2, distribution)
        pairs = z[: columns // 2 * 2].reshape(-1, 2, z.shape[-1])
        t = jnp.linspace(0, 1, columns)
        between = jax.vmap(lambda pair: slerp(pair[0], pair[1], t))(pairs)

        def images(z: jax.Array) -> jax.Array:
            return preprocessing.to_uint8(jnp.tanh(networks.apply(decoder, params, z)))

        return images(z), images(between.reshape(-1, z.shape[-1]))

    def pictures(params: optax.Params) -> dict[str, np.ndarray]:
        samples, interpolations = jax.device_get(decode(params))
        return {
            "samples": grid(samples, columns),
            "interpolations": grid(interpolations, columns),
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
    columns = config.training.picture_columns
    count = min(len(images), columns * (columns // 2))
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
        rows = []
        for first in range(0, count, columns):
            for source in (shown, reconstructions):
                row = np.full((columns, *image_shape), 255, np.uint8)
                part = source[first : first + columns]
                row[: len(part)] = part
                rows.append(row)
        return grid(np.concatenate(rows), columns)

    return picture
