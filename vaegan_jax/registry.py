"""What a config names: the project's own by a name, a user's as ``"package.module:name"``."""

import ast
import functools
import hashlib
import importlib
import importlib.util
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from vaegan_jax.errors import UserError, one_line

Found = TypeVar("Found")


def is_path(name: str) -> bool:
    """Whether a name is of the form ``"package.module:name"``."""
    module, _, attribute = name.partition(":")
    return all(part.isidentifier() for part in [*module.split("."), attribute])


def find(kind: str, name: str, own: Mapping[str, Found]) -> Found:
    """Returns a loss or the like by name.

    Args:
      kind: what it is, for messages, such as "objective".
      name: a key of `own`, or ``"package.module:name"`` of one of the user's.
      own: the project's; one of the user's is such a thing as these are.

    Raises:
      UserError: where there is none of that name, or it is something else.
    """
    if name in own:
        return own[name]
    if not is_path(name):
        raise UserError(f"The {kind} {name!r} is unknown: use {_names(own)}.")
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # a user's module may fail in any way
        raise UserError(
            f"The {kind} {name!r} cannot be loaded ({one_line(repr(error))}): the module must be "
            "found by Python from here, and have that name."
        ) from error
    example = next(iter(own.values()))
    if not (callable(found) if callable(example) else isinstance(found, type(example))):
        wanted = "a function" if callable(example) else f"of {type(example).__qualname__}"
        raise UserError(f"The {kind} {name!r} must be {wanted}, and is {one_line(repr(found))}.")
    own_of_user: Found = found
    return own_of_user


FIELDS = (
    "vae.reconstruction",
    "gan.objective",
    "gan.penalty",
    "gan.augmentations",
    "evaluation.embedding",
)
"""Fields of the config that may name functions of the user."""


def sources(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Returns the digests of the source that the user's functions in a config are defined in.

    It imports their modules; one that cannot be imported is left out, since `find` reports it.

    Args:
      config: flattened, such as ``{"vae.reconstruction": "my_losses:pinball", ...}``.

    Returns:
      The field -> the name of a module -> SHA-256 of its file, see `source_digests`.
    """
    found: dict[str, dict[str, str]] = {}
    for field in FIELDS:
        for module in re.findall(r"([\w.]+):\w", config.get(field, "")):
            found.setdefault(field, {}).update(source_digests(module))
    return {field: digests for field, digests in found.items() if digests}


def source_digests(module: str) -> dict[str, str]:
    """Returns the SHA-256 of the source of a user's module and of the modules that it imports.

    Import statements are followed wherever they stand. The standard library, installed packages
    and this package are left out: `run.json` records versions. So is a module without a file,
    such as a notebook.
    """
    try:
        importlib.import_module(module)
    except (Exception, SystemExit):  # a user's module may fail in any way
        return {}
    return _digests(module)


@functools.cache  # a file may be edited while this process still runs what it imported
def _digests(module: str) -> dict[str, str]:
    package = module.partition(".")[0]
    found: dict[str, str] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        top = name.partition(".")[0]
        if name in found or (top != package and _is_installed(top)) or top == __package__:
            continue
        spec = _spec(name)
        if spec is None:
            continue
        pending += [name.rpartition(".")[0]] if "." in name else []
        if spec.origin is not None and spec.has_location:
            source = pathlib.Path(spec.origin).read_bytes()
            found[name] = hashlib.sha256(source).hexdigest()
            pending += _imports(source, spec.parent or "") if spec.origin.endswith(".py") else []
    return dict(sorted(found.items()))


def _spec(name: str) -> ModuleSpec | None:
    """Returns where Python finds a module, or None where there is none of that name."""
    try:
        return importlib.util.find_spec(name)
    except (Exception, SystemExit):  # it imports the packages that the module lies in
        return None


def _is_installed(package: str) -> bool:
    if package in sys.stdlib_module_names:
        return True
    spec = _spec(package)
    places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
    parts = {part for place in places for part in pathlib.Path(place).parts}
    return not parts.isdisjoint({"site-packages", "dist-packages"})


def _imports(source: bytes, package: str) -> list[str]:
    """Returns the names that a file imports, modules and what may be one, absolute."""
    names: list[str] = []
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return names
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                outer = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(filter(None, [*outer, base]))
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


def allowed(own: Mapping[str, Any]) -> tuple[Callable[[Any], bool], str]:
    """Returns the check of a config field that names such a thing, and what it asks for."""
    return (
        lambda value: isinstance(value, str) and (value in own or is_path(value)),
        _names(own),
    )


def _names(own: Mapping[str, Any]) -> str:
    return f"one of {', '.join(own)}, or one of your own as package.module:name"


def require_form(
    kind: str,
    name: str,
    function: Callable[..., Any],
    arguments: Sequence[Any],
    shape: tuple[int, ...],
) -> None:
    """Checks, without computing, that a function takes what it is given and returns what it must.

    Args:
      kind: what it is, for messages.
      name: by which the config calls it.
      function: a loss, say.
      arguments: `jax.ShapeDtypeStruct`s, or whatever else it is called with.
      shape: of the float32 array that it must return.

    Raises:
      UserError: where it fails, or returns anything else.
    """
    try:
        found = jax.eval_shape(function, *arguments)
        form = f"{found.dtype}{list(found.shape)}"
    except Exception as error:  # a user's own may raise anything
        raise UserError(
            f"The {kind} {name!r} cannot be called as one ({one_line(repr(error))}): "
            "docs/extending.md shows its form."
        ) from error
    if (found.dtype, found.shape) != (jnp.float32, shape):
        raise UserError(
            f"The {kind} {name!r} must return float32{list(shape)} where it returns {form}: "
            "docs/extending.md shows its form."
        )
