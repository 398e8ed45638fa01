"""The GAN stage: its state, its first state and its train step; pure functions."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from vaegan_jax import networks, optimizers, parallel, registry, symptoms
from vaegan_jax.losses import augmentation, penalties
from vaegan_jax.losses import gan as losses
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
      latent_mean: float32 [L], the m of `Start`; never changed.
      latent_factor: float32 [L, L], the L of `Start`; never changed.
    """

    step: jax.Array
    attempt: jax.Array
    generator: optax.Params
    discriminator: optax.Params
    generator_optimizer: optax.OptState
    discriminator_optimizer: optax.OptState
    ema: optax.Params
    latent_mean: jax.Array
    latent_factor: jax.Array


class Start(NamedTuple):
    """What a GAN begins with.

    Attributes:
      generator: the generator's first parameters.
      trunk: those of the discriminator's trunk; None for random ones.
      latent_mean: m, float32 [L].
      latent_factor: L, float32 [L, L]: the generator at z began as a decoder at ``m + L z``. They
        are 0 and 1 unless the decoder's latents were matched.
    """

    generator: optax.Params
    trunk: optax.Params | None
    latent_mean: jax.Array
    latent_factor: jax.Array


def unmatched(generator: optax.Params, latent_size: int) -> Start:
    """Returns the start of a generator that takes latents as they are."""
    return Start(generator, None, jnp.zeros(latent_size), jnp.eye(latent_size))


def random_start(config: ConfigDict, image_shape: tuple[int, int, int]) -> Start:
    """Returns the start of a generator with random parameters."""
    generator = networks.make_decoder(config.model, image_shape)
    key = draw_key(step_key(config.seed, Stage.GAN, 0, 0), Purpose.DECODER)
    params: optax.Params = generator.init(key, jnp.zeros((1, config.model.latent_size)))["params"]
    return unmatched(params, config.model.latent_size)


def init(config: ConfigDict, image_shape: tuple[int, int, int], start: Start) -> GANState:
    """Returns the state of a GAN before its first step.

    Args:
      config: the run's config.
      image_shape: (height, width, channels).
      start: from `transfer.start` or `random_start`; what it does not say is the same either way.
    """
    key = draw_key(step_key(config.seed, Stage.GAN, 0, 0), Purpose.DISCRIMINATOR)
    discriminator = networks.make_discriminator(config.model, image_shape)
    params = discriminator.init(key, jnp.zeros((1, *image_shape)))["params"]
    if start.trunk is not None:
        params = params | {"trunk": start.trunk}
    return GANState(
        step=jnp.zeros((), jnp.int32),
        attempt=jnp.zeros((), jnp.int32),
        generator=start.generator,
        discriminator=params,
        generator_optimizer=_generator_optimizer(config).init(start.generator),
        discriminator_optimizer=_discriminator_optimizer(config).init(params),
        # A copy: a donated state must not hold one buffer twice.
        ema=jax.tree.map(jnp.copy, start.generator),
        latent_mean=start.latent_mean,
        latent_factor=start.latent_factor,
    )


def make_train_step(
    config: ConfigDict, image_shape: tuple[int, int, int]
) -> Callable[[GANState, jax.Array, jax.Array], tuple[GANState, Scalars]]:
    """Returns ``step(state, real, key) -> (state, scalars)``.

    The step takes real images float32 [B, H, W, C] in [-1, 1] and the key of this step. It draws
    one batch of fakes, updates the discriminator on both, and then the generator on the same
    fakes as the updated discriminator sees them; for the first
    ``gan.discriminator_warmup_steps`` the generator stays as it is. Scalars: both losses (nats),
    each penalty, mean logits of real and fake images, their `margin` and its size, and the
    discriminator's accuracy before its update, both gradient norms (the generator's is 0 while it
    is frozen), `generator_slope`, the mean size of the derivative of the generator's loss by a
    logit, and of the fakes, held against the real images: `diversity` in pixels and
    `feature_diversity` in what the discriminator judges by, `near_duplicates`, and `sharpness`.
    """
    gan = config.gan
    generator = networks.make_decoder(config.model, image_shape)
    judge = networks.make_judge(config.model, image_shape)
    objective = registry.find("objective", gan.objective, losses.OBJECTIVES)
    terms = penalty_terms(config)
    augment = make_augmentation(config)
    generator_optimizer = _generator_optimizer(config)
    discriminator_optimizer = _discriminator_optimizer(config)

    def discriminator_loss(
        params: optax.Params,
        real: jax.Array,
        fake: jax.Array,
        key: jax.Array,
        *,
        penalised: bool,
    ) -> tuple[jax.Array, Scalars]:
        def discriminate(images: jax.Array) -> jax.Array:
            return judge(params, images)[0]

        if penalised:
            # Apart, as R1 and R2 see them, so that the compiler finds their passes to be the same.
            real_logits, real_features = judge(params, real)
            fake_logits, fake_features = judge(params, fake)
        else:
            logits, features = judge(params, jnp.concatenate([real, fake]))
            real_logits, fake_logits = jnp.split(logits, 2)
            real_features, fake_features = jnp.split(features, 2)
        loss = objective.discriminator(real_logits, fake_logits)
        margin = jnp.mean(real_logits) - jnp.mean(fake_logits)
        scalars = {
            "discriminator_loss": loss,
            "real_logit": jnp.mean(real_logits),
            "fake_logit": jnp.mean(fake_logits),
            "margin": margin,
            "absolute_margin": jnp.abs(margin),
            "discriminator_accuracy": (jnp.mean(real_logits > 0) + jnp.mean(fake_logits < 0)) / 2,
            "feature_diversity": symptoms.diversity(fake_features, real_features),
        }
        if not penalised:
            return loss, scalars | {term.name: jnp.zeros(()) for term in terms}
        for index, (name, weight, penalty) in enumerate(terms):
            of_term = jax.random.fold_in(key, index) if index else key
            # Rare and larger, so that the mean over steps is the same.
            mean = jnp.mean(penalty(discriminate, real, fake, of_term))
            scalars[name] = gan.penalty_every * mean
            loss += weight * scalars[name]
        return loss, scalars

    def discriminator_gradient(step: jax.Array, *arguments: Any) -> tuple[optax.Params, Scalars]:
        with_penalties, without = (
            jax.grad(functools.partial(discriminator_loss, penalised=penalised), has_aux=True)
            for penalised in (True, False)
        )
        result: tuple[optax.Params, Scalars]
        if terms and gan.penalty_every > 1:
            due = step % gan.penalty_every == 0
            result = jax.lax.cond(due, with_penalties, without, *arguments)
        else:
            result = (with_penalties if terms else without)(*arguments)
        return result

    def step(state: GANState, real: jax.Array, key: jax.Array) -> tuple[GANState, Scalars]:
        real, batch = parallel.split_batch(real), real.shape[0]
        shape = (batch, config.model.latent_size)
        z = parallel.split_batch(latents(draw_key(key, Purpose.LATENT), shape, gan.noise))

        def generate(params: optax.Params) -> jax.Array:
            return jnp.tanh(networks.apply(generator, params, z))

        fake, pull_back = jax.vjp(generate, state.generator)

        changes = jax.random.split(draw_key(key, Purpose.AUGMENTATION), 4)
        gradient, scalars = discriminator_gradient(
            state.step,
            state.discriminator,
            augment(real, changes[0]),
            augment(fake, changes[1]),
            draw_key(key, Purpose.PENALTY),
        )
        scalars |= {
            "discriminator_gradient_norm": optax.tree.norm(gradient),
            "diversity": symptoms.diversity(fake, real),
            "near_duplicates": symptoms.near_duplicates(fake, real),
            "sharpness": symptoms.relative_sharpness(fake, real),
        }
        updates, discriminator_optimizer_state = discriminator_optimizer.update(
            gradient, state.discriminator_optimizer, state.discriminator
        )
        updates = optimizers.slowed(updates, config, state.attempt)
        state = state.replace(
            step=state.step + 1,
            discriminator=optax.apply_updates(state.discriminator, updates),
            discriminator_optimizer=discriminator_optimizer_state,
        )

        def generator_loss(fake: jax.Array) -> tuple[jax.Array, jax.Array]:
            fake_logits, real_logits = (
                judge(state.discriminator, augment(images, change))[0]
                for images, change in ((fake, changes[2]), (real, changes[3]))
            )
            # Where the objective does not look at the real ones, the compiler leaves them out.
            loss = objective.generator(real_logits, fake_logits)
            slopes = jax.grad(objective.generator, argnums=1)(real_logits, fake_logits)
            return loss, jnp.sum(jnp.abs(slopes))

        def train_generator() -> tuple[GANState, Scalars]:
            (loss, slope), fake_gradient = jax.value_and_grad(generator_loss, has_aux=True)(fake)
            (gradient,) = pull_back(fake_gradient)
            updates, optimizer_state = generator_optimizer.update(
                gradient, state.generator_optimizer, state.generator
            )
            updates = optimizers.slowed(updates, config, state.attempt)
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
                "generator_slope": slope,
                "generator_gradient_norm": optax.tree.norm(gradient),
            }

        def freeze_generator() -> tuple[GANState, Scalars]:
            loss, slope = generator_loss(fake)
            return state, {
                "generator_loss": loss,
                "generator_slope": slope,
                "generator_gradient_norm": jnp.zeros(()),
            }

        turn = state.step > gan.discriminator_warmup_steps
        if gan.discriminator_steps > 1:
            turn &= state.step % gan.discriminator_steps == 0
        state, generator_scalars = jax.lax.cond(turn, train_generator, freeze_generator)
        return state, scalars | generator_scalars

    return step


class PenaltyTerm(NamedTuple):
    """A penalty in the discriminator's loss.

    Attributes:
      name: of its scalar.
      weight: of its mean over the batch.
      penalty: see `losses.penalties`.
    """

    name: str
    weight: float
    penalty: penalties.Penalty


def penalty_terms(config: ConfigDict) -> list[PenaltyTerm]:
    """Returns the penalties that a config asks for.

    The gammas of R1 and R2 weigh halves, as their papers have it.

    Raises:
      UserError: where the user's own cannot be loaded.
    """
    gan = config.gan
    terms = [
        PenaltyTerm("r1", gan.r1_weight / 2, penalties.r1),
        PenaltyTerm("r2", gan.r2_weight / 2, penalties.r2),
        PenaltyTerm("gradient_penalty", gan.gradient_penalty_weight, penalties.gradient_penalty),
    ]
    if gan.penalty:
        own = registry.find("penalty", gan.penalty, penalties.PENALTIES)
        terms.append(PenaltyTerm("penalty", gan.penalty_weight, own))
    return [term for term in terms if term.weight]


def make_augmentation(config: ConfigDict) -> augmentation.Augment:
    """Returns what a config does to the images that the discriminator sees.

    Raises:
      UserError: where one of the user's own cannot be loaded.
    """
    names = [name.strip() for name in config.gan.augmentations.split(",") if name.strip()]
    return augmentation.chain(
        [registry.find("augmentation", name, augmentation.AUGMENTATIONS) for name in names]
    )


def check_losses(config: ConfigDict, image_shape: tuple[int, int, int]) -> None:
    """Checks, without computing, that the losses of the GAN stage are what they must be.

    Raises:
      UserError: for one that cannot be found or has another form, by name.
    """
    gan = config.gan
    logits = jax.ShapeDtypeStruct((2,), jnp.float32)
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    objective = registry.find("objective", gan.objective, losses.OBJECTIVES)
    for loss in objective:
        registry.require_form("objective", gan.objective, loss, (logits, logits), ())
    for term in penalty_terms(config):

        def apply(
            real: jax.Array, fake: jax.Array, key: jax.Array, penalty: penalties.Penalty
        ) -> jax.Array:
            return penalty(lambda x: jnp.sum(x, axis=(1, 2, 3)), real, fake, key)

        name = gan.penalty if term.name == "penalty" else term.name
        one = functools.partial(apply, penalty=term.penalty)
        registry.require_form("penalty", name, one, (images, images, key), (2,))
    augment = make_augmentation(config)
    registry.require_form("augmentation", gan.augmentations, augment, (images, key), images.shape)


def _generator_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    gan = config.gan
    return optax.adam(gan.generator_learning_rate, gan.b1, gan.b2)


def _discriminator_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    gan = config.gan
    b1 = gan.b1 if gan.discriminator_b1 < 0 else gan.discriminator_b1
    b2 = gan.b2 if gan.discriminator_b2 < 0 else gan.discriminator_b2
    return optax.adam(gan.discriminator_learning_rate, b1, b2)
