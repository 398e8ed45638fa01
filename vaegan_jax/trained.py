"""Loads trained models from a run, an export or the package, as functions of latents and images.

    from vaegan_jax import trained
    model = trained.load("runs/quickstart")
    images = model.decode(latents)
    gradient = jax.grad(lambda z: model.decode(z).sum())(latents)

Within `jax.jit`, `jax.grad` or `jax.vmap`, the methods of a model trace its networks. As functions
of the parameters, those are ``networks.make_decode(model.config.model, model.image_shape)``, which
takes ``model.params``, and `networks.make_encode`, which takes ``model.parts["encoder"]``.

Nothing is written and no lock is taken, so a run can be loaded while it is training.
"""

import functools
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vaegan_jax import checkpoints, migrations, vae, weights, workdir
from vaegan_jax import config as configuration
from vaegan_jax.data import images
from vaegan_jax.errors import UserError, one_line
from vaegan_jax.trained_model import DECODING_PARTS as DECODING_PARTS
from vaegan_jax.trained_model import Trained as Trained

MODELS = ("vae", "gan")
PRETRAINED = "pretrained"
PRETRAINED_FILE = pathlib.Path(__file__).parent / "export/pretrained/comic_faces.safetensors"

_RECORDED = {
    "data": workdir.DATA,
    "latent": workdir.LATENT,
    "environment": workdir.ENVIRONMENT,
    "evaluation": workdir.NUMBERS,
}
_Read = tuple[int, ConfigDict, dict[str, Any], dict[str, Any]]  # step, config, parts, facts


class Part(NamedTuple):
    """The subtree at `path` in the state of a stage; `template` has `jax.ShapeDtypeStruct`s."""

    stage: str
    path: tuple[str, ...]
    template: Any


def parts_table(config: ConfigDict, image_shape: tuple[int, int, int]) -> dict[str, Part]:
    """Returns the parts of a run by name; ``likelihood`` only if it is learned."""
    params = jax.eval_shape(functools.partial(vae.init, config, image_shape)).params
    size = config.model.latent_size
    array = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    return {name: Part("vae", ("params", name), tree) for name, tree in params.items()} | {
        "generator": Part("gan", ("ema",), params["decoder"]),
        "raw_generator": Part("gan", ("generator",), params["decoder"]),
        "latent_mean": Part("gan", ("latent_mean",), array((size,))),
        "latent_factor": Part("gan", ("latent_factor",), array((size, size))),
    }


def load(
    source: str | pathlib.Path,
    model: str = "gan",
    step: int | str | None = None,
    encoder: bool = True,
) -> Trained:
    """Loads a trained model; reads only the parameters it needs.

    Args:
      source: folder of a run, an export (``.safetensors``), or "pretrained" for the bundled model
        of comic faces.
      model: "gan" for the generator, "vae" for the decoder.
      step: the checkpoint step; None for the newest undamaged checkpoint; "best" for the GAN's with
        the smallest distance of its curve.
      encoder: whether to read the encoder and the learned likelihood as well, if there are any.

    Raises:
      UserError: if the model or the step does not exist, or cannot be read.
    """
    path = _resolve(source, model)
    names = DECODING_PARTS[model] + (("encoder", "likelihood") if encoder else ())
    chosen = best_step(path, model) if isinstance(step, str) else step
    read = _read_export if path.is_file() else _read_run
    chosen, config, parts, facts = read(path, model, chosen, names)
    sha256 = weights.digest({name: parts[name] for name in DECODING_PARTS[model]})
    facts |= {"source": str(path), "sha256": sha256}
    shape = images.settings(config.data).image_shape
    placed = jax.device_put({name: part for name, part in parts.items() if part is not None})
    size = config.model.latent_size
    return Trained(model, chosen, config, shape, size, facts, placed)


def best_step(path: pathlib.Path, model: str = "gan") -> int:
    """Returns the step of a run's GAN with the smallest distance of its curve; see `load`."""
    saved = checkpoints.steps(path / workdir.CHECKPOINTS / workdir.BEST)
    if model != "gan" or not saved:
        raise UserError(
            f"{path} has no best checkpoint of its {model}: that needs a GAN with a curve "
            "(evaluation.curve_every)."
        )
    return saved[-1]


def steps(source: str | pathlib.Path, model: str) -> list[int]:
    """Returns the available steps of a model in ascending order; see `load`."""
    path = _resolve(source, model)
    if path.is_file():
        return [step for name, step in _read_card(path)[1].items() if name == model]
    return checkpoints.steps(workdir.Workdir(path).checkpoints(model))


def read_parts(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    folder: workdir.Workdir,
    steps: dict[str, int | None],
    names: Iterable[str],
) -> dict[str, Any]:
    """Reads only the named parts of `parts_table` from a run's checkpoints.

    Args:
      config: the run's config.
      image_shape: (height, width, channels).
      folder: the run's folder.
      steps: the checkpoint step by stage; None for a stage without a checkpoint.
      names: names of the parts.

    Returns:
      float32 arrays by name; None if there is no checkpoint or the likelihood is not learned.

    Raises:
      UserError: if a checkpoint is damaged or does not match the config.
    """
    table = parts_table(config, image_shape)
    result: dict[str, Any] = dict.fromkeys(names)
    for stage, step in steps.items():
        parts = {name: table[name] for name in result if name in table}
        parts = {name: part for name, part in parts.items() if part.stage == stage}
        if step is not None and parts:
            directory = _directory(folder, stage, step) or folder.checkpoints(stage)
            templates = {part.path: part.template for part in parts.values()}
            read = checkpoints.read(directory, step, templates)
            result |= {name: read[part.path] for name, part in parts.items()}
    return result


def _directory(folder: workdir.Workdir, stage: str, step: int) -> pathlib.Path | None:
    """Returns the folder with a checkpoint of a stage: the newest ones', or that of the best."""
    names = (stage, workdir.BEST) if stage == "gan" else (stage,)
    directories = [folder.checkpoints(name) for name in names]
    return next((each for each in directories if step in checkpoints.steps(each)), None)


def config_from(flat: dict[str, Any], source: str) -> ConfigDict:
    """Unflattens a config; unknown fields are dropped and missing fields set to their defaults.

    Raises:
      UserError: if a value is invalid, or the networks are those of an earlier version; the message
        includes `source`.
    """
    config = configuration.default_config()
    try:
        if migrations.has_earlier_networks(flat):
            raise UserError(
                f"The networks in {source} are those of an earlier version, with 4x4 kernels: read "
                "it with the version that made it, or train again."
            )
        known = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in flat.items()
            if name in configuration.FIELDS
        }
        config.update_from_flattened_dict(known)
        for name, value in known.items():
            field = configuration.FIELDS[name]
            if name.startswith(("model.", "data.")) and not field.rule.allows(value):
                raise ValueError(f"{name} must be {field.rule.text}, and is {value!r}")
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"The config in {source} is damaged ({one_line(error)}).") from error
    return config


def _resolve(source: str | pathlib.Path, model: str) -> pathlib.Path:
    """Returns the path of a run or an export."""
    if model not in MODELS:
        raise UserError(f"The model must be one of {', '.join(MODELS)}, and is {model!r}.")
    path = PRETRAINED_FILE if str(source) == PRETRAINED else pathlib.Path(source).expanduser()
    if not path.is_file() and not (path / workdir.CONFIG).is_file():
        raise UserError(
            f"There is no run in {path}: name the folder of a run (with a {workdir.CONFIG}), an "
            f"export ({weights.SUFFIX}), or {PRETRAINED}."
        )
    return path


def _read_run(path: pathlib.Path, model: str, step: int | None, names: tuple[str, ...]) -> _Read:
    folder = workdir.Workdir(path)
    flat: Any = folder.read_json(workdir.CONFIG)
    config = config_from(flat, str(path / workdir.CONFIG))
    shape = images.settings(config.data).image_shape
    chosen = checkpoints.latest(folder.checkpoints(model)) if step is None else step
    if chosen is None or not _directory(folder, model, chosen):
        raise _missing(path, model, step)
    saved: dict[str, int | None] = {model: chosen}
    if "encoder" in names:  # a GAN is initialised from the last checkpoint of the VAE
        saved.setdefault("vae", checkpoints.latest(folder.checkpoints("vae")))
    parts = read_parts(config, shape, folder, saved, names)
    facts: dict[str, Any] = {name: folder.read_json(file) for name, file in _RECORDED.items()}
    steps_read = {stage: step for stage, step in saved.items() if step is not None}
    return chosen, config, parts, facts | {"dtype": "float32", "steps": steps_read, "card": None}


def _read_export(path: pathlib.Path, model: str, step: int | None, names: tuple[str, ...]) -> _Read:
    card, saved, config = _read_card(path)
    if model not in saved or step not in (None, saved[model]):
        raise _missing(path, model, step)
    table = parts_table(config, images.settings(config.data).image_shape)
    parts = {name: weights.read(path, name) for name in names}
    for name, part in parts.items():
        if part is not None or name in DECODING_PARTS[model]:
            checkpoints.require_equal_leaves(
                {} if part is None else part, table[name].template, f"{name} in {path}"
            )
    facts = {name: card.get(name) for name in (*_RECORDED, "dtype")}
    return saved[model], config, parts, facts | {"steps": saved, "card": card}


def _read_card(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, int], ConfigDict]:
    """Returns the model card of an export, and the steps and the config in it."""
    card = weights.read_card(path)
    try:
        saved = {name: int(step) for name, step in card["steps"].items()}
        return card, saved, config_from(card["config"], str(path))
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"The model card in {path} is damaged ({one_line(repr(error))})."
        ) from error


def _missing(path: pathlib.Path, model: str, step: int | None) -> UserError:
    checkpoint = "undamaged checkpoint" if step is None else f"checkpoint of step {step}"
    available = ", ".join(f"{name} {steps(path, name) or 'none'}" for name in MODELS)
    return UserError(f"{path} has no {checkpoint} of its {model}; available steps: {available}.")
