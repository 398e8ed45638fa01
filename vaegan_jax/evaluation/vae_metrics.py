"""VAE metrics: reconstruction fidelity, latent use and likelihood bounds."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vaegan_jax import networks, randomness
from vaegan_jax.data.images import Split
from vaegan_jax.evaluation import distances, latents, pixels, vae_bounds
from vaegan_jax.evaluation.backbones import alexnet, lpips
from vaegan_jax.evaluation.batches import Progress, map_batches
from vaegan_jax.evaluation.number import (
    Number,
    evaluation_key,
    jackknife_error,
    mean,
    number,
    random_subset,
)
from vaegan_jax.losses import symptoms
from vaegan_jax.randomness import Purpose


class Units(NamedTuple):
    """Statistics of the posterior means over test images, float32 [L] each.

    A latent dimension is active if its variance exceeds `symptoms.ACTIVE_VARIANCE`.
    """

    mean: np.ndarray
    variance: np.ndarray


class VAEEvaluation(NamedTuple):
    """The evaluation of a VAE.

    `reconstructions` are decoded posterior means of test images, uint8 [N, H, W, C].
    """

    reconstructions: np.ndarray
    units: Units
    numbers: list[Number]


def evaluate_vae(
    config: ConfigDict,
    params: vae_bounds.Params,
    train: Split,
    test: Split,
    count: int,
    progress: Progress,
) -> VAEEvaluation:
    """Evaluates a VAE on up to `count` test images.

    `params` is ``{"encoder", "decoder"}``, plus `likelihood` if it was learned. Training images are
    used to calibrate the decoder variance.
    """
    image_shape, seed = test.image_shape, config.seed
    rows = random_subset(evaluation_key(seed, 3, Purpose.SUBSET), len(test), count)
    originals = test.take(rows)
    posterior = latents.make_posterior(config.model, image_shape)
    means, log_variances = map_batches(
        len(originals),
        lambda i: posterior(params["encoder"], jnp.asarray(originals[i])),
        progress=progress,
        label="posteriors",
    )
    decode = jax.jit(networks.make_decode(config.model, image_shape))
    reconstructions = latents.decode_images(
        decode, params["decoder"], means, progress, "VAE reconstructions"
    )
    numbers = [
        *_fidelity_numbers(originals, reconstructions, progress),
        *vae_bounds.likelihood_numbers(config, params, train, test, progress),
        *_latent_numbers(seed, means, log_variances),
    ]
    return VAEEvaluation(reconstructions, Units(means.mean(axis=0), means.var(axis=0)), numbers)


def _fidelity_numbers(
    originals: Split, reconstructions: np.ndarray, progress: Progress
) -> list[Number]:
    values = map_batches(
        len(originals), lambda i: pixels.fidelity(originals[i], reconstructions[i])
    )
    if alexnet.available() and min(originals.image_shape[:2]) >= alexnet.MIN_SIZE:
        params = jax.device_put(alexnet.load())
        values["lpips_alex"] = map_batches(
            len(originals),
            lambda i: _lpips(params, originals[i], reconstructions[i]),
            progress=progress,
            label="LPIPS",
        )
    return [mean("vae_reconstructions", name, rows) for name, rows in values.items()]


@jax.jit
def _lpips(params: Any, originals: jax.Array, reconstructions: jax.Array) -> jax.Array:
    a, b = (x.astype(jnp.float32) / 127.5 - 1 for x in (originals, reconstructions))
    return lpips.distance(params, a, b)


def _latent_numbers(seed: int, means: np.ndarray, log_variances: np.ndarray) -> list[Number]:
    """Returns the active units and the MMD between the aggregate posterior and the prior."""

    def active_units(rows: np.ndarray) -> jax.Array:
        return symptoms.active_units(jnp.asarray(rows))

    eps = jax.random.normal(evaluation_key(seed, 0, Purpose.POSTERIOR), means.shape)
    z = np.asarray(means + np.exp(0.5 * log_variances) * eps)
    key = evaluation_key(seed, 3, Purpose.LATENT)
    prior, other_prior = randomness.latents(key, (2, *means.shape))
    # The bandwidth is of the order of the distances between samples.
    kernel = distances.gaussian_kernel(math.sqrt(means.shape[1]))

    def prior_mmd(rows: np.ndarray | jax.Array) -> jax.Array:
        return distances.mmd(kernel, jnp.asarray(rows), prior)

    error = jackknife_error(evaluation_key(seed, 0, Purpose.ACTIVE_UNITS), means, active_units)
    units = number("vae", "", "", "active_units", active_units(means), error, None, len(means))
    error = jackknife_error(evaluation_key(seed, 0, Purpose.DISCREPANCY), z, prior_mmd)
    floor = prior_mmd(other_prior)
    return [units, number("vae", "", "", "posterior_prior_mmd", prior_mmd(z), error, floor, len(z))]
