"""Posteriors and their information, batched decoding and spherical interpolation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import networks
from vaegan_jax.data import preprocessing
from vaegan_jax.data.feed import ImageArray
from vaegan_jax.evaluation.batches import Progress, map_batches, no_progress
from vaegan_jax.losses import vae as losses
from vaegan_jax.losses.symptoms import ACTIVE_VARIANCE
from vaegan_jax.runtime import compilation

_MAX_IMAGES = 1_000
_SUFFICIENT_SHARE = 0.95


@compilation.per_config
def make_posterior(
    model: ConfigDict, image_shape: tuple[int, int, int]
) -> Callable[[optax.Params, jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns the jitted ``posterior(params, images uint8 [B, H, W, C]) -> (mean, log variance)``.

    The params are an encoder's; both results are float32 [B, L].
    """
    encode = networks.make_encode(model, image_shape)
    return jax.jit(lambda params, images: encode(params, preprocessing.to_network(images)))


def measure_use(
    config: ConfigDict, encoder_params: optax.Params, images: ImageArray
) -> dict[str, Any]:
    """Measures the latent use on up to 1,000 images, uint8 [N, H, W, C]; see `use_facts`."""
    shape = (images.shape[1], images.shape[2], images.shape[3])
    posterior = make_posterior(config.model, shape)
    means, log_variances = map_batches(
        min(len(images), _MAX_IMAGES), lambda i: posterior(encoder_params, jnp.asarray(images[i]))
    )
    kl = np.asarray(losses.kl(means, log_variances), np.float64)
    return use_facts(kl.mean(axis=0), means.astype(np.float64).var(axis=0))


def use_facts(kl: np.ndarray, variance: np.ndarray) -> dict[str, Any]:
    """Returns the latent use as a JSON-compatible dict.

    `active_units` follows Burda et al. 2015, arXiv 1509.00519, section 5.2. `enough_units` is the
    minimum number of dimensions that carry 95 % of the KL divergence.

    Args:
      kl: the mean KL divergence of each dimension from the prior, nats, float64 [L].
      variance: the variance of its posterior mean over the images, float64 [L].
    """
    shares = np.cumsum(np.sort(kl)[::-1]) / max(kl.sum(), 1e-12)
    return {
        "latent_size": len(kl),
        "active_units": int((variance > ACTIVE_VARIANCE).sum()),
        "kl_nats": float(kl.sum()),
        "enough_units": int(np.searchsorted(shares, _SUFFICIENT_SHARE) + 1) if shares[-1] else 0,
        "kl_nats_by_unit": kl.tolist(),
        "variance_by_unit": variance.tolist(),
    }


def use_summary(facts: dict[str, Any]) -> str:
    """Returns a one-paragraph summary of `use_facts`."""
    size = facts["latent_size"]
    nats = sorted(facts["kl_nats_by_unit"], reverse=True)
    text = (
        f"{facts['active_units']} of {size} latent dimensions are active. They carry "
        f"{facts['kl_nats']:.4g} nats per image (maximum {nats[0]:.3g} and median "
        f"{nats[size // 2]:.3g} per dimension); {facts['enough_units']} of them carry 95 %."
    )
    collapsed = " The VAE has collapsed or diverged, whatever the latent size."
    return text if facts["active_units"] else text + collapsed


def decode_images(
    decode: Callable[[optax.Params, jax.Array], jax.Array],
    params: optax.Params,
    latents: jax.Array,
    progress: Progress = no_progress,
) -> np.ndarray:
    """Decodes latents [N, L] to uint8 [N, H, W, C]; `decode` is a jitted `networks.make_decode`."""
    images: np.ndarray = map_batches(
        len(latents), lambda i: preprocessing.to_uint8(decode(params, latents[i])), 0, progress
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
