"""How much each latent dimension of a trained VAE carries, and a rule of thumb for their number."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax.data.feed import ImageArray
from vaegan_jax.evaluation import vae_quality
from vaegan_jax.evaluation.batches import map_batches
from vaegan_jax.losses import vae as losses
from vaegan_jax.losses.symptoms import ACTIVE_VARIANCE

_MAX_IMAGES = 1_000
_MUCH = 0.95


class LatentUse(NamedTuple):
    """The latent dimensions of a VAE, float64 [L] each.

    Attributes:
      kl: nats that each says about an image, the mean over the images.
      variance: of its posterior mean over the images.
    """

    kl: np.ndarray
    variance: np.ndarray


def measure(config: ConfigDict, encoder_params: optax.Params, images: ImageArray) -> LatentUse:
    """Encodes up to 1,000 images, uint8 [N, H, W, C], and says what each dimension carries."""
    shape = (images.shape[1], images.shape[2], images.shape[3])
    encode = vae_quality.make_posterior(config, shape)
    means, kl = map_batches(
        min(len(images), _MAX_IMAGES),
        lambda i: _with_kl(*encode(encoder_params, jnp.asarray(images[i]))),
    )
    return LatentUse(kl.astype(np.float64).mean(axis=0), means.astype(np.float64).var(axis=0))


def _with_kl(mean: Any, log_variance: Any) -> tuple[Any, Any]:
    return mean, losses.kl(mean, log_variance)


def facts(use: LatentUse) -> dict[str, Any]:
    """Returns what is to be kept of it: what each dimension carries, and what that suggests.

    `active_units` by Burda et al. 2015, arXiv 1509.00519, section 5.2. `enough_units` is how many
    of the dimensions, those that say most first, carry 95 % of the nats, and `suggested_size`
    that number with room to spare, as a multiple of 8; twice the size where no dimension can be
    spared.
    """
    size = len(use.kl)
    ordered = np.sort(use.kl)[::-1]
    total = float(ordered.sum())
    active = int((use.variance > ACTIVE_VARIANCE).sum())
    enough = int(np.searchsorted(np.cumsum(ordered), _MUCH * total) + 1) if total > 0 else 0
    if active == 0:
        suggested = size
    elif enough > 0.9 * size:
        suggested = 2 * size
    else:
        suggested = min(size, 8 * math.ceil(1.25 * enough / 8))
    return {
        "latent_size": size,
        "active_units": active,
        "kl_nats": total,
        "enough_units": enough,
        "suggested_size": suggested,
        "kl_nats_by_unit": use.kl.tolist(),
        "variance_by_unit": use.variance.tolist(),
    }


def advice(found: dict[str, Any]) -> str:
    """Returns what `facts` found in two sentences."""
    size, suggested = found["latent_size"], found["suggested_size"]
    nats = sorted(found["kl_nats_by_unit"], reverse=True)
    said = (
        f"{found['active_units']} of {size} latent dimensions are active; they carry "
        f"{found['kl_nats']:.4g} nats an image, {nats[0]:.3g} in the one that says most and "
        f"{nats[size // 2]:.3g} in the middle one, and {found['enough_units']} of them carry 95 %."
    )
    if found["active_units"] == 0:
        return f"{said} The size is not the trouble: the VAE has collapsed or diverged."
    if suggested > size:
        said += " None can be spared."
    return f"{said} The rule of thumb (docs/troubles.md) is model.latent_size={suggested}."
