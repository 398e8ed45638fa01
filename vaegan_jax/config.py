"""Every field of a config, once: its default, what it means, and what it may be.

Files in configs/ start from `default_config` and override; the command line overrides those; and
`check` is the one gate that every config passes before anything else happens.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict, FieldReference
from PIL import ImageColor

from vaegan_jax import networks, randomness, registry
from vaegan_jax.data import preprocessing
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation import embeddings, number
from vaegan_jax.evaluation.backbones import inception
from vaegan_jax.losses import augmentation
from vaegan_jax.losses import gan as gan_losses
from vaegan_jax.losses import vae as vae_losses

Check = Callable[[Any], bool]


class Field(NamedTuple):
    """One field of the config.

    Attributes:
      default: its value where nothing overrides it.
      allowed: whether a value may be used.
      wanted: what `allowed` asks for, to follow "must be".
      comment: what the field means.
      free: whether a run may go on with another value, since nothing that is trained depends on
        it.
      later: whether a run may go on with another value although something depends on it, since
        that lies ahead and not behind.
    """

    default: Any
    allowed: Check
    wanted: str
    comment: str
    free: bool = False
    later: bool = False


def _field(
    default: Any,
    rule: tuple[Check, str],
    comment: str,
    free: bool = False,
    later: bool = False,
) -> Field:
    return Field(default, *rule, comment, free, later)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(least: int) -> tuple[Check, str]:
    return lambda value: _is_int(value) and value >= least, f"a whole number of at least {least}"


def _one_of(names: Iterable[str]) -> tuple[Check, str]:
    names = tuple(names)
    return lambda value: value in names, "one of " + ", ".join(names)


def _is_size(value: Any) -> bool:
    sizes = (value, value) if _is_int(value) else value
    return (
        isinstance(sizes, tuple | list)
        and len(sizes) == 2
        and all(_is_int(size) and size > 0 and size % networks.SIZE_MULTIPLE == 0 for size in sizes)
    )


def _is_colour(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(ImageColor.getrgb(value)) == 3
    except ValueError:
        return False


_SAMPLES = (
    lambda value: _is_int(value) and (value == 0 or value >= number.MIN_SAMPLES),
    f"0, or at least {number.MIN_SAMPLES}",
)
_SEED = (lambda value: _is_int(value) and 0 <= value < 2**32, "a whole number from 0 to 2^32 - 1")
_SEEDS = (
    lambda value: isinstance(value, tuple | list) and all(map(_SEED[0], value)),
    "a tuple or list of whole numbers from 0 to 2^32 - 1, such as (0, 1, 2)",
)
_VARIANTS = (
    lambda value: (
        isinstance(value, tuple | list)
        and all(isinstance(text, str) and text.partition(":")[0].strip() for text in value)
    ),
    "a tuple or list of names with overrides, such as "
    '("warm", "scratch: transfer.generator=scratch; gan.steps=9")',
)
_POSITIVE = (lambda value: _is_number(value) and 0 < value < float("inf"), "a number above 0")
_NOT_NEGATIVE = (lambda value: _is_number(value) and 0 <= value < float("inf"), "at least 0")
_BELOW_ONE = (lambda value: _is_number(value) and 0 <= value < 1, "at least 0 and below 1")
_FRACTION = (lambda value: _is_number(value) and 0 <= value <= 1, "from 0 to 1")
_TEXT = (lambda value: isinstance(value, str), "text")
_NAMED = (lambda value: isinstance(value, str) and bool(value.strip()), "text that is not empty")
_YES_OR_NO = (lambda value: isinstance(value, bool), "True or False")
_CHANNELS = (lambda value: _is_int(value) and value in (1, 3), "1 or 3")
_DATA_NAME = (
    lambda value: (
        isinstance(value, str) and bool(re.fullmatch(r"[\w.]+(/[\w.+-]+)?(:[\w.*]+)?", value))
    ),
    "comic_faces, folder, or the name of a TFDS data set such as mnist or lsun/bedroom",
)
_OWN_OR_NONE = (
    lambda value: isinstance(value, str) and (not value or registry.is_path(value)),
    "empty, or package.module:function",
)
_AUGMENTATIONS = (
    lambda value: (
        isinstance(value, str)
        and all(
            name.strip() in augmentation.AUGMENTATIONS or registry.is_path(name.strip())
            for name in value.split(",")
            if value
        )
    ),
    "names with commas, of colour, translation, cutout, or your own as package.module:function",
)
_EMBEDDING = (
    lambda value: (
        isinstance(value, str)
        and (value in ("none", *embeddings.EMBEDDINGS) or registry.is_path(value))
    ),
    "none, pixels, efflite0, inception, or a function of your own as package.module:function",
)
_COLOUR = (_is_colour, 'a colour such as "white" or "#808080"')
_SIZE = (
    _is_size,
    f"a multiple of {networks.SIZE_MULTIPLE}, or two of them as (height, width)",
)

FIELDS: dict[str, Field] = {
    "seed": _field(0, _SEED, "every random draw of the run follows from it"),
    "seeds": _field((), _SEEDS, "one run per seed, each in its own folder; replaces seed"),
    "variants": _field(
        (), _VARIANTS, 'a run for each, such as ("warm", "scratch: transfer.generator=scratch")'
    ),
    # Data.
    "data.name": _field(
        "comic_faces", _DATA_NAME, "comic_faces, folder (with data.path), or a TFDS data set"
    ),
    "data.path": _field("", _TEXT, "the folder or zip, where data.name is folder", free=True),
    "data.split": _field("train", _NAMED, "which part of a TFDS data set, in its notation"),
    "data.feature": _field("", _TEXT, "which feature of a TFDS data set; found by type if empty"),
    "data.directory": _field(
        "", _TEXT, "where prepared data is kept; TFDS's own folder if empty", free=True
    ),
    "data.image_size": _field(64, _SIZE, "one number, or (height, width), in pixels"),
    "data.channels": _field(3, _CHANNELS, "3 for colour, 1 for grey"),
    "data.fit": _field(
        "crop", _one_of(preprocessing.FITS), "how images of another shape are made to fit"
    ),
    "data.background": _field(
        "white", _COLOUR, "behind transparent pixels, and around images with data.fit=pad"
    ),
    "data.held_out_one_in": _field(
        8, _whole(2), "one image in so many is never trained on; chosen by its pixels"
    ),
    "data.max_bad_fraction": _field(
        0.1, _FRACTION, "of the files, that may be unusable before the run is refused"
    ),
    "data.flip": _field(False, _YES_OR_NO, "mirror training images at random, left to right"),
    "data.max_resident_mb": _field(
        2_000.0, _NOT_NEGATIVE, "a larger set is streamed; the same bits either way", free=True
    ),
    "data.workers": _field(
        0, _whole(0), "threads that prepare and stream; 0 for one a core", free=True
    ),
    # Networks, common to both stages.
    "model.base_width": _field(64, _whole(1), "channels of the first level; each level doubles"),
    "model.latent_size": _field(128, _whole(1), "dimensions of the latent"),
    "model.norm": _field("group", _one_of(networks.NORMS), "in encoder, decoder and generator"),
    "model.discriminator_norm": _field("none", _one_of(networks.NORMS), "in the discriminator"),
    "model.spectral_norm": _field(
        False, _YES_OR_NO, "divide the discriminator's kernels by their largest singular values"
    ),
    "model.dtype": _field(
        "float32", _one_of(["float32", "bfloat16"]), "of the computation; parameters are float32"
    ),
    # The VAE stage.
    "vae.steps": _field(10_000, _whole(1), "train steps", later=True),
    "vae.batch_size": _field(64, _whole(1), "images a step"),
    "vae.learning_rate": _field(1e-3, _POSITIVE, "of Adam"),
    "vae.b1": _field(0.9, _BELOW_ONE, "Adam's decay of the gradient's mean"),
    "vae.b2": _field(0.999, _BELOW_ONE, "Adam's decay of the gradient's square"),
    "vae.reconstruction": _field(
        "squared_error",
        registry.allowed(vae_losses.RECONSTRUCTIONS),
        "the reconstruction term of the loss",
    ),
    "vae.decoder_variance": _field(
        "optimal",
        _one_of(["optimal", "learned"]),
        "of reconstruction=gaussian: the likeliest for each batch, or one parameter",
    ),
    "vae.kl_weight": _field(
        1.0, _NOT_NEGATIVE, "with squared_error, twice the variance of a Gaussian decoder"
    ),
    "vae.kl_schedule": _field(
        "constant", _one_of(vae_losses.KL_SCHEDULES), "how the KL weight comes up"
    ),
    "vae.kl_warmup_steps": _field(0, _whole(0), "of kl_schedule=linear, from 0 to the weight"),
    "vae.kl_cycles": _field(4, _whole(1), "of kl_schedule=cyclical, over all steps"),
    "vae.free_bits": _field(
        0.0, _NOT_NEGATIVE, "nats of KL a latent dimension that cost no less than these"
    ),
    # The transfer from the VAE to the GAN.
    "transfer.generator": _field(
        "vae",
        _one_of(["vae", "scratch"]),
        "begin as the VAE's decoder, or with random weights; scratch runs no VAE stage",
    ),
    "transfer.discriminator": _field(
        "scratch",
        _one_of(["scratch", "encoder"]),
        "begin with random weights, or with the trunk of the VAE's encoder and a random head",
    ),
    "transfer.match_posterior": _field(
        True,
        _YES_OR_NO,
        "have the generator begin as the decoder at latents as the encoder spreads them",
    ),
    # The GAN stage.
    "gan.steps": _field(
        20_000, _whole(1), "train steps, those of the warm-up included", later=True
    ),
    "gan.batch_size": _field(64, _whole(1), "real images a step, and as many fakes"),
    "gan.objective": _field(
        "non_saturating",
        registry.allowed(gan_losses.OBJECTIVES),
        "what generator and discriminator minimise",
    ),
    "gan.r1_weight": _field(0.5, _NOT_NEGATIVE, "gamma of the R1 penalty; 0 leaves it out"),
    "gan.r2_weight": _field(0.0, _NOT_NEGATIVE, "gamma of the R2 penalty; 0 leaves it out"),
    "gan.gradient_penalty_weight": _field(
        0.0, _NOT_NEGATIVE, "lambda of the gradient penalty; 0 leaves it out"
    ),
    "gan.penalty": _field(
        "", _OWN_OR_NONE, "a penalty of your own, as package.module:function; none if empty"
    ),
    "gan.penalty_weight": _field(1.0, _NOT_NEGATIVE, "of a penalty of your own"),
    "gan.penalty_every": _field(
        1, _whole(1), "steps from one penalty to the next, so many times as large"
    ),
    "gan.augmentations": _field(
        "",
        _AUGMENTATIONS,
        "of all that the discriminator sees: colour, translation, cutout, or your own, with commas",
    ),
    "gan.discriminator_steps": _field(
        1, _whole(1), "the generator trains at multiples of so many steps"
    ),
    "gan.noise": _field("normal", _one_of(randomness.DISTRIBUTIONS), "the latents' distribution"),
    "gan.generator_learning_rate": _field(2e-4, _POSITIVE, "of the generator's Adam"),
    "gan.discriminator_learning_rate": _field(2e-4, _POSITIVE, "of the discriminator's Adam"),
    "gan.b1": _field(0.5, _BELOW_ONE, "both Adams' decay of the gradient's mean"),
    "gan.b2": _field(0.999, _BELOW_ONE, "both Adams' decay of the gradient's square"),
    "gan.discriminator_warmup_steps": _field(
        200, _whole(0), "first steps, in which the discriminator trains alone"
    ),
    "gan.ema_half_life_images": _field(
        10_000.0, _POSITIVE, "images after which the generator's average has forgotten half"
    ),
    # The loop of both stages.
    "training.log_every": _field(100, _whole(1), "steps between lines of metrics", later=True),
    "training.picture_every": _field(1_000, _whole(1), "steps between pictures", later=True),
    "training.checkpoint_every": _field(1_000, _whole(1), "steps between checkpoints", later=True),
    "training.max_checkpoints": _field(3, _whole(1), "newest checkpoints kept, a stage", free=True),
    "training.seconds_per_call": _field(
        2.0, _POSITIVE, "about how long the device works before the host looks", free=True
    ),
    # The evaluation. Nothing that is trained depends on it.
    "evaluation.embedding": _field(
        "efflite0",
        _EMBEDDING,
        "in whose features images are compared; none for no evaluation",
        free=True,
    ),
    "evaluation.size": _field(
        224, _whole(32), "to which efflite0 resizes, in pixels; smaller is faster", free=True
    ),
    "evaluation.resize": _field(
        "clean",
        _one_of(inception.RESIZES),
        "how inception resizes; in an FID's name",
        free=True,
    ),
    "evaluation.weights": _field(
        "", _TEXT, "inception's file of weights; downloaded to ~/.cache if empty", free=True
    ),
    "evaluation.statistics": _field(
        "", _TEXT, "an .npz of mu and sigma to take a Frechet distance from as well", free=True
    ),
    "evaluation.samples": _field(
        0,
        _SAMPLES,
        "of each kind (at most as many reconstructions as images are held out); 0 for as many as "
        "are held out, at most 10,000, for which floors exist",
        free=True,
    ),
    "evaluation.max_reference_images": _field(
        50_000, _SAMPLES, "most real images, on either side, to compare with; 0 for all", free=True
    ),
    "evaluation.path_samples": _field(
        1_000, _whole(2), "pairs of latents for the path length", free=True
    ),
    "evaluation.max_likelihood_images": _field(
        1_000, _whole(2), "at most so many held-out images have their likelihood bounded", True
    ),
    "evaluation.iwae_samples": _field(64, _whole(1), "K of the IWAE bound", free=True),
    "evaluation.curve_every": _field(
        1_000, _whole(0), "steps between cheap evaluations during training; 0 for none", free=True
    ),
    "evaluation.curve_samples": _field(
        500,
        _whole(number.MIN_SAMPLES),
        "samples, against twice as many held-out images or all there are",
        free=True,
    ),
}


def default_config() -> ConfigDict:
    """Returns the default config; fields can be set, but none added."""
    values = {name: field.default for name, field in FIELDS.items()}
    # These take any type, and `check` refuses what is wrong: ml_collections would convert anything
    # that is assigned to a tuple, a dict to its keys.
    for name in ("seeds", "variants", "data.image_size"):
        values[name] = FieldReference(values[name], field_type=object)
    return ConfigDict(unflatten_dict(values, sep=".")).lock()


def flatten(config: ConfigDict) -> dict[str, Any]:
    """Returns ``{"gan.steps": 20000, ...}``, tuples as lists, in the order of the names.

    A dict that was assigned to a field stays that field's value, so that `check` refuses it.
    """

    def name_of(path: tuple[Any, ...]) -> str:
        return ".".join(map(str, path))

    leaves = flatten_dict(config.to_dict(), is_leaf=lambda path, _: name_of(path) in FIELDS)
    values = {name_of(path): value for path, value in leaves.items()}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in sorted(values.items())
    }


def to_json(config: ConfigDict) -> str:
    """Returns the config as JSON, one field a line, the same text for the same config."""
    return json.dumps(flatten(config), indent=2) + "\n"


RENAMED: dict[str, str] = {
    "data.resident_limit_mb": "data.max_resident_mb",
    "vae.variance": "vae.decoder_variance",
    "gan.ema_half_life": "gan.ema_half_life_images",
    "training.keep_checkpoints": "training.max_checkpoints",
    "evaluation.reference_images": "evaluation.max_reference_images",
    "evaluation.likelihood_images": "evaluation.max_likelihood_images",
    "evaluation.likelihood_draws": "evaluation.iwae_samples",
    "evaluation.paths": "evaluation.path_samples",
}
"""Names of fields in earlier versions -> today's."""

REMOVED: dict[str, str] = {
    **{
        f"gan.discriminator_{beta}": f"set gan.{beta}, which holds for both networks"
        for beta in ("b1", "b2")
    },
    "training.picture_columns": "leave it out; grids of pictures have 8 columns",
    "transfer.generator_rate_decay": (
        "set gan.generator_learning_rate, which holds for every level of the generator"
    ),
    "gan.generator_rate_warmup_steps": (
        "set gan.generator_learning_rate, which is constant from the first step"
    ),
    **dict.fromkeys(
        (
            "monitor.window",
            "monitor.accuracy",
            "monitor.generator_slope",
            "monitor.swing",
            "monitor.steadiness",
            "monitor.logit",
            "monitor.diversity",
            "monitor.duplicates",
            "monitor.kl",
            "monitor.active",
            "monitor.sharpness",
        ),
        "leave it out; the thresholds are constants in vaegan_jax/training/monitor.py",
    ),
    "together": "name the seeds in config.seeds, which are trained one after another",
    "training.together_by": "name the seeds in config.seeds, which are trained one after another",
    "training.on_nonfinite": "a number that is not finite stops the run; leave the field out",
    "training.most_rollbacks": "a number that is not finite stops the run; leave the field out",
    "training.rollback_rate": "a number that is not finite stops the run; lower learning rates",
}
"""Fields of earlier versions, and what to do instead."""


def migrate(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a flattened config of an earlier version with renamed fields by today's names."""
    return {RENAMED.get(name, name): value for name, value in flat.items()}


def unknown_field(name: str) -> UserError:
    """Returns the error for a field that does not exist, or that an older version had.

    Args:
      name: of the field, or the part of it that ml_collections did not find: its section or its
        last part.
    """
    for old, new in RENAMED.items():
        if name in (old, old.rpartition(".")[2]):
            return UserError(f"The config field {old} is now called {new}.")
    for removed, instead in REMOVED.items():
        if name in (removed, *removed.split(".")):
            return UserError(f"The config field {name} was removed: {instead}.")
    last = {field.rpartition(".")[2]: field for field in FIELDS}
    near = difflib.get_close_matches(name, FIELDS, n=3)
    near += [last[match] for match in difflib.get_close_matches(name.rpartition(".")[2], last)]
    near = list(dict.fromkeys(near))[:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "vaegan_jax/config.py lists them all."
    return UserError(f"The config has no field {name}: {hint}")


def check(config: ConfigDict) -> None:
    """Checks every field, and that they go together.

    Raises:
      UserError: for the first field that is unknown, missing or not allowed, by name.
    """
    values = flatten(config)
    for name in values:
        if name not in FIELDS:
            raise unknown_field(name)
    for name, field in FIELDS.items():
        if name not in values:
            raise UserError(
                f"The config lacks {name}: start from vaegan_jax.config.default_config()."
            )
        if not field.allowed(values[name]):
            raise UserError(f"{name} must be {field.wanted}, and is {values[name]!r}.")
    if config.data.name == "folder" and not config.data.path:
        raise UserError(
            "data.path is empty: name the folder or the zip that holds the images, such as "
            "--config.data.path=~/Pictures."
        )
    for name, owner in _ONLY_FOR.items():
        if values[name] != FIELDS[name].default and _kind(config.data.name) != owner:
            raise UserError(
                f"{name} ({values[name]!r}) is only for {owner}, and data.name is "
                f"{config.data.name}: set data.name, or leave it out."
            )
    for name, (other, wanted) in _ONLY_WITH.items():
        if values[name] != FIELDS[name].default and values[other] != wanted:
            raise UserError(
                f"{name}={values[name]} is only for {other}={wanted}, and that is "
                f"{values[other]}: change one of the two."
            )
    _check_steps(config)
    if config.transfer.generator == "scratch" and config.transfer.discriminator != "scratch":
        raise UserError(
            f"transfer.discriminator ({config.transfer.discriminator}) takes from a VAE, and "
            "transfer.generator is scratch, which trains none: set transfer.generator=vae, or "
            "leave it out."
        )
    norms = config.model.norm, config.model.discriminator_norm
    if config.transfer.discriminator == "encoder" and norms[0] != norms[1]:
        raise UserError(
            f"transfer.discriminator=encoder needs model.discriminator_norm ({norms[1]}) to be "
            f"model.norm ({norms[0]}), or the trunk would compute something else than it learned: "
            "set both to the same."
        )


def _check_steps(config: ConfigDict) -> None:
    """Checks that each network trains, and that each schedule reaches its end, within the steps."""
    warmup, steps = config.vae.kl_warmup_steps, config.vae.steps
    if config.vae.kl_schedule == "linear" and not 0 < warmup < steps:
        raise UserError(
            f"vae.kl_warmup_steps ({warmup}) must be above 0 and below vae.steps ({steps}) with "
            "vae.kl_schedule=linear, or the KL weight does not rise from 0 to vae.kl_weight."
        )
    if config.vae.kl_schedule == "cyclical" and steps < 2 * config.vae.kl_cycles:
        raise UserError(
            f"vae.kl_cycles ({config.vae.kl_cycles}) must be at most half of vae.steps "
            f"({steps}): a cycle takes two steps at least."
        )
    warmup, steps = config.gan.discriminator_warmup_steps, config.gan.steps
    if warmup >= steps:
        raise UserError(
            f"gan.discriminator_warmup_steps ({warmup}) must be below gan.steps ({steps}), "
            "or the generator never trains."
        )
    every = config.gan.discriminator_steps
    updates = steps // every - warmup // every  # see gan.train_step
    if not updates:
        raise UserError(
            f"The generator never trains: it does so at multiples of gan.discriminator_steps "
            f"({every}) above gan.discriminator_warmup_steps ({warmup}), and there is none up to "
            f"gan.steps ({steps}). Lower gan.discriminator_steps."
        )


def _kind(data_name: str) -> str:
    own = {"folder": "data.name=folder", "comic_faces": "the comic faces"}
    return own.get(data_name, "TFDS data sets")


_ONLY_FOR = {
    "data.path": "data.name=folder",
    "data.split": "TFDS data sets",
    "data.feature": "TFDS data sets",
}

_ONLY_WITH = {
    "vae.decoder_variance": ("vae.reconstruction", "gaussian"),
    "vae.kl_warmup_steps": ("vae.kl_schedule", "linear"),
    "vae.kl_cycles": ("vae.kl_schedule", "cyclical"),
}
"""Fields that do nothing unless another one has a certain value."""


class Change(NamedTuple):
    """A field that differs between two configs.

    Attributes:
      name: of the field.
      before: its value before.
      now: its value now.
    """

    name: str
    before: Any
    now: Any


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[Change]:
    """Returns the fields that differ between two flattened configs, by name.

    Fields on which nothing that is trained depends are left out. A field that an older config
    lacks had its default: whoever adds a field gives it the default under which nothing changes.
    """
    missing = "absent"
    defaults = {name: field.default for name, field in FIELDS.items()}
    before, now = defaults | before, defaults | now
    return [
        Change(name, before.get(name, missing), now.get(name, missing))
        for name in sorted(before.keys() | now.keys())
        if before.get(name, missing) != now.get(name, missing)
        and not (name in FIELDS and FIELDS[name].free)
    ]


def objection(change: Change, config: ConfigDict, saved: dict[str, int]) -> str:
    """Returns why a run cannot go on with a changed field, or nothing where it can.

    Args:
      change: of one field.
      config: the run's new config.
      saved: the newest saved step of each stage that has begun.
    """
    if change.name not in FIELDS or not FIELDS[change.name].later:
        return "the past would have been another"
    stage, _, field = change.name.partition(".")
    if field != "steps":
        return ""
    if change.now < saved.get(stage, 0):
        return f"step {saved[stage]} is saved already"
    if stage == "vae" and "gan" in saved:
        return "the GAN has grown from the VAE as it was"
    if stage == "vae" and config.vae.kl_schedule == "cyclical":
        return "the cycles of vae.kl_schedule depend on it"
    return ""


def table(changes: Iterable[tuple[Any, ...]], heading: tuple[str, ...]) -> str:
    """Returns rows of text in columns, indented."""
    rows = [heading, *(tuple(map(str, change)) for change in changes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
