"""Names in a config -> functions: the built-in ones in one table, the user's by import path.

A loss may have options, ``name(option=literal, ...)``, which `parse` reads and `bind` checks.
Neither JAX nor a module of the table is imported before `load` asks for it.
"""

import ast
import difflib
import functools
import inspect
import pkgutil
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from vaegan_jax.errors import UserError, one_line
from vaegan_jax.runtime import sources

BUILT_IN: dict[str, dict[str, str]] = {
    "reconstruction": {
        "squared_error": "vaegan_jax.losses.vae:squared_error",
        "cross_entropy": "vaegan_jax.losses.vae:cross_entropy",
        "laplace": "vaegan_jax.losses.vae:laplace",
        "huber": "vaegan_jax.losses.vae:huber",
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
    "vae_term": {"mmd": "vaegan_jax.losses.terms:mmd"},
    "generator_term": {
        "feature_matching": "vaegan_jax.losses.terms:feature_matching",
        "mode_seeking": "vaegan_jax.losses.terms:mode_seeking",
    },
    "augmentation": {
        "colour": "vaegan_jax.losses.augmentation:colour",
        "translation": "vaegan_jax.losses.augmentation:translation",
        "cutout": "vaegan_jax.losses.augmentation:cutout",
    },
    "embedding": {
        "efflite0": "vaegan_jax.evaluation.backbones.efflite0:features",
        "alexnet": "vaegan_jax.evaluation.backbones.alexnet:features",
        "inception": "vaegan_jax.evaluation.backbones.inception:features",
        "pixels": "vaegan_jax.evaluation.embeddings:cell_means",
    },
}
"""Kind -> name -> ``"module:attribute"``."""

SIZED = ("efflite0", "alexnet")
"""Embeddings whose name may end in an input size, such as "efflite0_128"."""

EMBEDDING_SIZES = range(32, 513)
"""Input sizes of embeddings, in pixels."""

USER_FIELDS = {
    "vae.reconstruction": "reconstruction",
    "vae.terms": "vae_term",
    "gan.objective": "objective",
    "gan.penalties": "penalty",
    "gan.generator_terms": "generator_term",
    "gan.augmentations": "augmentation",
    "evaluation.embeddings": "embedding",
}
"""Config field that accepts the import path of a user's function -> kind."""

INPUTS = {
    "reconstruction": 2,
    "vae_term": 1,
    "objective": 0,
    "penalty": 1,
    "generator_term": 1,
    "augmentation": 2,
}
"""Kind -> the number of arguments that precede a function's options."""

TERM_OPTIONS = {
    "vae_term": ("weight",),
    "penalty": ("weight", "every"),
    "generator_term": ("weight",),
}
"""Kind -> options of every function of the kind that are not arguments of the function."""


class Call(NamedTuple):
    """A built-in name or ``"package.module:name"`` in a config, with its options by keyword."""

    name: str
    options: dict[str, Any]


def parse(text: str) -> list[Call]:
    """Parses ``name(option=literal, ...)``, several separated by commas; options may be omitted.

    Raises:
      UserError: if the text does not have this form.
    """
    if not text.strip():
        return []
    try:
        # In Python's grammar these are indices, with module:name as a slice.
        indices: Any = ast.parse(f"_[{text},]", mode="eval").body
        return [_to_call(index) for index in indices.slice.elts]
    except (
        AttributeError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError
    ) as error:  # fmt: skip
        raise UserError(
            f"{one_line(text)!r} must have the form name(option=literal, ...), with commas "
            "between several, such as r1(weight=3, every=4)."
        ) from error


def _to_call(index: Any) -> Call:
    module, keywords = "", []
    if isinstance(index, ast.Slice) and index.lower and not index.step:
        module, index = f"{ast.unparse(index.lower)}:", index.upper
    if isinstance(index, ast.Call) and not index.args:
        keywords, index = index.keywords, index.func
    name = module + ast.unparse(index)
    options = {word.arg or "**": ast.literal_eval(word.value) for word in keywords}
    is_repeated = len(options) < len(keywords)
    if not re.fullmatch(r"[\w.]+(:\w+)?", name) or "**" in options or is_repeated:
        raise ValueError(name)
    return Call(name, options)


def bind(kind: str, call: Call) -> Any:
    """Returns a function of a kind in `INPUTS` with its options bound, but for `TERM_OPTIONS`.

    Raises:
      UserError: if `load` refuses the name, or an option is unknown or missing.
    """
    function, extra = load(kind, call.name), TERM_OPTIONS.get(kind, ())
    given = {name: value for name, value in call.options.items() if name not in extra}
    named = options(kind, function)
    known = [*(parameter.name for parameter in named), *extra]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1) or known
            hint = f"use {' or '.join(near)}" if near else "it has none"
            raise UserError(f"The {kind} {call.name!r} has no option {name!r}: {hint}.")
    missing = [p.name for p in named if p.default is p.empty and p.name not in given]
    if missing:
        raise UserError(
            f"The {kind} {call.name!r} lacks {' and '.join(map(repr, missing))}: set options as in "
            f"{call.name}({missing[0]}=1), or give them defaults. docs/extending.md shows its form."
        )
    return functools.partial(function, **given) if given else function


def options(kind: str, function: Any) -> list[inspect.Parameter]:
    """Returns the options of a function of a kind: its arguments after the first `INPUTS`."""
    parameters = inspect.signature(function).parameters.values() if callable(function) else ()
    return [
        parameter
        for parameter in list(parameters)[INPUTS[kind] :]
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]


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
    """Returns a function, or another object, of a kind in `BUILT_IN` by name.

    Raises:
      UserError: if the name is unknown, cannot be imported or has the wrong type.
    """
    built_in = BUILT_IN[kind]
    if name not in built_in and not is_path(name):
        raise UserError(f"The {kind} {name!r} is unknown: use {describe(kind)}.")
    try:
        value = pkgutil.resolve_name(built_in.get(name, name))
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise UserError(
            f"The {kind} {name!r} cannot be imported ({one_line(repr(error))}): check that its "
            "module is on Python's path, or in the current folder, and defines that name."
        ) from error
    if name in built_in:
        return value
    example = pkgutil.resolve_name(next(iter(built_in.values())))
    if not (callable(value) or isinstance(value, type(example))):
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
    """Returns the SHA-256 of the source files of the user's functions in a flattened config.

    Modules that cannot be imported are left out; `load` reports them.

    Returns:
      Field -> module -> SHA-256, see `sources.digests`.
    """
    result: dict[str, dict[str, str]] = {}
    for field in USER_FIELDS:
        for name, _ in parse(config.get(field, "")):
            if is_path(name) and (digests := sources.digests(name.partition(":")[0])):
                result.setdefault(field, {}).update(digests)
    return result
