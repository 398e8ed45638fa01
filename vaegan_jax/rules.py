"""Config fields: defaults, rules for values, when they may change, and how they must agree."""

import enum
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from PIL import ImageColor

from vaegan_jax import registry
from vaegan_jax.errors import UserError

SIZE_MULTIPLE = 16
"""Image sides are multiples of this, so that the networks can halve them, see `networks.widths`."""

MIN_SAMPLES = 40
"""The fewest images that an evaluation accepts, for its errors and nearest neighbours."""


class Rule(NamedTuple):
    """The values that a field allows, and a description of them to follow "must be"."""

    allows: Callable[[Any], bool]
    text: str


class Resume(enum.Enum):
    """When a run may resume with another value of a field."""

    NEVER = enum.auto()  # the steps already taken depend on it
    AHEAD = enum.auto()  # only later steps depend on it
    ALWAYS = enum.auto()  # nothing that is trained depends on it


class Field(NamedTuple):
    """One field of the config.

    Attributes:
      default: its default value.
      rule: the values that it allows.
      meaning: one line of documentation.
      resume: when a run may resume with another value.
    """

    default: Any
    rule: Rule
    meaning: str
    resume: Resume = Resume.NEVER


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def at_least(minimum: int) -> Rule:
    """Returns the rule for integers with a minimum."""
    return Rule(
        lambda value: _is_int(value) and value >= minimum, f"an integer of at least {minimum}"
    )


def one_of(*names: str) -> Rule:
    """Returns the rule for an enumeration."""
    return Rule(lambda value: value in names, "one of " + ", ".join(names))


def one_loss(kind: str) -> Rule:
    """Returns the rule for one built-in name or import path of a kind, with options."""
    return Rule(
        lambda value: len(_losses(kind, value) or ()) == 1,
        f"{registry.describe(kind)}, with options as in name(option=1)",
    )


def losses(kind: str, automatic: bool = False) -> Rule:
    """Returns the rule for several of them, with commas; with `automatic` also for "auto"."""
    auto, example = ("auto, " if automatic else ""), next(iter(registry.BUILT_IN[kind]))
    options = registry.TERM_OPTIONS.get(kind, ("option",))
    return Rule(
        lambda value: (automatic and value == "auto") or _losses(kind, value) is not None,
        f"{auto}empty, or a comma-separated list, each {registry.describe(kind)}, with options as "
        f"in {example}({', '.join(f'{option}=2' for option in options)})",
    )


def _losses(kind: str, value: Any) -> list[registry.Call] | None:
    """Returns the losses that a value names; None if it is not allowed."""
    try:
        calls = registry.parse(value) if isinstance(value, str) else [registry.Call("", {})]
    except UserError:
        return None
    names = [call.name for call in calls]
    if not all(name in registry.BUILT_IN[kind] or registry.is_path(name) for name in names):
        return None
    if kind not in registry.TERM_OPTIONS:
        return calls
    # Terms have a weight, and a name in the metrics.
    allowed = len(set(names)) == len(names) and all(
        NON_NEGATIVE.allows(call.options.get("weight", 1))
        and (kind != "penalty" or at_least(1).allows(call.options.get("every", 1)))
        for call in calls
    )
    return calls if allowed else None


def _is_size(value: Any) -> bool:
    sizes = (value, value) if _is_int(value) else value
    return (
        isinstance(sizes, tuple | list)
        and len(sizes) == 2
        and all(_is_int(size) and size > 0 and size % SIZE_MULTIPLE == 0 for size in sizes)
    )


def _is_colour(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(ImageColor.getrgb(value)) == 3
    except ValueError:
        return False


def _is_seed(value: Any) -> bool:
    return _is_int(value) and 0 <= value < 2**32


def _is_variant(value: Any) -> bool:
    return isinstance(value, str) and bool(value.partition(":")[0].strip())


def _are_embeddings(value: Any) -> bool:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else [""]
    return names == ["none"] or (
        len(set(names)) == len(names) and all(map(registry.is_embedding, names))
    )


def _text(allows: Callable[[str], Any], text: str) -> Rule:
    return Rule(lambda value: isinstance(value, str) and bool(allows(value)), text)


def _number(allows: Callable[[float], bool], text: str) -> Rule:
    return Rule(lambda value: (_is_int(value) or isinstance(value, float)) and allows(value), text)


def _sequence(allows: Callable[[Any], bool], text: str) -> Rule:
    return Rule(
        lambda value: isinstance(value, tuple | list) and all(map(allows, value)),
        f"a tuple or list of {text}",
    )


BOOL = Rule(lambda value: isinstance(value, bool), "True or False")
TEXT = _text(lambda value: True, "a string")
NON_EMPTY = _text(str.strip, "a non-empty string")
POSITIVE = _number(lambda value: 0 < value < math.inf, "a number above 0")
NON_NEGATIVE = _number(lambda value: 0 <= value < math.inf, "a number of at least 0")
BELOW_ONE = _number(lambda value: 0 <= value < 1, "a number of at least 0 and below 1")
FRACTION = _number(lambda value: 0 <= value <= 1, "a number from 0 to 1")
SEED = Rule(_is_seed, "an integer from 0 to 2^32 - 1")
SEEDS = _sequence(_is_seed, "integers from 0 to 2^32 - 1, such as (0, 1, 2)")
VARIANTS = _sequence(
    _is_variant,
    'names with overrides, such as ("warm", "scratch: transfer.generator=scratch; gan.steps=9")',
)
CHANNELS = Rule(lambda value: _is_int(value) and value in (1, 3), "1 or 3")
SIZE = Rule(_is_size, f"a multiple of {SIZE_MULTIPLE}, or two of them as (height, width)")
COLOUR = Rule(_is_colour, 'a colour such as "white" or "#808080"')
SAMPLES = Rule(
    lambda value: _is_int(value) and (value == 0 or value >= MIN_SAMPLES),
    f"0, or an integer of at least {MIN_SAMPLES}",
)
DATA_NAME = _text(
    re.compile(r"[\w.]+(/[\w.+-]+)?(:[\w.*]+)?").fullmatch,
    "comic_faces, folder, or the name of a TFDS data set such as mnist or lsun/bedroom",
)
EMBEDDINGS = Rule(
    _are_embeddings,
    f"none, or a comma-separated list without repetition, each {registry.describe('embedding')}",
)


_REQUIRED_DATA = {
    "data.path": "folder",
    "data.split": "a TFDS data set",
    "data.feature": "a TFDS data set",
}
"""Fields that have an effect for one kind of ``data.name`` only."""

_REQUIRED_VALUES = {
    "vae.decoder_variance": ("vae.reconstruction", "gaussian"),
    "vae.kl_warmup_steps": ("vae.kl_schedule", "linear"),
    "vae.kl_cycles": ("vae.kl_schedule", "cyclical"),
}
"""Fields that have an effect for one value of another field only."""


def inconsistencies(
    config: ConfigDict, values: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Iterator[str]:
    """Yields a sentence for each contradiction among allowed values.

    Args:
      config: with all fields.
      values: the same, flattened.
      defaults: of all fields.
    """
    yield from _unused_fields(config, values, defaults)
    yield from _impossible_steps(config)
    yield from _inconsistent_transfer(config)


def _unused_fields(
    config: ConfigDict, values: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Iterator[str]:
    if config.data.name == "folder" and not config.data.path:
        yield (
            "data.path is empty: set it to the folder or zip of images, such as "
            "--config.data.path=~/Pictures."
        )
    kind = config.data.name if config.data.name in ("folder", "comic_faces") else "a TFDS data set"
    for name, required in _REQUIRED_DATA.items():
        if values[name] != defaults[name] and kind != required:
            yield (
                f"{name} ({values[name]!r}) requires {required}, and data.name is "
                f"{config.data.name}: change data.name, or remove {name}."
            )
    for name, (other, required) in _REQUIRED_VALUES.items():
        if values[name] != defaults[name] and values[other] != required:
            yield (
                f"{name}={values[name]} requires {other}={required}, and that is "
                f"{values[other]}: change one of them."
            )
    fields = "gan.penalties", "gan.generator_terms"
    names = [{call.name for call in registry.parse(values[field])} for field in fields]
    for name in set.intersection(*names):
        yield f"{' and '.join(fields)} both name {name}: name it in one of them."


def _impossible_steps(config: ConfigDict) -> Iterator[str]:
    warmup, steps = config.vae.kl_warmup_steps, config.vae.steps
    if config.vae.kl_schedule == "linear" and steps and not 0 < warmup < steps:
        yield (
            f"vae.kl_warmup_steps ({warmup}) must be above 0 and below vae.steps ({steps}) for "
            "vae.kl_schedule=linear."
        )
    if config.vae.kl_schedule == "cyclical" and 0 < steps < 2 * config.vae.kl_cycles:
        yield (
            f"vae.kl_cycles ({config.vae.kl_cycles}) must be at most half of vae.steps ({steps}): "
            "a cycle has at least two steps."
        )
    steps = config.gan.steps
    warmup, every = config.gan.discriminator_warmup_steps, config.gan.discriminator_steps
    if steps > 0 and steps // every <= warmup // every:  # see gan.train_step
        yield (
            "The generator is never updated: no multiple of gan.discriminator_steps "
            f"({every}) lies between gan.discriminator_warmup_steps ({warmup}) and gan.steps "
            f"({steps}). Lower one of the first two, or raise gan.steps."
        )


def _inconsistent_transfer(config: ConfigDict) -> Iterator[str]:
    settings, norm = config.transfer, config.model.norm
    is_scratch = settings.generator == "scratch"
    if settings.vae and is_scratch:
        yield f"transfer.vae={settings.vae} requires transfer.generator=vae: change one of them."
    if config.gan.start and not is_scratch:
        yield (
            f"gan.start={config.gan.start} requires transfer.generator=scratch, since no VAE is "
            "needed: change one of them."
        )
    if settings.discriminator == "start" and not config.gan.start:
        yield (
            "transfer.discriminator=start requires gan.start: set it to a run with a GAN, or set "
            "transfer.discriminator=scratch."
        )
    if settings.discriminator == "encoder" and is_scratch:
        yield (
            "transfer.discriminator=encoder requires a VAE, and transfer.generator=scratch trains "
            "none: set transfer.generator=vae or transfer.discriminator=scratch."
        )
    if settings.discriminator == "encoder" and norm != config.model.discriminator_norm:
        yield (
            "transfer.discriminator=encoder requires model.discriminator_norm "
            f"({config.model.discriminator_norm}) to equal model.norm ({norm}), since the "
            "discriminator takes over the encoder's trunk."
        )
