"""Grids of samples, reconstructions, interpolations and traversals."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import networks, randomness
from vaegan_jax.data import preprocessing
from vaegan_jax.data.feed import ImageArray
from vaegan_jax.evaluation.latents import slerp
from vaegan_jax.runtime import compilation

Convert = Callable[[jax.Array], jax.Array]
"""Latents [N, L] of one network -> the equivalent latents of another."""

COLUMNS = 8  # and rows of a grid of samples
GAP = 2  # pixels between the images of a grid


def same(latents: jax.Array) -> jax.Array:
    """Returns the latents unchanged."""
    return latents


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Arranges images in a grid with white gaps; the last row is padded with white.

    uint8 [N, H, W, C] -> uint8 [rows * (H + 2) - 2, columns * (W + 2) - 2, C]. With several sets,
    uint8 [S, N, H, W, C], their rows alternate.
    """
    sets = images if images.ndim == 5 else images[None]
    s, n, height, width, channels = sets.shape
    rows = -(-n // columns)
    cells = np.full((s, rows * columns, height + GAP, width + GAP, channels), 255, np.uint8)
    cells[:, :n, :height, :width] = sets
    cells = cells.reshape(s, rows, columns, height + GAP, width + GAP, channels)
    picture = cells.transpose(1, 0, 3, 2, 4, 5).reshape(rows * s * (height + GAP), -1, channels)
    return picture[:-GAP, :-GAP]


def fixed_latents(config: ConfigDict, count: int, distribution: str) -> jax.Array:
    """Returns the latents of all pictures of a run: float32 [count, L]."""
    shape = (count, config.model.latent_size)
    return randomness.picture_latents(config.seed, shape, distribution)


def between(a: jax.Array, b: jax.Array, count: int) -> jax.Array:
    """Returns `count` latents on the great circle of each pair: [N, L] -> [N * count, L]."""
    t = jnp.linspace(0, 1, count)
    return jax.vmap(slerp, (0, 0, None))(a, b, t).reshape(-1, a.shape[-1])


def decoder_pictures(
    config: ConfigDict, image_shape: tuple[int, int, int], params: optax.Params, distribution: str
) -> dict[str, np.ndarray]:
    """Returns the pictures of a decoder or generator, uint8 [H, W, C] each.

    They are `samples` at the fixed latents and `interpolations` between the first of these latents,
    one pair per row.
    """
    decode = _make_decode(config.model, image_shape)
    z = fixed_latents(config, COLUMNS**2, distribution)
    between_samples = between(z[:COLUMNS:2], z[1:COLUMNS:2], COLUMNS)
    shown = {"samples": z, "interpolations": between_samples}
    return {name: grid(np.asarray(decode(params, z)), COLUMNS) for name, z in shown.items()}


@compilation.per_config
def _make_decode(
    model: ConfigDict, image_shape: tuple[int, int, int]
) -> Callable[[optax.Params, jax.Array], jax.Array]:
    """Returns a function from parameters and latents [N, L] to images, uint8 [N, H, W, C]."""
    decode = networks.make_decode(model, image_shape)
    return jax.jit(lambda params, z: preprocessing.to_uint8(decode(params, z)))


def reconstruction_picture(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    params: dict[str, optax.Params],
    images: ImageArray,
) -> np.ndarray:
    """Shows reconstructions by a VAE from the posterior means: uint8 [H, W, C].

    Rows of the first `images`, uint8 [N, H, W, C], alternate with rows of their reconstructions.
    """
    originals = images[np.arange(min(len(images), COLUMNS * (COLUMNS // 2)))]
    means = _make_encode(config.model, image_shape)(params["encoder"], originals)
    reconstructions = _make_decode(config.model, image_shape)(params["decoder"], means)
    return grid(np.stack((originals, np.asarray(reconstructions))), COLUMNS)


@compilation.per_config
def _make_encode(
    model: ConfigDict, image_shape: tuple[int, int, int]
) -> Callable[[optax.Params, jax.typing.ArrayLike], jax.Array]:
    """Returns a function from parameters and images, uint8 [N, H, W, C], to means [N, L]."""
    encode = networks.make_encode(model, image_shape)
    return jax.jit(lambda params, images: encode(params, preprocessing.to_network(images))[0])


def side_by_side(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    sources: Sequence[tuple[optax.Params, Convert]],
) -> np.ndarray:
    """Shows samples of several networks for equivalent latents, one row each: uint8 [H, W, C].

    The latents are the first of `fixed_latents`, with the GAN's distribution; `sources` are
    parameters of decoders or generators, and the maps from these latents to theirs.
    """
    decode = _make_decode(config.model, image_shape)
    z = fixed_latents(config, 2 * COLUMNS, config.gan.noise)
    images = [np.asarray(decode(params, convert(z))) for params, convert in sources]
    return grid(np.stack(images), COLUMNS)


def traversals(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    params: optax.Params,
    mean: np.ndarray,
    variance: np.ndarray,
    to_network: Convert = same,
) -> np.ndarray:
    """Shows the effect of the 8 most active latent dimensions, one per row: uint8 [H, W, C].

    Along a row one dimension changes from -3 to 3 standard deviations around the mean while the
    others stay at the mean. Mean and variance are those of the posterior means over the data,
    float32 [L]; `to_network` maps the VAE's latents to those of the network of `params`.
    """
    columns = COLUMNS + 1  # odd, so the middle column is the mean
    units = np.argsort(-variance, kind="stable")[:8]
    z = np.tile(mean, (len(units), columns, 1))
    offsets = np.linspace(-3.0, 3.0, columns)
    z[np.arange(len(units)), :, units] += np.sqrt(variance[units])[:, None] * offsets
    latents = to_network(jnp.asarray(z.reshape(-1, len(mean))))
    images = _make_decode(config.model, image_shape)(params, latents)
    return grid(np.asarray(images), columns)


def pairs(samples: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Shows samples above the nearest training and test images, all uint8 [N, H, W, C]."""
    return grid(np.stack((samples, train, test)), -(-len(samples) // 2))
