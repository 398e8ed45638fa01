"""The VAE and the GAN as stages of the training loop."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vaegan_jax import checkpoints, gan, randomness, transfer, vae, workdir
from vaegan_jax.data import images
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation.evaluate import Measure
from vaegan_jax.pipeline import starts
from vaegan_jax.report import pictures
from vaegan_jax.runtime import compilation, memory
from vaegan_jax.trained import Trained
from vaegan_jax.training import loop

_KEPT = ("ema", "generator", "latent_mean", "latent_factor")


def make_vae_stage(
    config: ConfigDict,
    data: images.Images,
    folder: workdir.Workdir,
    measure: Measure | None = None,
    start: Trained | None = None,
) -> loop.Stage[vae.VAEState]:
    """Returns the VAE stage of a run; it begins with the parameters of `start`, if given."""
    del folder  # the same signature as `make_gan_stage`
    init, seed = _compiled_init(config, vae.init, data.shape), np.uint32(config.seed)

    def initial_state() -> vae.VAEState:
        state: vae.VAEState = memory.checked(init, "vae")(seed=seed)
        if start is None:
            return state
        params = {name: start.parts[name] for name in state.params}
        return state.replace(params=jax.tree.map(jnp.copy, params))  # the state will be donated

    return loop.Stage(
        number=randomness.Stage.VAE,
        steps=config.vae.steps,
        batch_size=config.vae.batch_size,
        template=jax.eval_shape(init, seed=seed),
        init=initial_state,
        step=vae.make_train_step(config, data.shape),
        pictures=lambda state: {
            "reconstructions": pictures.reconstruction_picture(
                config, data.shape, state.params, data.validation
            ),
            **pictures.decoder_pictures(config, data.shape, state.params["decoder"], "normal"),
        },
        shown=("reconstruction", "kl"),
        measure=None
        if measure is None
        else lambda state: measure(state.params["decoder"], "normal"),
    )


def make_gan_stage(
    config: ConfigDict,
    data: images.Images,
    folder: workdir.Workdir,
    measure: Measure | None = None,
    start: Trained | None = None,
) -> loop.Stage[gan.GANState]:
    """Returns the GAN stage of a run; it begins with the VAE's last checkpoint, or with `start`."""
    random_init = _compiled_init(config, gan.random_init, data.shape)
    init, seed = _compiled_init(config, gan.init, data.shape), np.uint32(config.seed)

    def initial_state() -> gan.GANState:
        if config.transfer.generator == "vae":
            vae_checkpoints = folder.checkpoints("vae")
            if checkpoints.latest(vae_checkpoints) != config.vae.steps:
                raise UserError(
                    "The VAE is not finished, and the GAN is initialised from its decoder: run the "
                    "vae stage first, or set transfer.generator=scratch in another --workdir."
                )
            initial = transfer.make_init(config, data.train, vae_checkpoints, config.vae.steps)
        elif start is not None:
            initial = jax.tree.map(jnp.copy, starts.gan_init(start))
        else:
            initial = memory.checked(random_init, "gan")(seed=seed)
        # All cases use the same compiled program, so all other state is bit-identical.
        state: gan.GANState = memory.checked(init, "gan")(initial, seed=seed)
        return state

    return loop.Stage(
        number=randomness.Stage.GAN,
        steps=config.gan.steps,
        batch_size=config.gan.batch_size,
        template=jax.eval_shape(init, jax.eval_shape(random_init, seed=seed), seed=seed),
        init=initial_state,
        step=gan.make_train_step(config, data.shape),
        pictures=lambda state: pictures.decoder_pictures(
            config, data.shape, state.ema, config.gan.noise
        ),
        shown=("discriminator_loss", "generator_loss", "discriminator_auc"),
        measure=None if measure is None else lambda state: measure(state.ema, config.gan.noise),
        # The matched decoder, with which the GAN is compared, or the start.
        measures_start=config.transfer.generator == "vae" or bool(config.gan.start),
        kept=lambda state: {name: getattr(state, name) for name in _KEPT},
    )


def check_terms(config: ConfigDict, image_shape: tuple[int, int, int]) -> None:
    """Traces a train step with two images for each loss that has terms, without computing it.

    Raises:
      UserError: if a term raises, or returns anything other than float32 [B].
    """
    pair = jax.ShapeDtypeStruct((2, *image_shape), np.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    if config.vae.terms and config.transfer.generator == "vae":
        state: Any = jax.eval_shape(lambda: vae.init(config, image_shape))
        jax.eval_shape(vae.make_train_step(config, image_shape), state, pair, key)
    # Without a path, there are only penalties of this package.
    if config.gan.generator_terms or ":" in config.gan.penalties:
        start = jax.eval_shape(lambda: gan.random_init(config, image_shape))
        state = jax.eval_shape(functools.partial(gan.init, config, image_shape), start)
        jax.eval_shape(gan.make_train_step(config, image_shape), state, pair, key)


@compilation.per_config
def _compiled_init(
    config: ConfigDict, init: Callable[..., Any], image_shape: tuple[int, int, int]
) -> Callable[..., Any]:
    return compilation.once(functools.partial(init, config, image_shape))
