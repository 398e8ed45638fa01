"""The GAN: state, initialisation, losses, updates and train step, as pure functions."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from vaegan_jax import networks
from vaegan_jax.losses import augmentation, symptoms
from vaegan_jax.losses import gan as losses
from vaegan_jax.losses.terms import GANBatch, Term, add_terms, make_terms
from vaegan_jax.randomness import Purpose, Stage, draw_key, latents, step_key
from vaegan_jax.runtime import compilation, parallel

Scalars = dict[str, jax.Array]

EMA_RAMP = 0.05  # maximum half-life as a fraction of the images trained on so far


class GANState(flax.struct.PyTreeNode):
    """Everything that a train step changes.

    Attributes:
      step: int32 scalar, steps taken.
      generator: parameters of a `Decoder`, float32.
      discriminator: parameters of a `Discriminator`, float32.
      generator_optimizer, discriminator_optimizer: the states of Adam.
      ema: exponential moving average of the generator's parameters; samples use it.
      latent_mean, latent_factor: see `GANInit`; constant.
    """

    step: jax.Array
    generator: optax.Params
    discriminator: optax.Params
    generator_optimizer: optax.OptState
    discriminator_optimizer: optax.OptState
    ema: optax.Params
    latent_mean: jax.Array
    latent_factor: jax.Array


class GANInit(NamedTuple):
    """Initial parameters of the generator, and those of the discriminator that are not random.

    The initial generator at z is the decoder at ``m + L z``, with m = `latent_mean`, float32 [L],
    and L = `latent_factor`, float32 [L, L]: 0 and I unless ``transfer.match_posterior`` is set.
    """

    generator: optax.Params
    discriminator: dict[str, optax.Params]
    latent_mean: jax.Array
    latent_factor: jax.Array


def identity_init(generator: optax.Params, latent_size: int) -> GANInit:
    """Returns initial parameters with m = 0 and L = I."""
    return GANInit(generator, {}, jnp.zeros(latent_size), jnp.eye(latent_size))


def random_init(
    config: ConfigDict, image_shape: tuple[int, int, int], seed: jax.typing.ArrayLike | None = None
) -> GANInit:
    """Returns random parameters for a generator; `seed` is uint32, ``config.seed`` by default."""
    size = config.model.latent_size
    key = step_key(config.seed if seed is None else seed, Stage.GAN, 0)
    generator = networks.make_decoder(config.model, image_shape)
    params = generator.init(draw_key(key, Purpose.DECODER), jnp.zeros((1, size)))["params"]
    return identity_init(params, size)


def init(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    initial: GANInit,
    seed: jax.typing.ArrayLike | None = None,
) -> GANState:
    """Returns the initial state of a GAN; `seed` is uint32, ``config.seed`` by default.

    `initial` is from `transfer.make_init`, `random_init` or the GAN of another run; everything
    else is the same.
    """
    seed = config.seed if seed is None else seed
    key = draw_key(step_key(seed, Stage.GAN, 0), Purpose.DISCRIMINATOR)
    discriminator = networks.make_discriminator(config.model, image_shape)
    random = discriminator.init(key, jnp.zeros((1, *image_shape)))["params"]
    params = random | initial.discriminator
    return GANState(
        step=jnp.zeros((), jnp.int32),
        generator=initial.generator,
        discriminator=params,
        generator_optimizer=_adam(config, "generator").init(initial.generator),
        discriminator_optimizer=_adam(config, "discriminator").init(params),
        # A copy: a donated state must not hold one buffer twice.
        ema=jax.tree.map(jnp.copy, initial.generator),
        latent_mean=initial.latent_mean,
        latent_factor=initial.latent_factor,
    )


class GAN(NamedTuple):
    """The networks, losses and optimizers of a GAN; `config` is the section `gan`.

    Attributes:
      generate: (generator params, latents float32 [B, L]) -> images float32 [B, H, W, C] in
        [-1, 1].
      discriminate: (discriminator params, images) -> logits float32 [B], and the features before
        the last layer.
      objective: the losses as functions of logits.
      penalties: terms of the discriminator's loss.
      generator_terms: terms of the generator's loss.
      augment: (images, key) -> augmented images, the discriminator's inputs.
    """

    generate: Callable[[optax.Params, jax.Array], jax.Array]
    discriminate: networks.Discriminate
    objective: losses.Objective
    penalties: tuple[Term, ...]
    generator_terms: tuple[Term, ...]
    augment: augmentation.Augment
    generator_optimizer: optax.GradientTransformation
    discriminator_optimizer: optax.GradientTransformation
    config: ConfigDict
    latent_size: int


def make_gan(config: ConfigDict, image_shape: tuple[int, int, int]) -> GAN:
    """Returns the GAN that a config describes; UserError if a user's loss cannot be loaded."""
    return GAN(
        generate=networks.make_decode(config.model, image_shape),
        discriminate=networks.make_discriminate(config.model, image_shape),
        objective=losses.make_objective(config.gan.objective),
        penalties=make_terms("penalty", config.gan.penalties),
        generator_terms=make_terms("generator_term", config.gan.generator_terms),
        augment=augmentation.make(config.gan.augmentations),
        generator_optimizer=_adam(config, "generator"),
        discriminator_optimizer=_adam(config, "discriminator"),
        config=config.gan,
        latent_size=config.model.latent_size,
    )


def discriminator_loss(
    params: optax.Params,
    real: jax.Array,
    fake: jax.Array,
    gan: GAN,
    penalties: Sequence[Term] = (),
    **context: Any,
) -> tuple[jax.Array, Scalars]:
    """Returns ``objective(D(real), D(fake)) + sum_i weight_i * every_i * mean(penalty_i)``.

    `params` are the discriminator's, real and fake images float32 [B, H, W, C] in [-1, 1].
    `context` has `latents`, `generate`, `step` and `key` of `GANBatch` for the penalties.

    Returns:
      The loss and scalars: `discriminator_loss` (the objective alone, in nats for losses of
      probabilities), ``every_i * mean(penalty_i)`` by name, mean logits, `margin` (mean real minus
      mean fake logit) and its absolute value, and two `symptoms`: `discriminator_auc` and
      `feature_diversity`.
    """
    if penalties:
        # In separate passes, which the compiler shares with those of R1 and R2.
        real_logits, real_features = gan.discriminate(params, real)
        fake_logits, fake_features = gan.discriminate(params, fake)
    else:
        # Real and fake images alternate, so that on several devices no image moves.
        images = jnp.stack([real, fake], axis=1).reshape(-1, *real.shape[1:])
        logits, features = gan.discriminate(params, images)
        real_logits, fake_logits = _alternating(logits)
        real_features, fake_features = _alternating(features)
    loss = gan.objective.discriminator(real_logits, fake_logits)
    margin = jnp.mean(real_logits) - jnp.mean(fake_logits)
    scalars = {
        "discriminator_loss": loss,
        "real_logit": jnp.mean(real_logits),
        "fake_logit": jnp.mean(fake_logits),
        "margin": margin,
        "absolute_margin": jnp.abs(margin),
        "discriminator_auc": symptoms.auc(real_logits, fake_logits),
        "feature_diversity": symptoms.diversity(fake_features, real_features),
    }
    if penalties:
        seen = (real, fake, real_logits, fake_logits, real_features, fake_features)
        batch = GANBatch(*seen, lambda x: gan.discriminate(params, x)[0], **context)
        loss, values = add_terms(loss, penalties, batch)
        scalars |= values
    return loss, scalars


def _alternating(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the even and the odd rows: [2 B, ...] -> [B, ...] each."""
    pairs = x.reshape(-1, 2, *x.shape[1:])
    return pairs[:, 0], pairs[:, 1]


def generator_loss(
    params: optax.Params,
    real: jax.Array,
    fake: jax.Array,
    keys: tuple[jax.Array, jax.Array],
    gan: GAN,
    **context: Any,
) -> tuple[jax.Array, Scalars]:
    """Returns the generator's objective at the given fakes, plus the terms of its loss.

    `params` are the discriminator's, real and fake images float32 [B, H, W, C] in [-1, 1], and
    `keys` those of their augmentations. `context` is that of `discriminator_loss`.

    Returns:
      The loss and scalars: `generator_loss` (the objective alone), each term by its name, and
      `generator_slope`, the summed absolute derivatives of the objective by the fake logits.
    """
    fake_logits, fake_features = gan.discriminate(params, gan.augment(fake, keys[1]))
    # The compiler drops this pass where neither the objective nor a term uses it.
    real_logits, real_features = gan.discriminate(params, gan.augment(real, keys[0]))
    loss = gan.objective.generator(real_logits, fake_logits)
    slopes = jax.grad(gan.objective.generator, argnums=1)(real_logits, fake_logits)
    scalars = {"generator_loss": loss, "generator_slope": jnp.sum(jnp.abs(slopes))}
    if gan.generator_terms:
        seen = (real, fake, real_logits, fake_logits, real_features, fake_features)
        batch = GANBatch(*seen, lambda x: gan.discriminate(params, x)[0], **context)
        loss, values = add_terms(loss, gan.generator_terms, batch)
        scalars |= values
    return loss, scalars


def update_discriminator(
    state: GANState, real: jax.Array, fake: jax.Array, z: jax.Array, key: jax.Array, gan: GAN
) -> tuple[GANState, Scalars]:
    """Returns the state after one update of the discriminator, and the scalars of its loss.

    Each penalty is computed every `every` steps and multiplied by that number, which keeps its
    mean over steps (lazy regularisation: Karras et al. 2020, arXiv 1912.04958, section 3.1).
    The images are augmented, float32 [B, H, W, C] in [-1, 1]; `key` and the latents `z` [B, L] of
    the fake images are for the penalties. The step of `state` is not advanced.
    """
    generate = functools.partial(gan.generate, state.generator)
    lazy = sorted({term.every for term in gan.penalties} - {1})

    def branch(index: int, *arguments: Any) -> tuple[optax.Params, Scalars]:
        """The gradient at steps where the intervals in `index`, a bit for each of `lazy`, end."""
        due = [t for t in gan.penalties if t.every == 1 or index >> lazy.index(t.every) & 1]
        context = {"latents": z, "generate": generate, "step": state.step, "key": key}
        differentiate = jax.grad(discriminator_loss, has_aux=True)
        gradient, scalars = differentiate(*arguments, gan, due, **context)
        return gradient, {term.name: jnp.zeros(()) for term in gan.penalties} | scalars

    ends = [(state.step % every == 0).astype(jnp.int32) << bit for bit, every in enumerate(lazy)]
    branches = [functools.partial(branch, index) for index in range(2 ** len(lazy))]
    gradient, scalars = jax.lax.switch(sum(ends), branches, state.discriminator, real, fake)
    scalars["discriminator_gradient_norm"] = optax.tree.norm(gradient)
    updates, optimizer_state = gan.discriminator_optimizer.update(
        gradient, state.discriminator_optimizer, state.discriminator
    )
    params = optax.apply_updates(state.discriminator, updates)
    return state.replace(discriminator=params, discriminator_optimizer=optimizer_state), scalars


def generator_updates(step: jax.Array, config: ConfigDict) -> jax.Array:
    """Returns the generator's updates in the first `step` steps, int32; `config` is `gan`."""
    every = config.discriminator_steps
    return jnp.maximum(step // every - config.discriminator_warmup_steps // every, 0)


def ema_decay(
    images_seen: jax.Array, batch_size: int, half_life: float, ramp: float = EMA_RAMP
) -> jax.Array:
    """Returns the EMA's decay, ``0.5 ** (batch_size / min(half_life, ramp * images_seen))``.

    All are in images; `images_seen` are those that the generator was trained on before, so the
    decay is 0 at first. The ramp limits the weight of the initial generator in short runs (Karras
    et al. 2020, arXiv 2006.06676, `ema_rampup` in the official code).
    """
    return jnp.exp2(-batch_size / jnp.minimum(half_life, ramp * images_seen))


def update_generator(
    state: GANState, gradient: optax.Params, batch_size: int, gan: GAN
) -> GANState:
    """Returns the state after one update of the generator and of its moving average.

    The step of `state` counts this update; `gradient` is that of the generator's loss.
    """
    updates, optimizer_state = gan.generator_optimizer.update(
        gradient, state.generator_optimizer, state.generator
    )
    params = optax.apply_updates(state.generator, updates)
    before = generator_updates(state.step - 1, gan.config).astype(jnp.float32)
    decay = ema_decay(batch_size * before, batch_size, gan.config.ema_half_life_images)
    ema = optax.incremental_update(params, state.ema, 1 - decay)
    return state.replace(generator=params, generator_optimizer=optimizer_state, ema=ema)


def train_step(
    state: GANState, real: jax.Array, key: jax.Array, gan: GAN
) -> tuple[GANState, Scalars]:
    """Updates the discriminator on real and fake images, then the generator on the same fakes.

    The generator is updated against the updated discriminator, at every
    ``gan.discriminator_steps``-th step after the first ``gan.discriminator_warmup_steps``. The
    real images are float32 [B, H, W, C] in [-1, 1]; `key` is that of this step.

    Returns:
      The new state, and scalars: those of both losses, both gradient norms (0 for a generator
      that is not updated), and three `symptoms` of the fake images relative to the real ones.
    """
    real, batch_size = parallel.shard_batch(real), len(real)
    shape = (batch_size, gan.latent_size)
    z = parallel.shard_batch(latents(draw_key(key, Purpose.LATENT), shape, gan.config.noise))
    fake, pull_back = jax.vjp(lambda params: gan.generate(params, z), state.generator)
    keys = jax.random.split(draw_key(key, Purpose.AUGMENTATION), 4)

    inputs = gan.augment(real, keys[0]), gan.augment(fake, keys[1])
    state, scalars = update_discriminator(state, *inputs, z, draw_key(key, Purpose.PENALTY), gan)
    state = state.replace(step=state.step + 1)

    def loss(fake: jax.Array, generator: optax.Params) -> tuple[jax.Array, Scalars]:
        return generator_loss(
            state.discriminator,
            real,
            fake,
            (keys[3], keys[2]),
            gan,
            latents=z,
            generate=functools.partial(gan.generate, generator),
            step=state.step - 1,
            key=draw_key(key, Purpose.TERM),
        )

    def update() -> tuple[GANState, Scalars]:
        arguments = (0, 1) if gan.generator_terms else (0,)  # only terms call `generate`
        gradients, scalars = jax.grad(loss, arguments, has_aux=True)(fake, state.generator)
        (gradient,) = pull_back(gradients[0])
        for direct in gradients[1:]:
            gradient = jax.tree.map(jnp.add, gradient, direct)
        scalars["generator_gradient_norm"] = optax.tree.norm(gradient)
        return update_generator(state, gradient, batch_size, gan), scalars

    def skip() -> tuple[GANState, Scalars]:
        return state, loss(fake, state.generator)[1] | {"generator_gradient_norm": jnp.zeros(())}

    due = state.step > gan.config.discriminator_warmup_steps
    due &= state.step % gan.config.discriminator_steps == 0
    state, generator_scalars = jax.lax.cond(due, update, skip)
    scalars |= generator_scalars | {
        "diversity": symptoms.diversity(fake, real),
        "near_duplicates": symptoms.near_duplicates(fake, real),
        "sharpness": symptoms.relative_sharpness(fake, real),
    }
    return state, scalars


@compilation.per_config
def make_train_step(
    config: ConfigDict, image_shape: tuple[int, int, int]
) -> Callable[[GANState, jax.Array, jax.Array], tuple[GANState, Scalars]]:
    """Returns ``train_step(state, real, key)`` of the GAN that a config describes."""
    return functools.partial(train_step, gan=make_gan(config, image_shape))


def _adam(config: ConfigDict, network: str) -> optax.GradientTransformation:
    return optax.adam(config.gan[f"{network}_learning_rate"], config.gan.b1, config.gan.b2)
