"""Likelihood bounds of a VAE: evidence lower bound (ELBO) and importance-weighted bound (IWAE).

Bounds are in nats per image until converted by `bits_per_dim`; arrays of K samples have shape
[K, B, ...].
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import networks, randomness, vae
from vaegan_jax.data import preprocessing
from vaegan_jax.data.images import Split
from vaegan_jax.evaluation.batches import Progress, map_batches
from vaegan_jax.evaluation.number import Number, mean
from vaegan_jax.losses import vae as losses
from vaegan_jax.randomness import Purpose, Stage
from vaegan_jax.runtime import compilation

BIN_WIDTH = 2 / 255
"""The distance between adjacent grey values of images in [-1, 1]."""

Params = dict[str, optax.Params]
Rows = dict[str, jax.Array]


def dequantise(key: jax.Array, images: jax.Array) -> jax.Array:
    """Adds uniform noise of one bin's width to images in [-1, 1].

    Theis et al. 2015, arXiv 1511.01844, section 3.1: densities of discrete values are unbounded; a
    likelihood bound on dequantised images also bounds the probability of the discrete values.
    """
    return images + jax.random.uniform(key, images.shape, images.dtype, -0.5, 0.5) * BIN_WIDTH


def gaussian_log_likelihood(
    squared_error: jax.Array, dimensions: int, variance: jax.typing.ArrayLike
) -> jax.Array:
    """Returns log N(x; x', variance I) in nats from ``|x - x'|^2`` [...], summed over each image.

    The maximum-likelihood variance is the mean squared error per dimension (Rybkin et al. 2020,
    arXiv 2006.13202, equation 4).
    """
    return -0.5 * (squared_error / variance + dimensions * jnp.log(2 * math.pi * variance))


def log_normal(x: jax.Array, mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Returns log N(x; mean, exp(log_variance)), summed over the last axis: [..., L] -> [...]."""
    squares = (x - mean) ** 2 * jnp.exp(-log_variance)
    return -0.5 * jnp.sum(squares + log_variance + math.log(2 * math.pi), axis=-1)


def elbo(log_likelihood: jax.Array, mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Returns the evidence lower bound of each image: float32 [B].

    Kingma and Welling 2013, arXiv 1312.6114, equation 7, with the KL term in closed form.
    `log_likelihood` is log p(x|z) of K posterior samples, [K, B]; `mean` and `log_variance` are the
    posterior's, [B, L].
    """
    return jnp.mean(log_likelihood, axis=0) - jnp.sum(losses.kl(mean, log_variance), axis=-1)


def iwae(
    log_likelihood: jax.Array, z: jax.Array, mean: jax.Array, log_variance: jax.Array
) -> jax.Array:
    """Returns the importance-weighted bound of each image, float32 [B]; it tightens with K.

    Burda et al. 2015, arXiv 1509.00519, equation 8. Arguments as for `elbo`; `z` are the posterior
    samples, float32 [K, B, L].
    """
    prior = log_normal(z, jnp.zeros_like(z), jnp.zeros_like(z))
    posterior = log_normal(z, mean[None], log_variance[None])
    weights = log_likelihood + prior - posterior
    return jax.nn.logsumexp(weights, axis=0) - math.log(len(weights))


def bits_per_dim(bound: jax.Array, dimensions: int) -> jax.Array:
    """Converts a bound in nats for dequantised images in [-1, 1] to bits/dim."""
    return -bound / (dimensions * math.log(2)) - math.log2(BIN_WIDTH)


def decoder_variance(config: ConfigDict, params: Params) -> float | None:
    """Returns the Gaussian decoder variance implied by the training loss, or None.

    A KL term of weight b is that of the evidence lower bound if the loss is divided by b. Squared
    error then has variance b / 2 (see `losses.vae`), and `gaussian` with a learned variance s has
    b s. Cross entropy is not a density of grey values and implies none, and neither does b = 0.
    """
    weight = float(config.vae.kl_weight)
    if weight == 0:
        return None
    if "likelihood" in params:
        return weight * float(jnp.exp(params["likelihood"]["log_variance"]))
    return weight / 2 if config.vae.reconstruction == "squared_error" else None


@compilation.per_config
def make_bounds(
    config: ConfigDict, image_shape: tuple[int, int, int], draws: int
) -> Callable[[Params, jax.Array, jax.Array, jax.Array, jax.Array], Rows]:
    """Returns the jitted ``bounds(params, images, indices, key, variances) -> rows``.

    `params` is ``{"encoder", "decoder"}``; `images` are uint8 [B, H, W, C]; `indices`, int32 [B],
    are their positions in the data set, folded into `key`; `variances` are V Gaussian decoder
    variances. For each dequantised image, `rows` has `squared_error` [B], the mean squared distance
    to the decoded samples; `kl` [B] in nats; `elbo` and `iwae` [B, V] in bits/dim. `draws` is K in
    IWAE-K.
    """
    encode = networks.make_encode(config.model, image_shape)
    decode = networks.make_decode(config.model, image_shape)
    dimensions = math.prod(image_shape)

    @jax.jit
    def bounds(
        params: Params, images: jax.Array, indices: jax.Array, key: jax.Array, variances: jax.Array
    ) -> Rows:
        def keys(purpose: Purpose) -> Any:
            purpose_key = randomness.draw_key(key, purpose)
            return jax.vmap(jax.random.fold_in, (None, 0))(purpose_key, indices)

        scaled = preprocessing.to_network(images)
        dequantised = jax.vmap(dequantise)(keys(Purpose.DEQUANTISATION), scaled)
        mean, log_variance = encode(params["encoder"], scaled)
        shape = (draws, mean.shape[-1])
        eps = jax.vmap(lambda key: jax.random.normal(key, shape), out_axes=1)(
            keys(Purpose.POSTERIOR)
        )
        z = vae.reparameterize(mean[None], log_variance[None], eps)

        def squared_error(z: jax.Array) -> jax.Array:
            return jnp.sum((dequantised - decode(params["decoder"], z)) ** 2, axis=(1, 2, 3))

        errors = jax.lax.map(squared_error, z)

        def both_bounds(variance: jax.Array) -> tuple[jax.Array, jax.Array]:
            log_likelihood = gaussian_log_likelihood(errors, dimensions, variance)
            lower = elbo(log_likelihood, mean, log_variance)
            weighted = iwae(log_likelihood, z, mean, log_variance)
            return bits_per_dim(lower, dimensions), bits_per_dim(weighted, dimensions)

        lower, weighted = jax.vmap(both_bounds, out_axes=1)(variances)
        kl = jnp.sum(losses.kl(mean, log_variance), axis=-1)
        error = jnp.mean(errors, axis=0)
        return {"squared_error": error, "kl": kl, "elbo": lower, "iwae": weighted}

    return bounds


def likelihood_numbers(
    config: ConfigDict, params: Params, train: Split, test: Split, progress: Progress
) -> list[Number]:
    """Returns likelihood bounds of test images in bits/dim.

    The bounds are computed with the decoder variance implied by the training loss, if any, and with
    the maximum-likelihood variance of reconstructed training images (`calibrated_`).
    """

    def compute(
        images: Split, index: int, draws: int, variances: list[float], label: str
    ) -> dict[str, np.ndarray]:
        bounds = make_bounds(config, images.image_shape, draws)
        key = randomness.step_key(config.seed, Stage.EVALUATION, index)
        rows: dict[str, np.ndarray] = map_batches(
            min(config.evaluation.max_likelihood_images, len(images)),
            lambda i: bounds(
                params,
                jnp.asarray(images[i]),
                jnp.asarray(i, jnp.int32),
                key,
                jnp.asarray(variances, jnp.float32),
            ),
            progress=progress,
            label=label,
        )
        return rows

    train_rows = compute(train, 1, 1, [1.0], "calibration of the decoder")
    calibrated = float(train_rows["squared_error"].mean()) / math.prod(train.image_shape)
    implied = decoder_variance(config, params)
    variances = {"calibrated_": calibrated} | ({} if implied is None else {"": implied})
    draws = config.evaluation.iwae_samples
    rows = compute(test, 2, draws, list(variances.values()), "bounds on the likelihood")
    values = {"kl_nats": rows["kl"]}
    for i, prefix in enumerate(variances):
        values[f"{prefix}elbo_bits_per_dim"] = rows["elbo"][:, i]
        values[f"{prefix}iwae_{draws}_bits_per_dim"] = rows["iwae"][:, i]
    return [mean("vae", name, row) for name, row in values.items()]
