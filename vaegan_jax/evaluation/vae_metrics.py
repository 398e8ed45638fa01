"""VAE metrics: reconstruction fidelity, latent use and likelihood bounds.

Arrays of K posterior samples have shape [K, B, ...].
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.stats import norm
from ml_collections import ConfigDict

from vaegan_jax import networks, randomness, vae
from vaegan_jax.data import preprocessing
from vaegan_jax.data.images import Split
from vaegan_jax.evaluation import latents, pixels
from vaegan_jax.evaluation.backbones import alexnet
from vaegan_jax.evaluation.batches import MakeProgress, map_batches
from vaegan_jax.evaluation.number import Number, jackknife_error, mean, random_subset
from vaegan_jax.losses import symptoms
from vaegan_jax.losses import vae as losses
from vaegan_jax.randomness import Purpose, Stage
from vaegan_jax.runtime import compilation

_BIN_WIDTH = 2 / 255  # the distance between adjacent grey values of images in [-1, 1]

Params = dict[str, optax.Params]
"""``{"encoder", "decoder"}``."""
Rows = dict[str, jax.Array]


def evaluate_vae(
    config: ConfigDict,
    params: Params,
    train: Split,
    test: Split,
    count: int,
    progress: MakeProgress,
) -> tuple[list[Number], np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Evaluates a VAE on up to `count` test images; training images calibrate its decoder.

    Returns:
      The numbers; the decoded posterior means of the test images, uint8 [N, H, W, C]; and the mean
      and the variance of these posterior means, float32 [L] each.
    """
    originals = test.take(random_subset(config.seed, 3, len(test), count))
    posterior = latents.make_posterior(config.model, test.image_shape)
    means, _ = map_batches(
        len(originals),
        lambda i: posterior(params["encoder"], jnp.asarray(originals[i])),
        progress=progress("posteriors"),
    )
    decode = jax.jit(networks.make_decode(config.model, test.image_shape))
    reconstructions = latents.decode_images(
        decode, params["decoder"], means, progress("VAE reconstructions")
    )
    fidelity = {
        "psnr": map_batches(len(means), lambda i: pixels.psnr(originals[i], reconstructions[i]))
    }
    if alexnet.available() and min(test.image_shape[:2]) >= alexnet.MIN_SIZE:
        lpips, weights = jax.jit(alexnet.lpips), jax.device_put(alexnet.load())
        fidelity["lpips_alex"] = map_batches(
            len(means),
            lambda i: lpips(weights, originals[i], reconstructions[i]),
            progress=progress("LPIPS"),
        )

    def active_units(means: np.ndarray) -> float:
        return float(symptoms.active_units(jnp.asarray(means)))

    error = jackknife_error(config.seed, 0, means, active_units, purpose=Purpose.ACTIVE_UNITS)
    numbers = [
        *(mean("vae_reconstructions", name, values) for name, values in fidelity.items()),
        *likelihood_numbers(config, params, train, test, progress),
        Number("vae", "", "", "active_units", active_units(means), error, None, len(means)),
    ]
    return numbers, reconstructions, (means.mean(axis=0), means.var(axis=0))


def iwae(
    log_likelihood: jax.Array, z: jax.Array, mean: jax.Array, log_variance: jax.Array
) -> jax.Array:
    """Returns the importance-weighted bound of each image, float32 [B]; it tightens with K.

    In nats. Burda et al. 2015, arXiv 1509.00519, equation 8. `log_likelihood`, [K, B], is log
    p(x|z) of K posterior samples z, [K, B, L]; `mean` and `log_variance` are of the posterior,
    [B, L].
    """
    log_prior = norm.logpdf(z)
    log_posterior = norm.logpdf(z, mean[None], jnp.exp(0.5 * log_variance)[None])
    weights = log_likelihood + jnp.sum(log_prior - log_posterior, axis=-1)
    return jax.nn.logsumexp(weights, axis=0) - math.log(len(weights))


@compilation.per_config
def make_bounds(
    config: ConfigDict, image_shape: tuple[int, int, int], draws: int
) -> Callable[[Params, jax.Array, jax.Array, jax.Array, jax.typing.ArrayLike], Rows]:
    """Returns the jitted ``bounds(params, images, indices, key, variance) -> rows``.

    `images` are uint8 [B, H, W, C]; `indices`, int32 [B], are their positions in the data set,
    folded into `key`; `variance` is that of a Gaussian decoder. `rows` has, for each image, float32
    [B]: `squared_error`, the mean squared distance to the decoded samples; `kl` in nats; and in
    bits/dim `elbo` (Kingma and Welling 2013, arXiv 1312.6114, equation 7, with the KL term in
    closed form) and `iwae` with K = `draws`.

    To images in [-1, 1], uniform noise of one bin's width is added (Theis et al. 2015,
    arXiv 1511.01844, section 3.1): densities of discrete values are unbounded, and a bound of
    dequantised images also bounds the probability of the discrete values.
    """
    encode = networks.make_encode(config.model, image_shape)
    decode = networks.make_decode(config.model, image_shape)
    dimensions = math.prod(image_shape)

    @jax.jit
    def bounds(
        params: Params,
        images: jax.Array,
        indices: jax.Array,
        key: jax.Array,
        variance: jax.typing.ArrayLike,
    ) -> Rows:
        def keys(purpose: Purpose) -> Any:
            purpose_key = randomness.draw_key(key, purpose)
            return jax.vmap(jax.random.fold_in, (None, 0))(purpose_key, indices)

        scaled = preprocessing.to_network(images)
        noise = jax.vmap(lambda key: jax.random.uniform(key, image_shape, minval=-0.5, maxval=0.5))
        dequantised = scaled + noise(keys(Purpose.DEQUANTISATION)) * _BIN_WIDTH
        mean, log_variance = encode(params["encoder"], scaled)
        shape = (draws, mean.shape[-1])
        eps = jax.vmap(lambda key: jax.random.normal(key, shape), out_axes=1)
        z = vae.reparameterize(mean[None], log_variance[None], eps(keys(Purpose.POSTERIOR)))

        def squared_error(z: jax.Array) -> jax.Array:
            return jnp.sum((dequantised - decode(params["decoder"], z)) ** 2, axis=(1, 2, 3))

        errors = jax.lax.map(squared_error, z)
        log_likelihood = -0.5 * (errors / variance + dimensions * jnp.log(2 * math.pi * variance))
        kl = jnp.sum(losses.kl(mean, log_variance), axis=-1)
        nats = {
            "elbo": jnp.mean(log_likelihood, axis=0) - kl,
            "iwae": iwae(log_likelihood, z, mean, log_variance),
        }
        bits = {
            name: -bound / (dimensions * math.log(2)) - math.log2(_BIN_WIDTH)
            for name, bound in nats.items()
        }
        return {"squared_error": jnp.mean(errors, axis=0), "kl": kl} | bits

    return bounds


def likelihood_numbers(
    config: ConfigDict, params: Params, train: Split, test: Split, progress: MakeProgress
) -> list[Number]:
    """Returns likelihood bounds of test images in bits/dim.

    The decoder is Gaussian with the maximum-likelihood variance, the mean squared error per
    dimension, of reconstructed training images (Rybkin et al. 2020, arXiv 2006.13202, equation 4).
    So the bounds of VAEs with different losses and KL weights are comparable.
    """

    def compute(
        images: Split, index: int, draws: int, variance: float, label: str
    ) -> dict[str, np.ndarray]:
        bounds = make_bounds(config, images.image_shape, draws)
        key = randomness.step_key(config.seed, Stage.EVALUATION, index)
        rows: dict[str, np.ndarray] = map_batches(
            min(config.evaluation.max_likelihood_images, len(images)),
            lambda i: bounds(
                params, jnp.asarray(images[i]), jnp.asarray(i, jnp.int32), key, variance
            ),
            progress=progress(label),
        )
        return rows

    draws = config.evaluation.iwae_samples
    errors = compute(train, 1, 1, 1.0, "calibration of the decoder")["squared_error"]
    variance = float(errors.mean()) / math.prod(train.image_shape)
    rows = compute(test, 2, draws, variance, "bounds on the likelihood")
    return [
        mean("vae", "kl_nats", rows["kl"]),
        mean("vae", "calibrated_elbo_bits_per_dim", rows["elbo"]),
        mean("vae", f"calibrated_iwae_{draws}_bits_per_dim", rows["iwae"]),
    ]
