"""The numbers of a VAE: its reconstructions, its bounds on the likelihood, its latent."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vaegan_jax import randomness
from vaegan_jax.data.images import Split
from vaegan_jax.evaluation import distances, generation, uncertainty, vae_quality
from vaegan_jax.evaluation.backbones import lpips
from vaegan_jax.evaluation.batches import Watch, map_batches
from vaegan_jax.evaluation.number import Number, choose, draw_key, mean, number
from vaegan_jax.losses import symptoms
from vaegan_jax.randomness import Purpose


class Units(NamedTuple):
    """The latent dimensions of a VAE over held-out images, float32 [L] each.

    Attributes:
      mean: of the posterior means.
      variance: of the posterior means; above 0.01 a unit is active.
    """

    mean: np.ndarray
    variance: np.ndarray


class Judged(NamedTuple):
    """What there is to say of a VAE.

    Attributes:
      reconstructions: of held-out images, from their posterior means, uint8 [N, H, W, C].
      units: its latent dimensions.
      numbers: of reconstructions and latent.
    """

    reconstructions: np.ndarray
    units: Units
    numbers: list[Number]


def judge(
    config: ConfigDict,
    params: vae_quality.Params,
    train: Split,
    held_out: Split,
    count: int,
    watch: Watch,
) -> Judged:
    """Evaluators a VAE.

    Args:
      config: the run's config.
      params: ``{"encoder", "decoder"}``, and `likelihood` where that was learned.
      train: training images, by which the decoder's variance is calibrated.
      held_out: what is reconstructed and encoded.
      count: how many of them at most.
      watch: sees all batches go by.
    """
    image_shape = held_out.image_shape
    seed = config.seed
    originals = held_out.take(choose(draw_key(seed, 3, Purpose.SUBSET), len(held_out), count))
    encode = vae_quality.make_posterior(config, image_shape)
    means, log_variances = map_batches(
        len(originals),
        lambda i: encode(params["encoder"], jnp.asarray(originals[i])),
        watch=watch,
        label="posteriors",
    )
    decode = generation.make_decode(config.model, image_shape)
    reconstructions = generation.samples(
        decode, params["decoder"], means, watch, "VAE reconstructions"
    )
    units = Units(means.mean(axis=0), means.var(axis=0))
    numbers = [
        *_fidelity(originals, reconstructions, watch),
        *_likelihood(config, params, train, held_out, watch),
        *_latent(seed, means, log_variances),
    ]
    return Judged(reconstructions, units, numbers)


def _fidelity(originals: Split, reconstructions: np.ndarray, watch: Watch) -> list[Number]:
    """Compares reconstructions with their originals."""
    found = map_batches(
        len(originals), lambda i: vae_quality.fidelity(originals[i], reconstructions[i])
    )
    if lpips.available():
        params = jax.device_put(lpips.load())
        found["lpips"] = map_batches(
            len(originals),
            lambda i: _lpips(params, originals[i], reconstructions[i]),
            watch=watch,
            label="LPIPS",
        )
    return [mean("vae_reconstructions", name, values) for name, values in found.items()]


@jax.jit
def _lpips(params: Any, originals: jax.Array, reconstructions: jax.Array) -> jax.Array:
    a, b = (x.astype(jnp.float32) / 127.5 - 1 for x in (originals, reconstructions))
    return lpips.distance(params, a, b)


def _likelihood(
    config: ConfigDict, params: vae_quality.Params, train: Split, held_out: Split, watch: Watch
) -> list[Number]:
    """Bounds the likelihood of held-out images, in bits/dim.

    Once for the variance that the training loss implies, and once "calibrated", for the one under
    which reconstructions of training images are likeliest.
    """
    wanted = config.evaluation

    def rows_of(
        images: Split, index: int, draws: int, variances: list[float], label: str
    ) -> dict[str, np.ndarray]:
        bounds = vae_quality.make_bounds(config, images.image_shape, draws)
        key = randomness.step_key(config.seed, randomness.Stage.EVALUATION, index)
        of_all = jnp.asarray(variances, jnp.float32)
        rows: dict[str, np.ndarray] = map_batches(
            min(wanted.max_likelihood_images, len(images)),
            lambda i: bounds(
                params, jnp.asarray(images[i]), jnp.asarray(i, jnp.int32), key, of_all
            ),
            watch=watch,
            label=label,
        )
        return rows

    on_training = rows_of(train, 1, 1, [1.0], "calibration of the decoder")
    calibrated = float(on_training["squared_error"].mean()) / math.prod(train.image_shape)
    own = vae_quality.own_variance(config, params)
    variances = {"calibrated_": calibrated} | ({} if own is None else {"": own})
    rows = rows_of(
        held_out, 2, wanted.iwae_samples, list(variances.values()), "bounds on the likelihood"
    )
    named = {"kl_nats": rows["kl"]}
    for i, prefix in enumerate(variances):
        named[f"{prefix}elbo_bits_per_dim"] = rows["elbo"][:, i]
        named[f"{prefix}iwae_{wanted.iwae_samples}_bits_per_dim"] = rows["iwae"][:, i]
    return [mean("vae", name, values) for name, values in named.items()]


def _latent(seed: int, means: np.ndarray, log_variances: np.ndarray) -> list[Number]:
    """Says what the latent is used for, and how far the encoded data is from the prior."""

    def active(rows: np.ndarray) -> jax.Array:
        return symptoms.active_units(jnp.asarray(rows))

    key = draw_key(seed, 0, Purpose.ACTIVE_UNITS)
    found = [
        number(
            "vae",
            "",
            "active_units",
            active(means),
            uncertainty.jackknife_error(key, means, active),
            None,
            len(means),
        )
    ]
    eps = jax.random.normal(draw_key(seed, 0, Purpose.POSTERIOR), means.shape)
    z = np.asarray(means + np.exp(0.5 * log_variances) * eps)
    prior, fresh = randomness.latents(draw_key(seed, 3, Purpose.LATENT), (2, *means.shape))
    kernel = distances.gaussian_kernel(math.sqrt(means.shape[1]))

    def discrepancy(rows: np.ndarray | jax.Array) -> jax.Array:
        return distances.mmd(kernel, jnp.asarray(rows), prior)

    key = draw_key(seed, 0, Purpose.DISCREPANCY)
    found.append(
        number(
            "vae",
            "",
            "posterior_prior_mmd",
            discrepancy(z),
            uncertainty.jackknife_error(key, z, discrepancy),
            discrepancy(fresh),
            len(z),
        )
    )
    return found
