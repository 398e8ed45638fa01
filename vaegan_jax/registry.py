"""Names in a config -> functions: the built-in ones in one table, the user's by import path.

Neither JAX nor a module of the table is imported before `load` asks for it.
"""

import importlib
import re
from collections.abc import Mapping
from typing import Any

from vaegan_jax.errors import UserError, one_line
from vaegan_jax.runtime import sources

BUILT_IN: dict[str, dict[str, str]] = {
    "reconstruction": {
        "squared_error": "vaegan_jax.losses.vae:squared_error",
        "cross_entropy": "vaegan_jax.losses.vae:cross_entropy",
        "laplace": "vaegan_jax.losses.vae:laplace",
        "gaussian": "vaegan_jax.losses.vae:gaussian",
    },
    "kl_schedule": {
        "constant": "vaegan_jax.losses.vae:constant",
        "linear": "vaegan_jax.losses.vae:linear",
        "cyclical": "vaegan_jax.losses.vae:cyclical",
    },
    "objective": {
        "minimax": "vaegan_jax.losses.gan:minimax",
        "non_saturating": "vaegan_jax.losses.gan:non_saturating",
        "hinge": "vaegan_jax.losses.gan:hinge",
        "least_squares": "vaegan_jax.losses.gan:least_squares",
        "wasserstein": "vaegan_jax.losses.gan:wasserstein",
        "relativistic": "vaegan_jax.losses.gan:relativistic",
    },
    "penalty": {
        "r1": "vaegan_jax.losses.penalties:r1",
        "r2": "vaegan_jax.losses.penalties:r2",
        "gradient_penalty": "vaegan_jax.losses.penalties:gradient_penalty",
    },
    "augmentation": {
        "colour": "vaegan_jax.losses.augmentation:colour",
        "translation": "vaegan_jax.losses.augmentation:translation",
        "cutout": "vaegan_jax.losses.augmentation:cutout",
    },
    "embedding": {
        "efflite0": "vaegan_jax.evaluation.embeddings:make_efflite0",
        "alexnet": "vaegan_jax.evaluation.embeddings:make_alexnet",
        "inception": "vaegan_jax.evaluation.embeddings:make_inception",
        "pixels": "vaegan_jax.evaluation.embeddings:make_pixels",
    },
}
"""Kind -> name -> ``"module:attribute"``."""

SIZED = ("efflite0", "alexnet")
"""Embeddings whose name may end in an input size, such as "efflite0_128"."""

EMBEDDING_SIZES = range(32, 513)
"""Input sizes of embeddings, in pixels."""

USER_FIELDS = (
    "vae.reconstruction",
    "gan.objective",
    "gan.penalty",
    "gan.augmentations",
    "evaluation.embeddings",
)
"""Config fields that accept the import path of a user's function."""


def is_path(name: str) -> bool:
    """Returns whether a name has the form ``"package.module:name"``."""
    module, _, attribute = name.partition(":")
    return all(part.isidentifier() for part in [*module.split("."), attribute])


def split_embedding(name: str) -> tuple[str, int | None]:
    """Splits the name of an embedding into its built-in name and input size, None if unnamed."""
    match = re.fullmatch(rf"({'|'.join(SIZED)})_([1-9]\d*)", name, re.ASCII)
    if match and int(match[2]) in EMBEDDING_SIZES:
        return match[1], int(match[2])
    return name, None


def is_embedding(name: str) -> bool:
    """Returns whether a name is a built-in embedding's, with or without a size, or a path."""
    return split_embedding(name)[0] in BUILT_IN["embedding"] or is_path(name)


def load(kind: str, name: str) -> Any:
    """Returns a function, or another object, by name.

    Args:
      kind: a key of `BUILT_IN`.
      name: one of its built-in names, or ``"package.module:name"`` of a user's object of the same
        type.

    Raises:
      UserError: if the name is unknown, cannot be imported or has the wrong type.
    """
    built_in = BUILT_IN[kind]
    if name not in built_in and not is_path(name):
        raise UserError(f"The {kind} {name!r} is unknown: use {describe(kind)}.")
    try:
        value = _import(built_in.get(name, name))
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise UserError(
            f"The {kind} {name!r} cannot be imported ({one_line(repr(error))}): check that its "
            "module is on Python's path, or in the current folder, and defines that name."
        ) from error
    if name in built_in:
        return value
    example = _import(next(iter(built_in.values())))
    if not (callable(value) if callable(example) else isinstance(value, type(example))):
        expected = "a function" if callable(example) else f"a {type(example).__qualname__}"
        raise UserError(f"The {kind} {name!r} must be {expected}, and is {one_line(repr(value))}.")
    return value


def describe(kind: str) -> str:
    """Returns the values that a field of a kind accepts, for messages."""
    own = "or your own as package.module:name"
    if kind == "embedding":
        sizes = f"{EMBEDDING_SIZES[0]} to {EMBEDDING_SIZES[-1]}"
        own = f"{' and '.join(SIZED)} also with a size from {sizes} as in {SIZED[0]}_128, {own}"
    return f"one of {', '.join(BUILT_IN[kind])}, {own}"


def source_digests(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Returns the SHA-256 of the source files of the user's functions in a config.

    Modules that cannot be imported are left out; `load` reports them.

    Args:
      config: flattened, such as ``{"vae.reconstruction": "my_losses:pinball", ...}``.

    Returns:
      Field -> module -> SHA-256, see `sources.digests`.
    """
    result: dict[str, dict[str, str]] = {}
    for field in USER_FIELDS:
        for module in re.findall(r"([\w.]+):\w", config.get(field, "")):
            result.setdefault(field, {}).update(sources.digests(module))
    return {field: digests for field, digests in result.items() if digests}


def _import(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
