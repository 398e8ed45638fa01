"""A run, top to bottom: data, VAE, hand-over, GAN, summary."""

import functools
import pathlib

import jax
from ml_collections import ConfigDict

from vaegan_jax import config as configuration
from vaegan_jax import gan, randomness, training, transfer, vae, workdir
from vaegan_jax.data import images
from vaegan_jax.errors import UserError
from vaegan_jax.report import pictures
from vaegan_jax.signals import StopRequest


def run(config: ConfigDict, path: pathlib.Path) -> None:
    """Runs a config in a workdir, going on from whatever is finished there.

    Args:
      config: from `default_config`, overridden at will.
      path: the workdir.

    Raises:
      UserError: for anything that the person who started it can put right.
      Stopped: where a signal asked for it; everything is saved.
    """
    configuration.check(config)
    workdir.require_usable(path, config)
    data = images.load(config.data)
    _require_enough(config, data)
    print(f"{images.describe(data)}\nThe run's folder is {path}", flush=True)
    with workdir.open_workdir(path, config) as folder, StopRequest() as stop:
        folder.require_data(images.facts(data))
        worked = False
        if config.transfer.generator == "vae":
            worked |= training.train(vae_stage(config, data), data.train, config, folder, stop)
        worked |= training.train(gan_stage(config, data, folder), data.train, config, folder, stop)
        if not worked:
            print("This run was finished before, and nothing is left to do.")
        print(summary(config, folder))


def vae_stage(config: ConfigDict, data: images.Images) -> training.Stage[vae.VAEState]:
    """Returns the VAE stage of a run."""
    init = functools.partial(vae.init, config, data.shape)
    reconstructions = pictures.make_reconstruction_picture(config, data.held_out)
    decoder_pictures = pictures.make_decoder_pictures(config, data.shape, "normal")
    return training.Stage(
        number=randomness.Stage.VAE,
        steps=config.vae.steps,
        batch_size=config.vae.batch_size,
        template=jax.eval_shape(init),
        init=jax.jit(init),
        step=vae.make_train_step(config, data.shape),
        pictures=lambda state: {
            "reconstructions": reconstructions(state.params),
            **decoder_pictures(state.params["decoder"]),
        },
        shown=("reconstruction", "kl"),
    )


def gan_stage(
    config: ConfigDict, data: images.Images, folder: workdir.Workdir
) -> training.Stage[gan.GANState]:
    """Returns the GAN stage of a run; its first state reads the VAE's last checkpoint."""
    random_generator = functools.partial(gan.random_generator, config, data.shape)
    init = functools.partial(gan.init, config, data.shape)
    generator_pictures = pictures.make_decoder_pictures(config, data.shape, config.gan.noise)

    def first_state() -> gan.GANState:
        if config.transfer.generator == "vae":
            vae_checkpoints = folder.checkpoints("vae")
            generator = transfer.generator_params(
                config, data.shape, vae_checkpoints, config.vae.steps
            )
        else:
            generator = jax.jit(random_generator)()
        # One compiled program for both beginnings, so that all else is equal to the last bit.
        state: gan.GANState = jax.jit(init)(generator)
        return state

    return training.Stage(
        number=randomness.Stage.GAN,
        steps=config.gan.steps,
        batch_size=config.gan.batch_size,
        template=jax.eval_shape(init, jax.eval_shape(random_generator)),
        init=first_state,
        step=gan.make_train_step(config, data.shape),
        pictures=lambda state: generator_pictures(state.ema),
        shown=("discriminator_loss", "generator_loss", "discriminator_accuracy"),
    )


def summary(config: ConfigDict, folder: workdir.Workdir) -> str:
    """Returns a few lines on a finished run: what it took, and which files to look at."""
    lines = []
    for stage, steps in (("vae", config.vae.steps), ("gan", config.gan.steps)):
        metrics = [line for line in folder.metrics() if line["stage"] == stage]
        if metrics:
            lines.append(
                f"{stage}: {steps} steps in {metrics[-1]['seconds']:.0f} s, "
                f"{metrics[-1]['images_per_second']:.0f} images/s at the end"
            )
            pictures_of_stage = sorted((folder.path / "images" / stage).glob(f"*_{steps:06d}.png"))
            lines += [f"  {picture}" for picture in pictures_of_stage]
    lines.append(f"numbers: {folder.path / 'metrics.jsonl'}")
    lines.append(f"curves:  tensorboard --logdir {folder.path / 'tensorboard'}")
    return "\n".join(lines)


def _require_enough(config: ConfigDict, data: images.Images) -> None:
    for stage in ("vae", "gan"):
        batch_size = config[stage].batch_size
        if batch_size > len(data.train):
            raise UserError(
                f"{stage}.batch_size ({batch_size}) is larger than the training set "
                f"({len(data.train)} images): lower it."
            )
