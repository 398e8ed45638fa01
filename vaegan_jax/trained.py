"""What was trained, ready to be used: from a run, an export or the package itself to functions.

    from vaegan_jax import trained
    model = trained.load("runs/quickstart")
    images = model.decode(latents)

Nothing here writes, and nothing waits: a run that is training can be looked at meanwhile.
"""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from vaegan_jax import checkpoints, networks, transfer, vae, workdir
from vaegan_jax import config as configuration
from vaegan_jax.checkpoints import require_equal_leaves
from vaegan_jax.data import images
from vaegan_jax.errors import UserError, one_line
from vaegan_jax.evaluation.batches import map_batches
from vaegan_jax.export import weights

MODELS = ("vae", "gan")
PRETRAINED = "pretrained"
PRETRAINED_FILE = pathlib.Path(weights.__file__).with_name("pretrained") / (
    f"comic_faces{weights.SUFFIX}"
)

PARTS = {
    "encoder": ("vae", ("params", "encoder")),
    "decoder": ("vae", ("params", "decoder")),
    "likelihood": ("vae", ("params", "likelihood")),
    "generator": ("gan", ("ema",)),
    "latent_mean": ("gan", ("latent_mean",)),
    "latent_factor": ("gan", ("latent_factor",)),
}
"""What can be read of a run: the stage that saves it, and where in that stage's state it is."""

_OWN = {"vae": ("decoder",), "gan": ("generator", "latent_mean", "latent_factor")}
_BATCH = 8  # quick on a CPU, whose cache it fits, and one size, so that nothing is compiled twice
_TRIES = 3


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network from latents to images, and the way back where there is one.

    Two spaces of latents meet here. The *encoder's* are those of the VAE; the model's *own* are
    what its network takes. They are one for a VAE; a GAN whose generator took in the aggregated
    posterior (``transfer.match_posterior``) takes its own latents.

    Attributes:
      model: "vae" or "gan".
      step: of that stage.
      config: the run's config, with defaults for what it is too old to have.
      image_shape: (height, width, channels).
      latent_size: L, of both spaces.
      facts: as JSON can hold them: `source`; `sha256` of the parameters that decode; `dtype` that
        they were stored as; `steps` of each stage; and what the run noted, None where it did not:
        `data`, `latent`, `environment`, `evaluation`, and `card`, that of an export.
      parts: parameters, float32, by the names of `PARTS`; None for what there is not.
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

    def decode(self, latents: jax.typing.ArrayLike) -> np.ndarray:
        """Returns the images of latents of the model's own.

        What comes of one does not depend on how many others there are. A GAN decodes by the
        running average of its generator.

        Args:
          latents: float32 [B, L].

        Returns:
          float32 [B, H, W, C] in [-1, 1].

        Raises:
          UserError: for latents of another shape, or not finite.
        """
        latents = self._checked(latents)
        return _in_batches(self._decode, latents, (self.image_shape,))[0]

    def encode(self, pictures: jax.typing.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Returns the posterior of images, in the encoder's latents.

        Args:
          pictures: float32 [B, H, W, C] in [-1, 1].

        Returns:
          Mean and log variance, float32 [B, L] each.

        Raises:
          UserError: where there is no encoder, or for images of another shape.
        """
        if not self.has_encoder:
            raise UserError(
                f"{self.facts['source']} has no encoder, which a VAE alone has: name a run that "
                "trained one, or an export with one."
            )
        pictures = np.asarray(pictures, np.float32)
        if pictures.shape[1:] != self.image_shape:
            raise UserError(
                f"Images of {_times(self.image_shape)} are wanted, and these are of "
                f"{_times(pictures.shape[1:])}."
            )
        sizes = ((self.latent_size,),) * 2
        mean, log_variance = _in_batches(self._encode, pictures, sizes)
        return mean, log_variance

    def to_generator_latents(self, latents: jax.typing.ArrayLike) -> np.ndarray:
        """Returns the model's own latents that match the encoder's: float32 [B, L], both."""
        latents = self._checked(latents)
        if self.model == "vae":
            return latents
        return np.array(transfer.to_generator_latents(*self._map, jnp.asarray(latents)))

    def to_encoder_latents(self, latents: jax.typing.ArrayLike) -> np.ndarray:
        """Returns the encoder's latents for this model's; inverts `to_generator_latents`."""
        latents = self._checked(latents)
        if self.model == "vae":
            return latents
        return np.array(transfer.to_encoder_latents(*self._map, jnp.asarray(latents)))

    @property
    def params(self) -> Any:
        """The parameters of the network that decodes: a `networks.Decoder`'s, float32."""
        return self.parts[_OWN[self.model][0]]

    @property
    def _map(self) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(self.parts["latent_mean"]), jnp.asarray(self.parts["latent_factor"])

    @functools.cached_property
    def _decode(self) -> Callable[[jax.Array], tuple[jax.Array]]:
        decode = jax.jit(networks.make_decode(self.config.model, self.image_shape))
        params = jax.device_put(self.params)
        return lambda latents: (decode(params, latents),)

    @functools.cached_property
    def _encode(self) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
        encoder = networks.make_encoder(self.config.model, self.image_shape)
        apply = jax.jit(functools.partial(networks.apply, encoder))
        return functools.partial(apply, jax.device_put(self.parts["encoder"]))

    def _checked(self, latents: jax.typing.ArrayLike) -> np.ndarray:
        found = np.asarray(latents, np.float32)
        if found.ndim != 2 or found.shape[1] != self.latent_size:
            raise UserError(
                f"Latents of [B, {self.latent_size}] are wanted, and these are of "
                f"[{', '.join(map(str, found.shape))}]."
            )
        if not np.isfinite(found).all():
            raise UserError("The latents hold numbers that are not finite.")
        return found


def load(
    source: str | pathlib.Path, model: str = "gan", step: int | None = None, encoder: bool = True
) -> Trained:
    """Loads a trained model; nothing is read that it does not need.

    Args:
      source: the folder of a run, an export (``.safetensors``), or "pretrained" for the model of
        comic faces that comes with the package.
      model: "gan" for the generator, "vae" for the decoder.
      step: of that stage; None for its newest sound checkpoint.
      encoder: whether to read the encoder as well, where there is one.

    Raises:
      UserError: where there is no such model or step, or it cannot be read.
    """
    _require_model(model)
    return _source(source).load(model, step, encoder)


def steps(source: str | pathlib.Path, model: str) -> list[int]:
    """Returns the steps at which a stage can be loaded, rising; none where it has not begun.

    Raises:
      UserError: where the source is none, or there is no such stage.
    """
    _require_model(model)
    return _source(source).steps(model)


def decoder_parts(model: str) -> tuple[str, ...]:
    """Returns the names of the parts by which a model decodes, those of its hash."""
    return _OWN[model]


def read_parts(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    folder: workdir.Workdir,
    steps: dict[str, int | None],
    names: Iterable[str],
) -> dict[str, Any]:
    """Reads parts of a run's states, and nothing else, from its checkpoints.

    Args:
      config: the run's config.
      image_shape: (height, width, channels).
      folder: the run's folder.
      steps: of which checkpoint, by stage; None for a stage without one.
      names: of `PARTS`.

    Returns:
      By name, float32; None for a part whose stage has no checkpoint, and for a likelihood that
      is not learned.

    Raises:
      UserError: where a checkpoint is damaged, or does not fit the config.
    """
    templates = _templates(config, image_shape)
    found: dict[str, Any] = dict.fromkeys(names)
    for stage, step in steps.items():
        wanted = {
            PARTS[name][1]: templates[name]
            for name in found
            if PARTS[name][0] == stage and name in templates
        }
        if step is not None and wanted:
            read = checkpoints.read(folder.checkpoints(stage), step, wanted)
            found |= {name: read[path] for name, (of, path) in PARTS.items()
                      if name in found and of == stage and path in read}  # fmt: skip
    return found


def config_from(flat: dict[str, Any], where: str) -> ConfigDict:
    """Returns the config that was saved flattened, with defaults for fields that are newer.

    Fields that are unknown to this version are left out.

    Args:
      flat: ``{"gan.steps": 20000, ...}``.
      where: that was read, for the message.

    Raises:
      UserError: where the networks cannot follow from it.
    """
    config = configuration.default_config()
    try:
        known = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in configuration.migrate(flat).items()
            if name in configuration.FIELDS
        }
        config.update_from_flattened_dict(known)
        for name, field in configuration.FIELDS.items():
            if name.startswith(("model.", "data.")) and not field.allowed(
                known.get(name, field.default)
            ):
                raise ValueError(f"{name} must be {field.wanted}, and is {known[name]!r}")
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"The config in {where} is damaged ({one_line(error)}).") from error
    return config


class _Run:
    """A run's folder as a source."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._folder = workdir.Workdir(path)
        saved: Any = self._folder.facts(workdir.CONFIG)
        self.config = config_from(saved, str(path / workdir.CONFIG))

    def steps(self, stage: str) -> list[int]:
        return checkpoints.steps(self._folder.checkpoints(stage))

    def load(self, model: str, step: int | None, encoder: bool) -> Trained:
        for attempt in range(_TRIES):
            chosen = self._choose(model, step)
            try:
                with _quiet():
                    return self._load(model, chosen, encoder)
            except UserError:
                # A run that trains on may have deleted that checkpoint for a newer one meanwhile.
                if step is not None or chosen in self.steps(model) or attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    def _choose(self, model: str, step: int | None) -> int:
        there = self.steps(model)
        if step is not None:
            if step not in there:
                raise UserError(
                    f"The run in {self._path} has no checkpoint of step {step} of its {model}: "
                    f"{_listed(there)}."
                )
            return step
        newest = checkpoints.latest(self._folder.checkpoints(model))
        if newest is None:
            other = "vae" if model == "gan" else "gan"
            raise UserError(
                f"The run in {self._path} has no sound checkpoint of its {model}, and of its "
                f"{other} {_listed(self.steps(other))}: name the other model, or let it train on."
            )
        return newest

    def _load(self, model: str, step: int, encoder: bool) -> Trained:
        shape = image_shape(self.config)
        chosen: dict[str, int | None] = {model: step}
        names = _OWN[model]
        if encoder:
            # The GAN has grown from the last of the VAE's.
            chosen.setdefault("vae", checkpoints.latest(self._folder.checkpoints("vae")))
            names = (*names, "encoder")
        parts = jax.device_get(read_parts(self.config, shape, self._folder, chosen, names))
        noted = {
            "data": workdir.DATA,
            "latent": workdir.LATENT,
            "environment": workdir.ENVIRONMENT,
            "evaluation": workdir.NUMBERS,
        }
        facts: dict[str, Any] = {name: self._folder.facts(file) for name, file in noted.items()}
        facts |= {
            "source": str(self._path),
            "dtype": "float32",
            "steps": {stage: found for stage, found in chosen.items() if found is not None},
            "card": None,
        }
        return _trained(model, step, self.config, parts, facts)


class _File:
    """An export as a source."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._card = weights.read_card(path)
        try:
            self._steps = {name: int(step) for name, step in self._card["steps"].items()}
            self.config = config_from(self._card["config"], str(path))
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise self._damaged(error) from error

    def steps(self, stage: str) -> list[int]:
        return [self._steps[stage]] if stage in self._steps else []

    def load(self, model: str, step: int | None, encoder: bool) -> Trained:
        there = self.steps(model)
        if not there or step not in (None, *there):
            asked = "" if step is None else f" of step {step}"
            raise UserError(
                f"{self._path} holds no {model}{asked}: it holds "
                f"{' and '.join(f'the {name} of step {at}' for name, at in self._steps.items())}."
            )
        templates = _templates(self.config, image_shape(self.config))
        parts = {}
        for name in (*_OWN[model], *(("encoder",) if encoder else ())):
            parts[name] = weights.read(self._path, name)
            if parts[name] is not None or name in _OWN[model]:
                require_equal_leaves(
                    checkpoints.leaves({} if parts[name] is None else parts[name]),
                    checkpoints.leaves(templates[name]),
                    f"{name} in {self._path}",
                    "the network that its config describes",
                )
        noted = ("data", "latent", "environment", "evaluation")
        facts = {name: self._card.get(name) for name in noted} | {
            "source": str(self._path),
            "dtype": self._card.get("dtype"),
            "steps": self._steps,
            "card": self._card,
        }
        return _trained(model, there[0], self.config, parts, facts)

    def _damaged(self, error: Exception) -> UserError:
        return UserError(f"The model card in {self._path} is damaged ({one_line(repr(error))}).")


def _source(source: str | pathlib.Path) -> _Run | _File:
    if str(source) == PRETRAINED:
        return _File(PRETRAINED_FILE)
    path = pathlib.Path(source).expanduser()
    if path.is_file():
        return _File(path)
    if not (path / workdir.CONFIG).is_file():
        raise UserError(
            f"There is no run in {path}: name the folder of one, which has a {workdir.CONFIG}, an "
            f"export ({weights.SUFFIX}), or {PRETRAINED}."
        )
    return _Run(path)


def image_shape(config: ConfigDict) -> tuple[int, int, int]:
    """Returns (height, width, channels) of the images that a config asks for."""
    height, width, channels, *_ = images.settings(config.data)
    return height, width, channels


def _trained(
    model: str, step: int, config: ConfigDict, parts: dict[str, Any], facts: dict[str, Any]
) -> Trained:
    facts["sha256"] = weights.digest({name: parts[name] for name in _OWN[model]})
    shape = image_shape(config)
    return Trained(model, step, config, shape, config.model.latent_size, facts, parts)


def _templates(config: ConfigDict, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Returns each part as `jax.ShapeDtypeStruct`; without a likelihood that is not learned."""
    params = jax.eval_shape(functools.partial(vae.init, config, image_shape)).params
    size = config.model.latent_size
    templates: dict[str, Any] = params | {
        "generator": params["decoder"],
        "latent_mean": jax.ShapeDtypeStruct((size,), jnp.float32),
        "latent_factor": jax.ShapeDtypeStruct((size, size), jnp.float32),
    }
    return templates


def _in_batches(
    function: Callable[[jax.Array], tuple[jax.Array, ...]],
    rows: np.ndarray,
    shapes: Iterable[tuple[int, ...]],
) -> tuple[np.ndarray, ...]:
    """Applies a function to rows, a batch of one size at a time; `shapes` is what each becomes."""
    if not len(rows):
        return tuple(np.zeros((0, *shape), np.float32) for shape in shapes)
    found: tuple[np.ndarray, ...] = map_batches(
        len(rows), lambda indices: function(jnp.asarray(rows[indices])), _BATCH
    )
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out what Orbax says of every checkpoint that is read in part; faults are raised."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _require_model(model: str) -> None:
    if model not in MODELS:
        raise UserError(f"There is no model {model!r}: it is one of {', '.join(MODELS)}.")


def _listed(steps: list[int]) -> str:
    return f"there are {', '.join(map(str, steps))}" if steps else "there is none"


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
