"""Rules for the values of config fields."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

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
    return Rule(
        lambda value: (automatic and value == "auto") or _losses(kind, value) is not None,
        f"{'auto, ' if automatic else ''}empty, or a comma-separated list, each "
        f"{registry.describe(kind)}, with options as in name(option=1)",
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
NORM = one_of("group", "none")
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
