"""From latents to the images that are judged."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import networks
from vaegan_jax.data import preprocessing
from vaegan_jax.evaluation.batches import Watch, map_batches, unwatched

Decode = Callable[[optax.Params, jax.Array], jax.Array]


def make_decode(model: ConfigDict, image_shape: tuple[int, int, int]) -> Decode:
    """Returns the jitted ``decode(params, latents [B, L]) -> float32 [B, H, W, C]`` in [-1, 1].

    The params are a decoder's or a generator's.
    """
    decoder = networks.make_decoder(model, image_shape)
    return jax.jit(lambda params, latents: jnp.tanh(networks.apply(decoder, params, latents)))


def samples(
    decode: Decode,
    params: optax.Params,
    latents: jax.Array,
    watch: Watch = unwatched,
    label: str = "",
) -> np.ndarray:
    """Returns what latents [N, L] decode to: uint8 [N, H, W, C]."""
    images: np.ndarray = map_batches(
        len(latents),
        lambda indices: preprocessing.to_uint8(decode(params, latents[indices])),
        watch=watch,
        label=label,
    )
    return images
