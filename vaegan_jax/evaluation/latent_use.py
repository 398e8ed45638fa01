"""Information per latent dimension of a trained VAE, and a heuristic for the latent size."""

import math
from collections.abc import Mapping
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

MAX_CHANGE = 0.02
"""A VAE has settled if both terms of its loss changed less at last; see `facts`."""


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


def facts(use: LatentUse, changes: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Returns the latent use as a JSON-compatible dict, with a suggested latent size.

    `active_units` follows Burda et al. 2015, arXiv 1509.00519, section 5.2. `enough_units` is the
    minimum number of dimensions that carry 95 % of the KL divergence. `suggested_size` is 1.25
    times `enough_units`, rounded up to a multiple of 8, or twice the latent size if `enough_units`
    exceeds 90 % of it; it is None before the VAE has settled.

    Args:
      use: from `measure`.
      changes: relative changes of the reconstruction term and the KL divergence in the last part of
        the training, from `monitor.relative_changes`; None if unknown. The VAE has settled if all
        are below `MAX_CHANGE`.
    """
    size = len(use.kl)
    descending = np.sort(use.kl)[::-1]
    total = float(descending.sum())
    active = int((use.variance > ACTIVE_VARIANCE).sum())
    enough = 0
    if total > 0:
        enough = int(np.searchsorted(np.cumsum(descending), _SUFFICIENT_SHARE * total) + 1)
    suggested: int | None
    if changes is None or not all(change < MAX_CHANGE for change in changes.values()):
        suggested = None
    elif active == 0:
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
        "relative_changes": None if changes is None else dict(changes),
        "kl_nats_by_unit": use.kl.tolist(),
        "variance_by_unit": use.variance.tolist(),
    }


def advice(facts: dict[str, Any]) -> str:
    """Returns a one-paragraph summary of `facts`."""
    size = facts["latent_size"]
    nats = sorted(facts["kl_nats_by_unit"], reverse=True)
    text = (
        f"{facts['active_units']} of {size} latent dimensions are active. They carry "
        f"{facts['kl_nats']:.4g} nats per image (maximum {nats[0]:.3g} and median "
        f"{nats[size // 2]:.3g} per dimension); {facts['enough_units']} of them carry 95 %."
    )
    if facts["active_units"] == 0:
        return f"{text} The VAE has collapsed or diverged, whatever the latent size."
    if facts["suggested_size"] is None:
        return f"{text} {_unsettled(facts['relative_changes'])}"
    return (
        f"{text} Suggested model.latent_size (heuristic, docs/troubles.md): "
        f"{facts['suggested_size']}."
    )


def _unsettled(changes: Mapping[str, float] | None) -> str:
    if changes is None:
        return "No latent size is suggested: too few lines of metrics (lower training.log_every)."
    return (
        "No latent size is suggested before training has settled: the reconstruction term last "
        f"changed by {changes['reconstruction']:.1%} and the KL divergence by {changes['kl']:.1%}, "
        f"and the limit is {MAX_CHANGE:.0%}."
    )
