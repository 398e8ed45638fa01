"""What a config names: the project's own by a name, a user's as ``"package.module:name"``."""

import importlib
from collections.abc import Callable, Mapping, Sequence
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
