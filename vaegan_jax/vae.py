"""The VAE: state, initialisation, loss and train step, as pure functions."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from vaegan_jax import networks, registry
from vaegan_jax.losses import symptoms
from vaegan_jax.losses import vae as losses
from vaegan_jax.losses.terms import Term, VAEBatch, add_terms, make_terms
from vaegan_jax.randomness import Purpose, Stage, draw_key, step_key
from vaegan_jax.runtime import compilation, parallel

Scalars = dict[str, jax.Array]

# About the residual variance early in training. Adam moves the parameter by the learning rate per
# step, so a distant initial value would cost thousands of steps.
_INITIAL_LOG_VARIANCE = math.log(0.1)


class VAEState(flax.struct.PyTreeNode):
    """Everything that a train step changes.

    Attributes:
      step: int32 scalar, steps taken.
      params: ``{"encoder": ..., "decoder": ...}``, float32; with ``vae.decoder_variance=learned``
        also ``{"likelihood": {"log_variance": scalar}}``.
      optimizer: the state of Adam.
    """

    step: jax.Array
    params: dict[str, optax.Params]
    optimizer: optax.OptState


def init(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    seed: jax.typing.ArrayLike | None = None,
) -> VAEState:
    """Returns the initial state of a VAE; `seed` is uint32, ``config.seed`` by default."""
    key = step_key(config.seed if seed is None else seed, Stage.VAE, 0)
    encoder = networks.make_encoder(config.model, image_shape)
    decoder = networks.make_decoder(config.model, image_shape)
    images = jnp.zeros((1, *image_shape))
    latents = jnp.zeros((1, config.model.latent_size))
    params = {
        "encoder": encoder.init(draw_key(key, Purpose.ENCODER), images)["params"],
        "decoder": decoder.init(draw_key(key, Purpose.DECODER), latents)["params"],
    }
    if config.vae.decoder_variance == "learned":
        params["likelihood"] = {"log_variance": jnp.asarray(_INITIAL_LOG_VARIANCE)}
    return VAEState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimizer=_optimizer(config).init(params),
    )


def reparameterize(mean: jax.Array, log_variance: jax.Array, eps: jax.Array) -> jax.Array:
    """Returns ``z = mu + sigma * eps``, all [B, L] (Kingma and Welling 2013, section 2.4)."""
    return mean + jnp.exp(0.5 * log_variance) * eps


class VAE(NamedTuple):
    """The networks, loss and optimizer of a VAE, as functions.

    Attributes:
      encode: (encoder params, images float32 [B, H, W, C] in [-1, 1]) -> mean and log variance of
        the posterior, float32 [B, L] each.
      decode: (decoder params, latents float32 [B, L]) -> logits float32 [B, H, W, C].
      reconstruction: (images, logits) -> nats float32 [B].
      terms: further terms of the loss.
      kl_weight: step -> the weight of the KL divergence.
      optimizer: of all parameters.
      config: the section `vae` of the config.
      latent_size: L.
    """

    encode: Callable[[optax.Params, jax.Array], tuple[jax.Array, jax.Array]]
    decode: Callable[[optax.Params, jax.Array], jax.Array]
    reconstruction: losses.Reconstruction
    terms: tuple[Term, ...]
    kl_weight: Callable[[jax.Array], jax.Array]
    optimizer: optax.GradientTransformation
    config: ConfigDict
    latent_size: int


def make_vae(config: ConfigDict, image_shape: tuple[int, int, int]) -> VAE:
    """Returns the VAE that a config describes.

    Raises:
      UserError: if a user's term cannot be loaded.
    """
    settings = config.vae
    schedule: losses.Schedule = registry.load("kl_schedule", settings.kl_schedule)

    def kl_weight(step: jax.Array) -> jax.Array:
        # A weight b is the variance b/2 of a Gaussian decoder: see losses.vae.squared_error.
        factor = schedule(step, settings.steps, settings.kl_warmup_steps, settings.kl_cycles)
        weight: jax.Array = settings.kl_weight * factor
        return weight

    return VAE(
        encode=networks.make_encode(config.model, image_shape),
        decode=functools.partial(networks.apply, networks.make_decoder(config.model, image_shape)),
        reconstruction=losses.make_reconstruction(settings.reconstruction),
        terms=make_terms("vae_term", settings.terms),
        kl_weight=kl_weight,
        optimizer=_optimizer(config),
        config=settings,
        latent_size=config.model.latent_size,
    )


def loss(
    params: dict[str, optax.Params],
    images: jax.Array,
    eps: jax.Array,
    step: jax.Array,
    key: jax.Array,
    vae: VAE,
) -> tuple[jax.Array, Scalars]:
    """Returns ``mean(reconstruction(x, x') + kl_weight * KL(q(z | x) || N(0, 1)))``, in nats.

    Kingma and Welling 2013, arXiv 1312.6114, equation 10, with the KL weight of Higgins et al.
    2017 (beta-VAE) at this step, and one draw ``z = mu + sigma * eps`` per image. The terms of
    ``vae.terms`` are added, and `key` is theirs.

    `params` and `step` are those of a `VAEState`, the images float32 [B, H, W, C] in [-1, 1], and
    `eps` float32 [B, L] standard normal.

    Returns:
      The loss and scalars: each term by its name, `loss`, `reconstruction` and `kl` in nats per
      image (up to the reconstruction's constant), `largest_kl` (of one dimension), `active_units`,
      the `sharpness` relative to the images, and the decoder's `variance` if it is learned.
    """
    mean, log_variance = vae.encode(params["encoder"], images)
    latents = reparameterize(mean, log_variance, eps)
    logits = vae.decode(params["decoder"], latents)
    decoded = jnp.tanh(logits)
    scalars = {
        "active_units": symptoms.active_units_of_batch(mean),
        "sharpness": symptoms.relative_sharpness(decoded, images),
    }
    reconstruction_term = vae.reconstruction
    if "likelihood" in params:
        pixel_log_variance = params["likelihood"]["log_variance"]
        reconstruction_term = losses.gaussian_given(pixel_log_variance)
        scalars["variance"] = jnp.exp(pixel_log_variance)
    reconstruction = jnp.mean(reconstruction_term(images, logits))
    kl_by_dimension = losses.kl(mean, log_variance)
    kl = jnp.mean(jnp.sum(kl_by_dimension, axis=-1))
    penalised_kl = losses.free_bits(kl_by_dimension, vae.config.free_bits)
    total = reconstruction + vae.kl_weight(step) * penalised_kl
    seen = images, logits, decoded, mean, log_variance, latents, step, key
    total, values = add_terms(total, vae.terms, VAEBatch(*seen))
    return total, scalars | values | {
        "loss": total,
        "reconstruction": reconstruction,
        "kl": kl,
        "largest_kl": jnp.max(jnp.mean(kl_by_dimension, axis=0)),
    }


def train_step(
    state: VAEState, images: jax.Array, key: jax.Array, vae: VAE
) -> tuple[VAEState, Scalars]:
    """Takes one step of gradient descent on `loss`.

    The images are float32 [B, H, W, C] in [-1, 1]; `key` is that of this step. Returns the new
    state, and the scalars of `loss` plus `gradient_norm`.
    """
    images = parallel.shard_batch(images)
    shape = (len(images), vae.latent_size)
    eps = parallel.shard_batch(jax.random.normal(draw_key(key, Purpose.POSTERIOR), shape))
    arguments = state.params, images, eps, state.step, draw_key(key, Purpose.TERM), vae
    gradient, scalars = jax.grad(loss, has_aux=True)(*arguments)
    updates, optimizer_state = vae.optimizer.update(gradient, state.optimizer, state.params)
    scalars["gradient_norm"] = optax.tree.norm(gradient)
    return state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        optimizer=optimizer_state,
    ), scalars


@compilation.per_config
def make_train_step(
    config: ConfigDict, image_shape: tuple[int, int, int]
) -> Callable[[VAEState, jax.Array, jax.Array], tuple[VAEState, Scalars]]:
    """Returns ``train_step(state, images, key)`` of the VAE that a config describes."""
    return functools.partial(train_step, vae=make_vae(config, image_shape))


def _optimizer(config: ConfigDict) -> optax.GradientTransformation:
    return optax.adam(config.vae.learning_rate, config.vae.b1, config.vae.b2)
