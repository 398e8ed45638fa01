"""Posteriors, batched decoding and spherical interpolation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import networks
from vaegan_jax.data import preprocessing
from vaegan_jax.evaluation.batches import Progress, map_batches, no_progress
from vaegan_jax.runtime import compilation


@compilation.per_config
def make_posterior(
    model: ConfigDict, image_shape: tuple[int, int, int]
) -> Callable[[optax.Params, jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns the jitted ``posterior(params, images uint8 [B, H, W, C]) -> (mean, log variance)``.

    The params are an encoder's; both results are float32 [B, L].
    """
    encode = networks.make_encode(model, image_shape)
    return jax.jit(lambda params, images: encode(params, preprocessing.to_network(images)))


def decode_images(
    decode: Callable[[optax.Params, jax.Array], jax.Array],
    params: optax.Params,
    latents: jax.Array,
    progress: Progress = no_progress,
    label: str = "",
) -> np.ndarray:
    """Decodes latents [N, L] to uint8 [N, H, W, C]; `decode` is a jitted `networks.make_decode`."""
    images: np.ndarray = map_batches(
        len(latents),
        lambda indices: preprocessing.to_uint8(decode(params, latents[indices])),
        progress=progress,
        label=label,
    )
    return images


def slerp(a: jax.Array, b: jax.Array, t: jax.Array) -> jax.Array:
    """Spherical interpolation between latents: [L], [L], [T] -> [T, L].

    White 2016, arXiv 1609.04468, section 2.1. Unlike linear interpolation, it preserves the typical
    norm of Gaussian samples.
    """
    cosine = jnp.vdot(a, b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
    angle = jnp.arccos(jnp.clip(cosine, -1, 1))
    # sin(t angle) / sin(angle), also for an angle of 0.
    weight_a, weight_b = (
        s[:, None] * jnp.sinc(s[:, None] * angle / jnp.pi) / jnp.sinc(angle / jnp.pi)
        for s in (1 - t, t)
    )
    return weight_a * a[None] + weight_b * b[None]
