"""The transfer: the GAN's initial parameters from a VAE's checkpoint."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import checkpoints, gan, vae
from vaegan_jax.data.feed import ImageArray
from vaegan_jax.evaluation.batches import map_batches
from vaegan_jax.evaluation.latents import make_posterior

_BATCH = 64


def make_init(
    config: ConfigDict, images: ImageArray, directory: pathlib.Path, step: int
) -> gan.GANInit:
    """Returns the initial parameters that ``config.transfer`` takes from a VAE's checkpoint.

    `directory` is the folder of its checkpoints. The aggregated posterior is that of the training
    images, uint8 [N, H, W, C].

    Raises:
      UserError: if any leaf is missing, unexpected, or of another shape or dtype; it lists all.
    """
    _, height, width, channels = images.shape
    init = functools.partial(vae.init, config, (height, width, channels))
    params = jax.eval_shape(init).params
    settings = config.transfer
    names = ["decoder"]
    if settings.discriminator == "encoder" or settings.match_posterior:
        names.append("encoder")
    parts = checkpoints.read(directory, step, {("params", name): params[name] for name in names})
    initial = gan.identity_init(parts["params", "decoder"], config.model.latent_size)
    encoder = parts["params", names[-1]]
    if settings.match_posterior:
        mean, covariance = aggregated_posterior(config, encoder, images)
        initial = match_posterior(initial, mean, covariance)
    if settings.discriminator == "encoder":
        initial = initial._replace(discriminator={"trunk": encoder["trunk"]})
    return initial


def aggregated_posterior(
    config: ConfigDict, encoder_params: optax.Params, images: ImageArray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and covariance of the aggregated posterior, the latents that train a decoder.

    The aggregated posterior is the mixture of all images' posteriors (Makhzani et al. 2015, arXiv
    1511.05644, equation 1). Its covariance is that of the means plus the mean variance: float64 [L]
    and [L, L] for images uint8 [N, H, W, C].
    """
    _, height, width, channels = images.shape
    posterior = make_posterior(config.model, (height, width, channels))

    def moments(indices: np.ndarray) -> tuple[jax.Array, jax.Array]:
        mean, log_variance = posterior(encoder_params, jnp.asarray(images[indices]))
        return mean, jnp.exp(log_variance)

    size = config.model.latent_size
    total, products, variances = np.zeros(size), np.zeros((size, size)), np.zeros(size)
    all_means, all_variances = map_batches(len(images), moments, _BATCH)
    for first in range(0, len(images), _BATCH):  # float64 sums in a fixed order
        rows = slice(first, first + _BATCH)
        means = all_means[rows].astype(np.float64)
        total += means.sum(axis=0)
        products += means.T @ means
        variances += all_variances[rows].astype(np.float64).sum(axis=0)
    mean = total / len(images)
    covariance = products / len(images) - np.outer(mean, mean) + np.diag(variances / len(images))
    return mean, covariance


def match_posterior(initial: gan.GANInit, mean: np.ndarray, covariance: np.ndarray) -> gan.GANInit:
    """Folds the map from the prior to the aggregated posterior into the generator's first layer.

    The Gaussian fit of the posterior has mean m and covariance ``L L^T`` (Cholesky). The map is
    ``z -> m + L z``, so the first layer ``W z + b`` becomes ``(W L) z + (W m + b)``. `initial` has
    a decoder's parameters; m is float64 [L], the covariance float64 [L, L].
    """
    factor = np.linalg.cholesky(covariance)
    dense = initial.generator["dense"]
    # Flax keeps W transposed: its layer is z @ kernel + bias.
    kernel = np.asarray(dense["kernel"], np.float64)
    folded = {
        "kernel": jnp.asarray(factor.T @ kernel, jnp.float32),
        "bias": jnp.asarray(np.asarray(dense["bias"], np.float64) + mean @ kernel, jnp.float32),
    }
    return initial._replace(
        generator={**initial.generator, "dense": folded},
        latent_mean=jnp.asarray(mean, jnp.float32),
        latent_factor=jnp.asarray(factor, jnp.float32),
    )


def to_encoder_latents(mean: jax.Array, factor: jax.Array, latents: jax.Array) -> jax.Array:
    """Maps a generator's latents to the VAE's, ``m + L z``: float32 [B, L] -> [B, L]."""
    return mean[None] + jnp.matmul(latents, factor.T, precision=jax.lax.Precision.HIGHEST)


def to_generator_latents(mean: jax.Array, factor: jax.Array, latents: jax.Array) -> jax.Array:
    """Maps the VAE's latents to a generator's: the inverse of `to_encoder_latents`."""
    return jax.scipy.linalg.solve_triangular(factor, (latents - mean[None]).T, lower=True).T
