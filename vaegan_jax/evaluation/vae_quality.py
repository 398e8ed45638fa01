"""A trained VAE, measured image by image: its bounds, and what its reconstructions lose."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import networks, randomness, vae
from vaegan_jax.data import preprocessing
from vaegan_jax.evaluation import vae_bounds
from vaegan_jax.losses import symptoms
from vaegan_jax.losses import vae as losses
from vaegan_jax.randomness import Purpose

Params = dict[str, optax.Params]
Rows = dict[str, jax.Array]


def own_variance(config: ConfigDict, params: Params) -> float | None:
    """Returns the variance of the Gaussian decoder that the training loss implies, or None.

    The squared error with a KL weight of b is a Gaussian of variance b / 2, see
    `losses.vae.squared_error`; `gaussian` may have learned its own; cross entropy on grey values
    is no density of theirs.
    """
    if "likelihood" in params:
        return float(jnp.exp(params["likelihood"]["log_variance"]))
    if config.vae.reconstruction == "squared_error" and config.vae.kl_weight > 0:
        return float(config.vae.kl_weight) / 2
    return None


def make_posterior(
    config: ConfigDict, image_shape: tuple[int, int, int]
) -> Callable[[optax.Params, jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns the jitted ``posterior(params, uint8 [B, H, W, C]) -> (mean, log variance)``.

    The params are the encoder's; mean and log variance are float32 [B, L].
    """
    encoder = networks.make_encoder(config.model, image_shape)

    @jax.jit
    def posterior(params: optax.Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, log_variance = networks.apply(encoder, params, preprocessing.to_network(images))
        return mean, log_variance

    return posterior


def make_bounds(
    config: ConfigDict, image_shape: tuple[int, int, int], draws: int
) -> Callable[[Params, jax.Array, jax.Array, jax.Array, jax.Array], Rows]:
    """Returns the jitted ``bounds(params, images, indices, key, variances) -> rows``.

    It takes ``{"encoder", "decoder"}``, images uint8 [B, H, W, C], their int32 indices [B] in the
    data set, by which all draws are keyed, a key, and V variances of a Gaussian decoder. Per image
    it gives, on dequantised pixels: `squared_error` [B], the mean over the draws of the squared
    distance to the decoded draw; `kl` [B], nats; `elbo` and `iwae` [B, V], bits/dim.

    Args:
      config: the run's config.
      image_shape: (height, width, channels).
      draws: of the posterior for each image, the K of IWAE-K.
    """
    encoder = networks.make_encoder(config.model, image_shape)
    decoder = networks.make_decoder(config.model, image_shape)
    height, width, channels = image_shape
    dimensions = height * width * channels

    @jax.jit
    def bounds(
        params: Params, images: jax.Array, indices: jax.Array, key: jax.Array, variances: jax.Array
    ) -> Rows:
        def keys(purpose: Purpose) -> jax.Array:
            of_all = randomness.draw_key(key, purpose)
            folded: jax.Array = jax.vmap(jax.random.fold_in, (None, 0))(of_all, indices)
            return folded

        scaled = preprocessing.to_network(images)
        spread = jax.vmap(vae_bounds.dequantise)(keys(Purpose.DEQUANTISATION), scaled)
        mean, log_variance = networks.apply(encoder, params["encoder"], scaled)
        shape = (draws, mean.shape[-1])
        eps = jax.vmap(lambda key: jax.random.normal(key, shape), out_axes=1)(
            keys(Purpose.POSTERIOR)
        )
        z = vae.reparameterize(mean[None], log_variance[None], eps)

        def error(z: jax.Array) -> jax.Array:
            decoded = jnp.tanh(networks.apply(decoder, params["decoder"], z))
            return jnp.sum((spread - decoded) ** 2, axis=(1, 2, 3))

        errors = jax.lax.map(error, z)

        def both(variance: jax.Array) -> tuple[jax.Array, jax.Array]:
            log_likelihood = vae_bounds.gaussian_log_likelihood(errors, dimensions, variance)
            elbo = vae_bounds.elbo(log_likelihood, mean, log_variance)
            iwae = vae_bounds.iwae(log_likelihood, z, mean, log_variance)
            return (
                vae_bounds.bits_per_dim(elbo, dimensions),
                vae_bounds.bits_per_dim(iwae, dimensions),
            )

        elbo, iwae = jax.vmap(both, out_axes=1)(variances)
        kl = jnp.sum(losses.kl(mean, log_variance), axis=-1)
        return {"squared_error": jnp.mean(errors, axis=0), "kl": kl, "elbo": elbo, "iwae": iwae}

    return bounds


@jax.jit
def fidelity(originals: jax.Array, reconstructions: jax.Array) -> Rows:
    """Compares reconstructions with their originals, both uint8 [B, H, W, C].

    Returns:
      float32 [B] each: `psnr` (decibels; Wang et al. 2004, the peak being 255) and `ssim` (the
      same paper's structural similarity, a Gaussian window of 11 pixels and deviation 1.5; 1 is
      equal).
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
    """Returns the fine detail of images, see `symptoms.sharpness`: uint8 [B, H, W, C] -> [B].

    In units of the grey range squared.
    """
    return symptoms.sharpness(images.astype(jnp.float32) / 255)
