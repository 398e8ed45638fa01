"""VAE metrics: reconstruction fidelity, latent use and likelihood bounds."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vaegan_jax import networks, randomness
from vaegan_jax.data.images import Split
from vaegan_jax.evaluation import distances, latents, vae_bounds
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
    """Statistics of the posterior means over held-out images, float32 [L] each.

    A latent dimension is active if its variance exceeds `symptoms.ACTIVE_VARIANCE`.
    """

    mean: np.ndarray
    variance: np.ndarray


class VAEEvaluation(NamedTuple):
    """The evaluation of a VAE.

    `reconstructions` are decoded posterior means of held-out images, uint8 [N, H, W, C].
    """

    reconstructions: np.ndarray
    units: Units
    numbers: list[Number]


def evaluate_vae(
    config: ConfigDict,
    params: vae_bounds.Params,
    train: Split,
    held_out: Split,
    count: int,
    progress: Progress,
) -> VAEEvaluation:
    """Evaluates a VAE on up to `count` held-out images.

    `params` is ``{"encoder", "decoder"}``, plus `likelihood` if it was learned. Training images are
    used to calibrate the decoder variance.
    """
    image_shape, seed = held_out.image_shape, config.seed
    rows = random_subset(evaluation_key(seed, 3, Purpose.SUBSET), len(held_out), count)
    originals = held_out.take(rows)
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
        *vae_bounds.likelihood_numbers(config, params, train, held_out, progress),
        *_latent_numbers(seed, means, log_variances),
    ]
    return VAEEvaluation(reconstructions, Units(means.mean(axis=0), means.var(axis=0)), numbers)


@jax.jit
def fidelity(originals: jax.Array, reconstructions: jax.Array) -> dict[str, jax.Array]:
    """Compares reconstructions with their originals, both uint8 [B, H, W, C].

    Returns `psnr` in decibels and `ssim`, the structural similarity of Wang et al. 2004 with a
    Gaussian window of 11 pixels and deviation 1.5; both are float32 [B].
    """
    a, b = originals.astype(jnp.float32) / 255, reconstructions.astype(jnp.float32) / 255
    psnr = -10 * jnp.log10(jnp.mean((a - b) ** 2, axis=(1, 2, 3)))
    return {"psnr": psnr, "ssim": _ssim(a, b)}


def _ssim(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the mean of Wang et al. 2004, equation 13: [B, H, W, C] in [0, 1] -> [B]."""
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window /= window.sum()
    rows, columns = (
        np.array([np.pad(window, (i, size - 11 - i)) for i in range(size - 10)], np.float32)
        for size in a.shape[1:3]
    )

    def blur(x: jax.Array) -> jax.Array:
        precision = jax.lax.Precision.HIGHEST
        return jnp.einsum("ij,bjkc,lk->bilc", rows, x, columns, precision=precision)

    mean_a, mean_b = blur(a), blur(b)
    covariance = blur(a * b) - mean_a * mean_b
    variances = blur(a * a + b * b) - mean_a**2 - mean_b**2
    c1, c2 = 0.01**2, 0.03**2
    index = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    index /= (mean_a**2 + mean_b**2 + c1) * (variances + c2)
    return jnp.mean(index, axis=(1, 2, 3))


@jax.jit
def sharpness(images: jax.Array) -> jax.Array:
    """Returns `symptoms.sharpness` on [0, 1] images: uint8 [B, H, W, C] -> float32 [B]."""
    return symptoms.sharpness(images.astype(jnp.float32) / 255)


def _fidelity_numbers(
    originals: Split, reconstructions: np.ndarray, progress: Progress
) -> list[Number]:
    values = map_batches(len(originals), lambda i: fidelity(originals[i], reconstructions[i]))
    if alexnet.available() and min(originals.image_shape[:2]) >= alexnet.MIN_SIZE:
        params = jax.device_put(alexnet.load())
        values["lpips"] = map_batches(
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
    units = number("vae", "", "active_units", active_units(means), error, None, len(means))
    error = jackknife_error(evaluation_key(seed, 0, Purpose.DISCREPANCY), z, prior_mmd)
    floor = prior_mmd(other_prior)
    return [units, number("vae", "", "posterior_prior_mmd", prior_mmd(z), error, floor, len(z))]
