"""A config field: its default, the rule for its values, its meaning and when it may change."""

import enum
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from PIL import ImageColor

from vaegan_jax import registry

SIZE_MULTIPLE = 16
"""Image sides are multiples of this, so that the networks can halve them, see `networks.widths`."""

MIN_SAMPLES = 40
"""The smallest sample that an evaluation accepts, see `evaluation.number`."""


class Rule(NamedTuple):
    """The values that a field allows.

    Attributes:
      allows: value -> bool.
      text: the allowed values in words, to follow "must be".
    """

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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def at_least(minimum: int) -> Rule:
    """Returns the rule for integers with a minimum."""
    return Rule(
        lambda value: _is_int(value) and value >= minimum, f"an integer of at least {minimum}"
    )


def one_of(*names: str) -> Rule:
    """Returns the rule for an enumeration."""
    return Rule(lambda value: value in names, "one of " + ", ".join(names))


def registered(kind: str) -> Rule:
    """Returns the rule for a built-in name of a kind, or the import path of a user's function."""
    names = registry.BUILT_IN[kind]
    return Rule(
        lambda value: isinstance(value, str) and (value in names or registry.is_path(value)),
        registry.describe(kind),
    )


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


def _is_augmentation(name: str) -> bool:
    return name in registry.BUILT_IN["augmentation"] or registry.is_path(name)


def _are_embeddings(value: Any) -> bool:
    if value == "none" or not isinstance(value, str):
        return bool(value == "none")
    names = [name.strip() for name in value.split(",")]
    return len(set(names)) == len(names) and all(map(registry.is_embedding, names))


BOOL = Rule(lambda value: isinstance(value, bool), "True or False")
TEXT = Rule(lambda value: isinstance(value, str), "a string")
NON_EMPTY = Rule(lambda value: isinstance(value, str) and bool(value.strip()), "a non-empty string")
POSITIVE = Rule(lambda value: _is_number(value) and 0 < value < float("inf"), "a number above 0")
NON_NEGATIVE = Rule(
    lambda value: _is_number(value) and 0 <= value < float("inf"), "a number of at least 0"
)
NON_NEGATIVE_OR_AUTOMATIC = Rule(
    lambda value: value == -1 or NON_NEGATIVE.allows(value), f"{NON_NEGATIVE.text}, or -1"
)
BELOW_ONE = Rule(
    lambda value: _is_number(value) and 0 <= value < 1, "a number of at least 0 and below 1"
)
FRACTION = Rule(lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1")
SEED = Rule(_is_seed, "an integer from 0 to 2^32 - 1")
SEEDS = Rule(
    lambda value: isinstance(value, tuple | list) and all(map(_is_seed, value)),
    "a tuple or list of integers from 0 to 2^32 - 1, such as (0, 1, 2)",
)
VARIANTS = Rule(
    lambda value: isinstance(value, tuple | list) and all(map(_is_variant, value)),
    "a tuple or list of names with overrides, such as "
    '("warm", "scratch: transfer.generator=scratch; gan.steps=9")',
)
CHANNELS = Rule(lambda value: _is_int(value) and value in (1, 3), "1 or 3")
SIZE = Rule(_is_size, f"a multiple of {SIZE_MULTIPLE}, or two of them as (height, width)")
COLOUR = Rule(_is_colour, 'a colour such as "white" or "#808080"')
SAMPLES = Rule(
    lambda value: _is_int(value) and (value == 0 or value >= MIN_SAMPLES),
    f"0, or an integer of at least {MIN_SAMPLES}",
)
DATA_NAME = Rule(
    lambda value: (
        isinstance(value, str) and bool(re.fullmatch(r"[\w.]+(/[\w.+-]+)?(:[\w.*]+)?", value))
    ),
    "comic_faces, folder, or the name of a TFDS data set such as mnist or lsun/bedroom",
)
PENALTY = Rule(
    lambda value: isinstance(value, str) and (not value or registry.is_path(value)),
    "empty, or package.module:function",
)
AUGMENTATIONS = Rule(
    lambda value: (
        isinstance(value, str)
        and (
            value == "auto"
            or all(_is_augmentation(name.strip()) for name in value.split(",") if value)
        )
    ),
    "auto, or a comma-separated list of colour, translation, cutout and package.module:function",
)
EMBEDDINGS = Rule(
    _are_embeddings,
    f"none, or a comma-separated list without repetition, each {registry.describe('embedding')}",
)
