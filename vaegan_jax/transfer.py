"""The transfer: the GAN's initial parameters from a VAE's checkpoint."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import checkpoints, gan, networks, vae
from vaegan_jax.data import preprocessing
from vaegan_jax.data.feed import ImageArray
from vaegan_jax.evaluation.batches import map_batches

_BATCH = 64


def make_init(
    config: ConfigDict, images: ImageArray, directory: pathlib.Path, step: int
) -> gan.GANInit:
    """Returns what ``config.transfer`` takes from a VAE.

    Args:
      config: the run's config.
      images: the training images, uint8 [N, H, W, C], over which posteriors are matched.
      directory: the folder of the VAE's checkpoints.
      step: which of them.

    Raises:
      UserError: where a leaf is missing, extra, or of another shape or dtype; it lists them all.
    """
    image_shape = (images.shape[1], images.shape[2], images.shape[3])
    params = jax.eval_shape(functools.partial(vae.init, config, image_shape)).params

    wanted = config.transfer
    names = ["decoder"]
    if wanted.discriminator == "encoder" or wanted.match_posterior:
        names.append("encoder")
    parts = checkpoints.read(directory, step, {("params", name): params[name] for name in names})
    begun = gan.identity_init(parts["params", "decoder"], config.model.latent_size)
    encoder = parts["params", names[-1]]
    if wanted.match_posterior:
        mean, covariance = aggregated_posterior(config, encoder, images)
        begun = match_posterior(begun, mean, covariance)
    if wanted.discriminator == "encoder":
        begun = begun._replace(trunk=encoder["trunk"])
    return begun


def aggregated_posterior(
    config: ConfigDict, encoder_params: optax.Params, images: ImageArray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and the covariance of the latents that a decoder was trained on.

    The aggregated posterior is the mixture of all images' posteriors (Makhzani et al. 2015, arXiv
    1511.05644, equation 1). Its covariance is that of the means plus the mean variance.

    Args:
      config: the run's config.
      encoder_params: of the encoder.
      images: uint8 [N, H, W, C].

    Returns:
      float64 [L] and [L, L].
    """
    image_shape = (images.shape[1], images.shape[2], images.shape[3])
    encode = networks.make_encode(config.model, image_shape)

    @jax.jit
    def posterior(params: optax.Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, log_variance = encode(params, preprocessing.to_network(images))
        return mean, jnp.exp(log_variance)

    size = config.model.latent_size
    total, products, variances = np.zeros(size), np.zeros((size, size)), np.zeros(size)
    all_means, all_variances = map_batches(
        len(images), lambda indices: posterior(encoder_params, images[indices]), _BATCH
    )
    for first in range(0, len(images), _BATCH):  # float64 sums in a fixed order
        rows = slice(first, first + _BATCH)
        means = all_means[rows].astype(np.float64)
        total += means.sum(axis=0)
        products += means.T @ means
        variances += all_variances[rows].astype(np.float64).sum(axis=0)
    mean = total / len(images)
    covariance = products / len(images) - np.outer(mean, mean) + np.diag(variances / len(images))
    return mean, covariance


def match_posterior(start: gan.GANInit, mean: np.ndarray, covariance: np.ndarray) -> gan.GANInit:
    """Folds the map of the prior to the aggregated posterior into the generator's first layer.

    With a Gaussian of this mean m and covariance ``L L^T`` (L lower triangular, of Cholesky) the
    map is ``z -> m + L z``, and a first layer ``W z + b`` becomes ``(W L) z + (W m + b)``.

    Args:
      start: with a decoder's parameters.
      mean: m, float64 [L].
      covariance: float64 [L, L].
    """
    factor = np.linalg.cholesky(covariance)
    dense = start.generator["dense"]
    # Flax keeps W transposed: its layer is z @ kernel + bias.
    kernel = np.asarray(dense["kernel"], np.float64)
    folded = {
        "kernel": jnp.asarray(factor.T @ kernel, jnp.float32),
        "bias": jnp.asarray(np.asarray(dense["bias"], np.float64) + mean @ kernel, jnp.float32),
    }
    return start._replace(
        generator={**start.generator, "dense": folded},
        latent_mean=jnp.asarray(mean, jnp.float32),
        latent_factor=jnp.asarray(factor, jnp.float32),
    )


def to_encoder_latents(mean: jax.Array, factor: jax.Array, latents: jax.Array) -> jax.Array:
    """Returns the decoder's latents that match a generator's: ``m + L z``, all rows [B, L]."""
    return mean[None] + jnp.matmul(latents, factor.T, precision=jax.lax.Precision.HIGHEST)


def to_generator_latents(mean: jax.Array, factor: jax.Array, latents: jax.Array) -> jax.Array:
    """Returns the generator's latents for a decoder's: the inverse of `to_encoder_latents`."""
    return jax.scipy.linalg.solve_triangular(factor, (latents - mean[None]).T, lower=True).T
