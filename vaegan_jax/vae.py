"""The VAE stage: its state, its first state and its train step; pure functions."""

import math
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from vaegan_jax import networks, parallel, registry, symptoms
from vaegan_jax.losses import vae as losses
from vaegan_jax.randomness import Purpose, Stage, draw_key, step_key

Scalars = dict[str, jax.Array]

# About what a VAE leaves of images in [-1, 1] once it has begun to learn; Adam moves it by the
# learning rate a step, so that a far beginning would cost thousands.
_FIRST_LOG_VARIANCE = math.log(0.1)


class VAEState(flax.struct.PyTreeNode):
    """Everything that a step of the VAE changes.

    Attributes:
      step: int32 scalar, steps taken.
      params: ``{"encoder": ..., "decoder": ...}``, float32; with ``vae.variance=learned`` also
        ``{"likelihood": {"log_variance": scalar}}``.
      optimizer: the state of Adam.
    """

    step: jax.Array
    params: dict[str, optax.Params]
    optimizer: optax.OptState


def init(config: ConfigDict, image_shape: tuple[int, int, int]) -> VAEState:
    """Returns the state of a VAE before its first step."""
    key = step_key(config.seed, Stage.VAE, 0)
    encoder = networks.make_encoder(config.model, image_shape)
    decoder = networks.make_decoder(config.model, image_shape)
    images = jnp.zeros((1, *image_shape))
    latents = jnp.zeros((1, config.model.latent_size))
    params = {
        "encoder": encoder.init(draw_key(key, Purpose.ENCODER), images)["params"],
        "decoder": decoder.init(draw_key(key, Purpose.DECODER), latents)["params"],
    }
    if config.vae.variance == "learned":
        params["likelihood"] = {"log_variance": jnp.asarray(_FIRST_LOG_VARIANCE)}
    return VAEState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimizer=_optimizer(config).init(params),
    )


def reparameterize(mean: jax.Array, log_variance: jax.Array, eps: jax.Array) -> jax.Array:
    """Returns ``z = mu + sigma * eps``, all [B, L] (Kingma and Welling 2013, section 2.4)."""
    return mean + jnp.exp(0.5 * log_variance) * eps


def make_train_step(
    config: ConfigDict, image_shape: tuple[int, int, int]
) -> Callable[[VAEState, jax.Array, jax.Array], tuple[VAEState, Scalars]]:
    """Returns ``step(state, images, key) -> (state, scalars)``.

    The step takes images float32 [B, H, W, C] in [-1, 1] and the key of this step, and descends
    on ``mean(reconstruction + kl_weight * KL)``. Its scalars are `loss`, `reconstruction` and
    `kl`, in nats per image (up to the reconstruction's constant), `largest_kl`, the nats of the
    dimension that says most, the `gradient_norm`, and of the batch `active_units` and the
    `sharpness` of what is decoded in units of the images' own; with a learned variance also that.
    """
    encoder = networks.make_encoder(config.model, image_shape)
    decoder = networks.make_decoder(config.model, image_shape)
    wanted = config.vae
    own_term = registry.find("reconstruction", wanted.reconstruction, losses.RECONSTRUCTIONS)
    schedule = losses.KL_SCHEDULES[wanted.kl_schedule]
    optimizer = _optimizer(config)

    def loss(
        params: dict[str, optax.Params], step: jax.Array, images: jax.Array, eps: jax.Array
    ) -> tuple[jax.Array, Scalars]:
        mean, log_variance = networks.apply(encoder, params["encoder"], images)
        z = reparameterize(mean, log_variance, eps)
        logits = networks.apply(decoder, params["decoder"], z)
        scalars = {
            "active_units": symptoms.active_units(mean),
            "sharpness": symptoms.relative_sharpness(jnp.tanh(logits), images),
        }
        reconstruction_term = own_term
        if "likelihood" in params:
            log_variance_of_pixels = params["likelihood"]["log_variance"]
            reconstruction_term = losses.gaussian_given(log_variance_of_pixels)
            scalars["variance"] = jnp.exp(log_variance_of_pixels)
        reconstruction = jnp.mean(reconstruction_term(images, logits))
        of_units = losses.kl(mean, log_variance)
        kl = jnp.mean(jnp.sum(of_units, axis=-1))
        # A weight b is the variance b/2 of a Gaussian decoder: see losses.vae.squared_error.
        weight = wanted.kl_weight
        if wanted.kl_schedule != "constant":
            weight *= schedule(step, wanted.steps, wanted.kl_warmup_steps, wanted.kl_cycles)
        charged = losses.free_bits(of_units, wanted.free_bits) if wanted.free_bits else kl
        total = reconstruction + weight * charged
        scalars["largest_kl"] = jnp.max(jnp.mean(of_units, axis=0))
        return total, scalars | {"loss": total, "reconstruction": reconstruction, "kl": kl}

    def step(state: VAEState, images: jax.Array, key: jax.Array) -> tuple[VAEState, Scalars]:
        shape = (images.shape[0], config.model.latent_size)
        images = parallel.split_batch(images)
        eps = parallel.split_batch(jax.random.normal(draw_key(key, Purpose.POSTERIOR), shape))
        gradient, scalars = jax.grad(loss, has_aux=True)(state.params, state.step, images, eps)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        scalars["gradient_norm"] = optax.tree.norm(gradient)
        return state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            optimizer=optimizer_state,
        ), scalars

    return step


def check_losses(config: ConfigDict, image_shape: tuple[int, int, int]) -> None:
    """Checks, without computing, that the losses of the VAE stage are what they must be.

    Raises:
      UserError: for one that cannot be found or has another form, by name.
    """
    name = config.vae.reconstruction
    term = registry.find("reconstruction", name, losses.RECONSTRUCTIONS)
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    registry.require_form("reconstruction", name, term, (images, images), (2,))


def _optimizer(config: ConfigDict) -> optax.GradientTransformation:
    return optax.adam(config.vae.learning_rate, config.vae.b1, config.vae.b2)
