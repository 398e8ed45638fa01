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

import contextlib
import dataclasses
import functools
import logging as python_logging
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from vaegan_jax import (
    checkpoints,
    migrations,
    networks,
    randomness,
    transfer,
    vae,
    weights,
    workdir,
)
from vaegan_jax import config as configuration
from vaegan_jax.data import images
from vaegan_jax.errors import UserError, one_line
from vaegan_jax.evaluation.batches import map_batches

MODELS = ("vae", "gan")
PRETRAINED = "pretrained"
PRETRAINED_FILE = pathlib.Path(__file__).parent / "export/pretrained/comic_faces.safetensors"

DECODING_PARTS = {"vae": ("decoder",), "gan": ("generator", "latent_mean", "latent_factor")}
"""Names of the parts of a model other than the encoder; its hash is computed from them."""

_BATCH = 8  # fits the cache of a CPU; a single size, so that nothing is compiled twice
_RECORDED = {
    "data": workdir.DATA,
    "latent": workdir.LATENT,
    "environment": workdir.ENVIRONMENT,
    "evaluation": workdir.NUMBERS,
}
_RANGE_MARGIN = 1e-3  # for rounding; the next grey level is 8e-3 away
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


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained decoder or generator, with the encoder if available.

    The *encoder's latents* are those of the VAE. A VAE decodes these; a GAN decodes the
    *generator's latents*, which differ from them if the generator was matched to the aggregated
    posterior (``transfer.match_posterior``).

    Attributes:
      model: "vae" or "gan".
      step: the checkpoint step.
      config: the run's config, with defaults for missing fields.
      image_shape: (height, width, channels).
      latent_size: L, for both kinds of latents.
      facts: JSON-compatible metadata: `source`; `sha256` of the `DECODING_PARTS`; `dtype` of the
        stored parameters; `steps` by stage; and `data`, `latent`, `environment`, `evaluation` and
        `card` (of an export), None if they are not recorded.
      parts: float32 parameters by name in `parts_table`; None if missing.
    """

    model: str
    step: int
    config: ConfigDict = dataclasses.field(repr=False)
    image_shape: tuple[int, int, int]
    latent_size: int
    facts: dict[str, Any] = dataclasses.field(repr=False)
    parts: dict[str, Any] = dataclasses.field(repr=False)

    @property
    def has_encoder(self) -> bool:
        """Whether `encode` can be called."""
        return self.parts.get("encoder") is not None

    @property
    def params(self) -> Any:
        """Parameters of the `networks.Decoder`: the decoder's, or the EMA of the generator's."""
        return self.parts[DECODING_PARTS[self.model][0]]

    def decode(self, latents: jax.typing.ArrayLike) -> Any:
        """Decodes latents: the encoder's for a VAE, the generator's for a GAN (with EMA weights).

        Args:
          latents: float32 [B, L]; each image depends only on its latent.

        Returns:
          float32 [B, H, W, C] in [-1, 1]: a NumPy array, or a tracer for traced latents.

        Raises:
          UserError: if the latents have another shape or are not finite; values of tracers are not
            checked.
        """
        latents = self._checked(latents)
        return _map(self._networks[0], self._placed["decoder"], latents)

    def encode(self, pictures: jax.typing.ArrayLike) -> tuple[Any, Any]:
        """Returns the posterior of images, over the encoder's latents.

        Args:
          pictures: floating-point [B, H, W, C] in [-1, 1].

        Returns:
          Mean and log variance, float32 [B, L] each: NumPy arrays, or tracers for traced images.

        Raises:
          UserError: if there is no encoder, or the images have another shape, dtype or range;
            values of tracers are not checked.
        """
        if not self.has_encoder:
            raise UserError(f"{self.facts['source']} has no encoder: use one with a VAE.")
        pictures = pictures if isinstance(pictures, jax.core.Tracer) else np.asarray(pictures)
        if pictures.shape[1:] != self.image_shape:
            raise UserError(f"Expected images {self.image_shape}, got {pictures.shape[1:]}.")
        if not jnp.issubdtype(pictures.dtype, jnp.floating):
            raise UserError(
                f"Expected floating-point images in [-1, 1], got {pictures.dtype}: convert uint8 "
                "images with vaegan_jax.data.preprocessing.to_network."
            )
        if not isinstance(pictures, jax.core.Tracer) and not np.all(
            np.abs(pictures) <= 1 + _RANGE_MARGIN
        ):
            raise UserError(
                "Expected images in [-1, 1], and some pixels are outside or not a number."
            )
        mean, log_variance = _map(self._networks[1], self._placed["encoder"], pictures)
        return mean, log_variance

    def sample(self, key: jax.Array, count: int = 1) -> Any:
        """Decodes random latents, of ``gan.noise`` for a GAN and normal for a VAE.

        Args:
          key: consumed.
          count: the number of images, B.

        Returns:
          Images as those of `decode`.
        """
        noise = self.config.gan.noise if self.model == "gan" else "normal"
        return self.decode(randomness.latents(key, (count, self.latent_size), noise))

    def to_generator_latents(self, latents: jax.typing.ArrayLike) -> Any:
        """Converts the encoder's latents to those that `decode` takes, float32 [B, L].

        ``L^-1 (z - m)`` with the GAN's latent mean m and factor L; the identity for a VAE.
        """
        return self._convert(transfer.to_generator_latents, latents)

    def to_encoder_latents(self, latents: jax.typing.ArrayLike) -> Any:
        """Inverts `to_generator_latents`: ``m + L z``, float32 [B, L]; the identity for a VAE."""
        return self._convert(transfer.to_encoder_latents, latents)

    def _convert(self, convert: Callable[..., Any], latents: jax.typing.ArrayLike) -> Any:
        latents = self._checked(latents)
        if self.model == "vae":
            return latents
        mean, factor = (jnp.asarray(self.parts[f"latent_{name}"]) for name in ("mean", "factor"))
        converted = convert(mean, factor, jnp.asarray(latents))
        return converted if isinstance(latents, jax.core.Tracer) else np.array(converted)

    @property
    def _networks(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        description = self.config.model, self.image_shape
        return networks.make_decode(*description), networks.make_encode(*description)

    @functools.cached_property
    def _placed(self) -> dict[str, Any]:
        """Parameters on the device."""
        with jax.ensure_compile_time_eval():
            placed: dict[str, Any] = jax.device_put(
                {"decoder": self.params, "encoder": self.parts.get("encoder")}
            )
        return placed

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out `_placed` when pickled or copied."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def _checked(self, latents: jax.typing.ArrayLike) -> Any:
        if isinstance(latents, jax.core.Tracer):
            array: Any = latents.astype(jnp.float32)
        else:
            array = np.asarray(latents, np.float32)
        if array.shape[1:] != (self.latent_size,):
            raise UserError(f"Expected latents [B, {self.latent_size}], got {[*array.shape]}.")
        if not isinstance(array, jax.core.Tracer) and not np.isfinite(array).all():
            raise UserError("The latents are not finite.")
        return array


def load(
    source: str | pathlib.Path, model: str = "gan", step: int | None = None, encoder: bool = True
) -> Trained:
    """Loads a trained model; reads only the parameters it needs.

    Args:
      source: folder of a run, an export (``.safetensors``), or "pretrained" for the bundled model
        of comic faces.
      model: "gan" for the generator, "vae" for the decoder.
      step: the checkpoint step; None for the newest undamaged checkpoint.
      encoder: whether to read the encoder as well, if there is one.

    Raises:
      UserError: if the model or the step does not exist, or cannot be read.
    """
    path = _resolve(source, model)
    names = DECODING_PARTS[model] + (("encoder",) if encoder else ())
    read = _read_export if path.is_file() else _read_run
    step, config, parts, facts = read(path, model, step, names)
    sha256 = weights.digest({name: parts[name] for name in DECODING_PARTS[model]})
    facts |= {"source": str(path), "sha256": sha256}
    shape = images.settings(config.data).image_shape
    return Trained(model, step, config, shape, config.model.latent_size, facts, parts)


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
        parts = {name: part for name, part in table.items() if part.stage == stage}
        parts = {name: part for name, part in parts.items() if name in result}
        if step is not None and parts:
            templates = {part.path: part.template for part in parts.values()}
            read = checkpoints.read(folder.checkpoints(stage), step, templates)
            result |= {name: read[part.path] for name, part in parts.items()}
    return result


def config_from(flat: dict[str, Any], source: str) -> ConfigDict:
    """Unflattens a config; unknown fields are dropped and missing fields set to their defaults.

    Raises:
      UserError: if a value is invalid, or the networks are those of an earlier version; the message
        includes `source`.
    """
    config = configuration.default_config()
    try:
        migrated = migrations.migrate(flat)
        if migrations.has_earlier_networks(migrated):
            raise UserError(
                f"The networks in {source} are those of an earlier version, with 4x4 kernels: read "
                "it with the version that made it, or train again."
            )
        known = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in migrated.items()
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
    if chosen is None or chosen not in steps(path, model):
        raise _missing(path, model, step)
    saved: dict[str, int | None] = {model: chosen}
    if "encoder" in names:  # a GAN is initialised from the last checkpoint of the VAE
        saved.setdefault("vae", checkpoints.latest(folder.checkpoints("vae")))
    try:
        with _without_warnings():
            parts = jax.device_get(read_parts(config, shape, folder, saved, names))
    except UserError:
        if step is None and chosen not in steps(path, model):
            # A running training has replaced the checkpoint with a newer one.
            return _read_run(path, model, step, names)
        raise
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
                checkpoints.leaves({} if part is None else part),
                checkpoints.leaves(table[name].template),
                f"{name} in {path}",
                "the network that its config describes",
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


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Drops Orbax's warnings about partial reads, of this thread only."""
    thread = threading.get_ident()

    def keeps(record: python_logging.LogRecord) -> bool:
        return record.thread != thread or record.levelno >= python_logging.ERROR

    logger = logging.get_absl_logger()
    logger.addFilter(keeps)
    try:
        yield
    finally:
        logger.removeFilter(keeps)


def _map(function: Callable[[Any, Any], Any], params: Any, rows: Any) -> Any:
    """Applies ``function(params, rows)`` in batches of constant size.

    Returns arrays with one row per input row; traced rows are one batch.
    """
    jitted = jax.jit(function)
    if isinstance(rows, jax.core.Tracer):
        return jitted(params, rows.astype(jnp.float32))
    rows = rows.astype(np.float32)
    batch = rows if len(rows) else np.zeros((1, *rows.shape[1:]), np.float32)
    with jax.ensure_compile_time_eval():  # constants of a traced function
        result = map_batches(len(batch), lambda i: jitted(params, jnp.asarray(batch[i])), _BATCH)
    return jax.tree.map(lambda array: array[: len(rows)], result)
