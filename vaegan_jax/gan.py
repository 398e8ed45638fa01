"""The GAN stage: its state, its first state and its train step; pure functions."""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from vaegan_jax import networks
from vaegan_jax.losses import gan as losses
from vaegan_jax.losses import penalties
from vaegan_jax.randomness import Purpose, Stage, draw_key, latents, step_key

Scalars = dict[str, jax.Array]


class GANState(flax.struct.PyTreeNode):
    """Everything that a step of the GAN changes.

    Attributes:
      step: int32 scalar, steps taken.
      attempt: int32 scalar, raised by a rollback so that other noise is drawn.
      generator: parameters of a `Decoder`, float32.
      discriminator: parameters of a `Discriminator`, float32.
      generator_optimizer: the state of the generator's Adam.
      discriminator_optimizer: the state of the discriminator's Adam.
      ema: the generator's parameters, averaged over the steps; samples are drawn from these.
    """

    step: jax.Array
    attempt: jax.Array
    generator: optax.Params
    discriminator: optax.Params
    generator_optimizer: optax.OptState
    discriminator_optimizer: optax.OptState
    ema: optax.Params


def random_generator(config: ConfigDict, image_shape: tuple[int, int, int]) -> optax.Params:
    """Returns random parameters for a generator that begins from scratch."""
    generator = networks.make_decoder(config.model, image_shape)
    key = draw_key(step_key(config.seed, Stage.GAN, 0, 0), Purpose.DECODER)
    params: optax.Params = generator.init(key, jnp.zeros((1, config.model.latent_size)))["params"]
    return params


def init(
    config: ConfigDict, image_shape: tuple[int, int, int], generator: optax.Params
) -> GANState:
    """Returns the state of a GAN before its first step.

    Args:
      config: the run's config.
      image_shape: (height, width, channels).
      generator: the generator's first parameters, from a decoder or from `random_generator`;
        everything else in the state is the same either way.
    """
    key = draw_key(step_key(config.seed, Stage.GAN, 0, 0), Purpose.DISCRIMINATOR)
    discriminator = networks.make_discriminator(config.model, image_shape)
    params = discriminator.init(key, jnp.zeros((1, *image_shape)))["params"]
    return GANState(
        step=jnp.zeros((), jnp.int32),
        attempt=jnp.zeros((), jnp.int32),
        generator=generator,
        discriminator=params,
        generator_optimizer=_generator_optimizer(config).init(generator),
        discriminator_optimizer=_discriminator_optimizer(config).init(params),
        # A copy: a donated state must not hold one buffer twice.
        ema=jax.tree.map(jnp.copy, generator),
    )


def make_train_step(
    config: ConfigDict, image_shape: tuple[int, int, int]
) -> Callable[[GANState, jax.Array, jax.Array], tuple[GANState, Scalars]]:
    """Returns ``step(state, real, key) -> (state, scalars)``.

    The step takes real images float32 [B, H, W, C] in [-1, 1] and the key of this step. It draws
    one batch of fakes, updates the discriminator on both, and then the generator on the same
    fakes as the updated discriminator sees them; for the first
    ``gan.discriminator_warmup_steps`` the generator stays as it is. Scalars: both losses (nats),
    `r1`, mean logits of real and fake images and the discriminator's accuracy on them before its
    update, and both gradient norms (the generator's is 0 while it is frozen).
    """
    gan = config.gan
    generator = networks.make_decoder(config.model, image_shape)
    discriminator = networks.make_discriminator(config.model, image_shape)
    objective = losses.OBJECTIVES[gan.objective]
    generator_optimizer = _generator_optimizer(config)
    discriminator_optimizer = _discriminator_optimizer(config)

    def discriminator_loss(
        params: optax.Params, real: jax.Array, fake: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Scalars]:
        def discriminate(images: jax.Array) -> jax.Array:
            logits: jax.Array = networks.apply(discriminator, params, images)
            return logits

        real_logits, fake_logits = jnp.split(discriminate(jnp.concatenate([real, fake])), 2)
        loss = objective.discriminator(real_logits, fake_logits)
        scalars = {
            "discriminator_loss": loss,
            "real_logit": jnp.mean(real_logits),
            "fake_logit": jnp.mean(fake_logits),
            "discriminator_accuracy": (jnp.mean(real_logits > 0) + jnp.mean(fake_logits < 0)) / 2,
        }
        if gan.r1_weight:
            scalars["r1"] = jnp.mean(penalties.r1(discriminate, real, fake, key))
            loss += gan.r1_weight / 2 * scalars["r1"]
        return loss, scalars

    def step(state: GANState, real: jax.Array, key: jax.Array) -> tuple[GANState, Scalars]:
        batch = real.shape[0]
        z = latents(draw_key(key, Purpose.LATENT), (batch, config.model.latent_size), gan.noise)

        def generate(params: optax.Params) -> jax.Array:
            return jnp.tanh(networks.apply(generator, params, z))

        fake, pull_back = jax.vjp(generate, state.generator)

        gradient, scalars = jax.grad(discriminator_loss, has_aux=True)(
            state.discriminator, real, fake, draw_key(key, Purpose.PENALTY)
        )
        scalars["discriminator_gradient_norm"] = optax.tree.norm(gradient)
        updates, discriminator_optimizer_state = discriminator_optimizer.update(
            gradient, state.discriminator_optimizer, state.discriminator
        )
        state = state.replace(
            step=state.step + 1,
            discriminator=optax.apply_updates(state.discriminator, updates),
            discriminator_optimizer=discriminator_optimizer_state,
        )

        def generator_loss(fake: jax.Array) -> jax.Array:
            logits = networks.apply(discriminator, state.discriminator, fake)
            return objective.generator(logits)

        def train_generator() -> tuple[GANState, Scalars]:
            loss, fake_gradient = jax.value_and_grad(generator_loss)(fake)
            (gradient,) = pull_back(fake_gradient)
            updates, optimizer_state = generator_optimizer.update(
                gradient, state.generator_optimizer, state.generator
            )
            params = optax.apply_updates(state.generator, updates)
            new_state = state.replace(
                generator=params,
                generator_optimizer=optimizer_state,
                ema=optax.incremental_update(
                    params, state.ema, 1 - 0.5 ** (batch / gan.ema_half_life)
                ),
            )
            return new_state, {
                "generator_loss": loss,
                "generator_gradient_norm": optax.tree.norm(gradient),
            }

        def freeze_generator() -> tuple[GANState, Scalars]:
            return state, {
                "generator_loss": generator_loss(fake),
                "generator_gradient_norm": jnp.zeros(()),
            }

        state, generator_scalars = jax.lax.cond(
            state.step > gan.discriminator_warmup_steps, train_generator, freeze_generator
        )
        return state, scalars | generator_scalars

    return step


def _generator_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    return optax.adam(config.gan.generator_learning_rate, config.gan.b1, config.gan.b2)


def _discriminator_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    return optax.adam(config.gan.discriminator_learning_rate, config.gan.b1, config.gan.b2)
