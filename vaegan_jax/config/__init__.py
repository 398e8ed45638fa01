"""The config: its fields (fields.py), and how it is set, written and checked.

Files in configs/ override `default_config`, the command line overrides those, and `check` runs
before anything is computed. No JAX is imported here.
"""

import ast
import contextlib
import difflib
import json
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict, FieldReference

from vaegan_jax import registry
from vaegan_jax.config.fields import FIELDS as FIELDS
from vaegan_jax.config.removed import REMOVED
from vaegan_jax.errors import UserError


def default_config() -> ConfigDict:
    """Returns the default config, locked: fields can be set, but not added."""
    config = ConfigDict()
    for name, field in FIELDS.items():
        section, _, last = name.rpartition(".")
        if section and section not in config:
            config[section] = ConfigDict()
        # Without a field type, ml_collections would convert what is assigned to a tuple, such as a
        # dict to its keys. `check` refuses wrong types instead.
        is_tuple = name in ("seeds", "variants", "data.image_size")
        value = FieldReference(field.default, field_type=object) if is_tuple else field.default
        (config[section] if section else config)[last] = value
    return config.lock()


def flatten(config: ConfigDict) -> dict[str, Any]:
    """Returns ``{"gan.steps": 20000, ...}`` sorted by name, with tuples as lists.

    A dict assigned to a field stays that field's value, so that `check` refuses it.
    """

    def leaves(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in tree.items():
            name = f"{prefix}{key}"
            if isinstance(value, dict) and name not in FIELDS:
                yield from leaves(value, f"{name}.")
            else:
                yield name, list(value) if isinstance(value, tuple) else value

    return dict(sorted(leaves(config.to_dict(), "")))


def to_json(config: ConfigDict) -> str:
    """Returns the flattened config as JSON, one field per line."""
    return json.dumps(flatten(config), indent=2) + "\n"


def set_field(config: ConfigDict, override: str) -> str:
    """Sets one field of a config in place.

    The value is a Python literal or plain text: ``gan.steps=900``, ``data.image_size=(32, 48)``,
    ``transfer.generator=scratch``. `config.check` checks its range.

    Returns:
      The field's name.

    Raises:
      UserError: if there is no such field, or the value has another type than the field.
    """
    field, equals, text = (part.strip() for part in override.partition("="))
    if not equals:
        raise UserError(f"{override.strip()!r} does not set a field: write FIELD=VALUE.")
    if field not in FIELDS:
        raise unknown_field(field)
    default = FIELDS[field].default
    value: Any = text
    with contextlib.suppress(ValueError, SyntaxError):
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    if isinstance(default, str) and not isinstance(value, str):
        value = text
    try:
        config.update_from_flattened_dict({field: value})
    except TypeError as error:
        raise UserError(
            f"{field} cannot be {text!r}: set a value of the same type as the default, {default!r}."
        ) from error
    return field


def unknown_field(name: str) -> UserError:
    """Returns the error for a field that does not exist, with what to use instead.

    The name may be only a section or the last part, as ml_collections reports it.
    """
    for removed, instead in REMOVED.items():
        if name in (removed, *removed.split(".")) or name.startswith(f"{removed}."):
            return UserError(f"The config field {name} was removed: {instead}.")
    last = {field.rpartition(".")[2]: field for field in FIELDS}
    near = difflib.get_close_matches(name, FIELDS, n=3)
    near += [last[match] for match in difflib.get_close_matches(name.rpartition(".")[2], last)]
    near = list(dict.fromkeys(near))[:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "see vaegan_jax/config/fields.py."
    return UserError(f"The config has no field {name}: {hint}")


def check(config: ConfigDict) -> None:
    """Checks every field, and that the fields are consistent.

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
        if not field.rule.allows(values[name]):
            raise UserError(f"{name} must be {field.rule.text}, and is {values[name]!r}.")
    for message in (*_unused_fields(values), *_impossible_steps(config), *_inconsistent(config)):
        raise UserError(message)


_REQUIRED = {
    "data.path": ("data.name", "folder"),
    "vae.decoder_variance": ("vae.reconstruction", "gaussian"),
    "vae.kl_warmup_steps": ("vae.kl_schedule", "linear"),
    "vae.kl_cycles": ("vae.kl_schedule", "cyclical"),
    "transfer.vae": ("transfer.generator", "vae"),
    "gan.start": ("transfer.generator", "scratch"),
}
"""Fields that have an effect for one value of another field only."""


def _unused_fields(values: dict[str, Any]) -> Iterator[str]:
    """Yields a sentence for each field that is set and has no effect."""
    for name, (other, required) in _REQUIRED.items():
        if values[name] != FIELDS[name].default and values[other] != required:
            yield (
                f"{name}={values[name]!r} requires {other}={required}, and that is "
                f"{values[other]}: change one of them."
            )
    for name in ("data.split", "data.feature"):
        source = values["data.name"]
        if values[name] != FIELDS[name].default and source in ("folder", "comic_faces"):
            yield (
                f"{name}={values[name]!r} requires a TFDS data set, and data.name is {source}: "
                "change one of them."
            )


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


def _inconsistent(config: ConfigDict) -> Iterator[str]:
    if config.data.name == "folder" and not config.data.path:
        yield (
            "data.path is empty: set it to the folder or zip of images, such as "
            "--config.data.path=~/Pictures."
        )
    settings, norm = config.transfer, config.model.norm
    if settings.discriminator == "start" and not config.gan.start:
        yield "transfer.discriminator=start requires gan.start: set it to a run with a GAN."
    if settings.discriminator == "encoder" and settings.generator == "scratch":
        yield (
            "transfer.discriminator=encoder requires a VAE, and transfer.generator=scratch trains "
            "none: change one of them."
        )
    if settings.discriminator == "encoder" and norm != config.model.discriminator_norm:
        yield (
            "transfer.discriminator=encoder requires model.discriminator_norm "
            f"({config.model.discriminator_norm}) to equal model.norm ({norm})."
        )
    penalties, terms = map(registry.parse, (config.gan.penalties, config.gan.generator_terms))
    for name in {call.name for call in penalties} & {call.name for call in terms}:
        yield f"gan.penalties and gan.generator_terms both name {name}: name it in one of them."
