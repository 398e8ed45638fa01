"""Information per latent dimension of a trained VAE."""

from typing import Any, NamedTuple

import jax
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


class LatentUse(NamedTuple):
    """The latent dimensions of a VAE, float64 [L] each.

    Attributes:
      kl: the mean KL divergence from the prior over the images, nats.
      variance: the variance of the posterior mean over the images.
    """

    kl: np.ndarray
    variance: np.ndarray


def measure(config: ConfigDict, encoder_params: optax.Params, images: ImageArray) -> LatentUse:
    """Measures the latent use on up to 1,000 images, uint8 [N, H, W, C]."""
    shape = (images.shape[1], images.shape[2], images.shape[3])
    posterior = latents.make_posterior(config.model, shape)

    def mean_and_kl(indices: np.ndarray) -> tuple[jax.Array, jax.Array]:
        mean, log_variance = posterior(encoder_params, jnp.asarray(images[indices]))
        return mean, losses.kl(mean, log_variance)

    means, kl = map_batches(min(len(images), _MAX_IMAGES), mean_and_kl)
    return LatentUse(kl.astype(np.float64).mean(axis=0), means.astype(np.float64).var(axis=0))


def facts(use: LatentUse) -> dict[str, Any]:
    """Returns the latent use as a JSON-compatible dict.

    `active_units` follows Burda et al. 2015, arXiv 1509.00519, section 5.2. `enough_units` is the
    minimum number of dimensions that carry 95 % of the KL divergence.
    """
    descending = np.sort(use.kl)[::-1]
    total = float(descending.sum())
    enough = int(np.searchsorted(np.cumsum(descending), _SUFFICIENT_SHARE * total) + 1)
    return {
        "latent_size": len(use.kl),
        "active_units": int((use.variance > ACTIVE_VARIANCE).sum()),
        "kl_nats": total,
        "enough_units": enough if total > 0 else 0,
        "kl_nats_by_unit": use.kl.tolist(),
        "variance_by_unit": use.variance.tolist(),
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
