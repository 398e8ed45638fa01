"""Information per latent dimension of a trained VAE."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax.data.feed import ImageArray
from vaegan_jax.evaluation import latents
from vaegan_jax.evaluation.batches import map_batches
from vaegan_jax.losses import vae as losses
from vaegan_jax.losses.symptoms import ACTIVE_VARIANCE

_MAX_IMAGES = 1_000
_SUFFICIENT_SHARE = 0.95


def measure(config: ConfigDict, encoder_params: optax.Params, images: ImageArray) -> dict[str, Any]:
    """Measures the latent use on up to 1,000 images, uint8 [N, H, W, C]; see `facts`."""
    shape = (images.shape[1], images.shape[2], images.shape[3])
    posterior = latents.make_posterior(config.model, shape)
    means, log_variances = map_batches(
        min(len(images), _MAX_IMAGES), lambda i: posterior(encoder_params, jnp.asarray(images[i]))
    )
    kl = np.asarray(losses.kl(means, log_variances), np.float64)
    return facts(kl.mean(axis=0), means.astype(np.float64).var(axis=0))


def facts(kl: np.ndarray, variance: np.ndarray) -> dict[str, Any]:
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


def summary(facts: dict[str, Any]) -> str:
    """Returns a one-paragraph summary of `facts`."""
    size = facts["latent_size"]
    nats = sorted(facts["kl_nats_by_unit"], reverse=True)
    text = (
        f"{facts['active_units']} of {size} latent dimensions are active. They carry "
        f"{facts['kl_nats']:.4g} nats per image (maximum {nats[0]:.3g} and median "
        f"{nats[size // 2]:.3g} per dimension); {facts['enough_units']} of them carry 95 %."
    )
    collapsed = " The VAE has collapsed or diverged, whatever the latent size."
    return text if facts["active_units"] else text + collapsed
