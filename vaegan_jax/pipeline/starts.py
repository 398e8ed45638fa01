"""Trained parameters with which the stages of a run begin: ``vae.start`` and ``gan.start``.

A stage that begins so has new optimizers and counts its steps from 0.
"""

import functools
import pathlib
from collections.abc import Sequence

import jax
import optax
from ml_collections import ConfigDict

from vaegan_jax import checkpoints, gan, trained, workdir
from vaegan_jax.data import images
from vaegan_jax.errors import UserError
from vaegan_jax.trained import weights


def load(
    config: ConfigDict, path: pathlib.Path, stages: Sequence[str]
) -> dict[str, trained.Trained]:
    """Returns the models, by stage, with which the given stages of the run in a folder begin.

    Stages that have begun are left out: they no longer depend on their start.

    Raises:
      UserError: if a model cannot be read or does not fit the config; leaves are listed.
    """
    models = {}
    for stage in stages:
        name = config[stage].start
        if name and checkpoints.latest(path / workdir.CHECKPOINTS / stage) is None:
            model = trained.load(name, stage, encoder=stage == "vae")
            require_fit(f"{stage}.start={name}", model, config)
            if stage == "gan" and config.transfer.discriminator == "start":
                model.parts["discriminator"] = _discriminator(config, model)
            models[stage] = model
    return models


def require_fit(field: str, model: trained.Trained, config: ConfigDict) -> None:
    """Checks that a trained model has the networks of a config.

    Raises:
      UserError: if it does not; `field` begins its message.
    """
    shape = images.settings(config.data).image_shape
    # These do not show in the parameters' shapes.
    for name, before, now in (
        ("the image shape", model.image_shape, shape),
        ("model.norm", model.config.model.norm, config.model.norm),
    ):
        if before != now:
            raise UserError(f"{field}: {name} is {before} there and {now} here: make them equal.")
    table = trained.parts_table(config, shape)
    names = [name for name, part in table.items() if part.stage == model.model]
    expected = {name: table[name].template for name in names if name != "raw_generator"}
    found = {name: model.parts.get(name, {}) for name in expected}
    checkpoints.require_equal_leaves(found, expected, f"The model of {field}")


def digests(models: dict[str, trained.Trained], path: pathlib.Path) -> dict[str, dict[str, str]]:
    """Returns the SHA-256 of the parameters of each model, by field and by source.

    Those of stages that have begun are as recorded in the run.json of the run in a folder.
    """
    recorded = (workdir.Reader(path).read_json(workdir.ENVIRONMENT) or {}).get("sources", {})
    return {name: recorded[name] for name in ("vae.start", "gan.start") if name in recorded} | {
        f"{stage}.start": {model.facts["source"]: weights.digest(model.parts)}
        for stage, model in models.items()
    }


def _discriminator(config: ConfigDict, model: trained.Trained) -> optax.Params:
    """Returns the parameters of the discriminator beside a run's generator."""
    source = pathlib.Path(model.facts["source"])
    if source.is_file():
        raise UserError(
            f"transfer.discriminator=start requires a run, and {source} has no discriminator: set "
            "transfer.discriminator=scratch."
        )
    init = functools.partial(gan.init, config, model.image_shape)
    start = jax.eval_shape(functools.partial(gan.random_init, config, model.image_shape))
    path: tuple[str, ...] = ("discriminator",)
    template = jax.eval_shape(init, start).discriminator
    directory = workdir.Reader(source).checkpoints("gan")
    return checkpoints.read(directory, model.step, {path: template})[path]


def gan_init(model: trained.Trained) -> gan.GANInit:
    """Returns the initial parameters of a GAN that begins with a trained one."""
    names = "generator", "discriminator", "latent_mean", "latent_factor"
    parts = {"discriminator": {}} | model.parts
    return gan.GANInit(*(parts[name] for name in names))
