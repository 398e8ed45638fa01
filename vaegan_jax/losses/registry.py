"""Losses by name: the project's own by theirs, and a user's as ``"package.module:name"``."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from vaegan_jax.errors import UserError, one_line

Loss = TypeVar("Loss")


def is_path(name: str) -> bool:
    """Whether a name is of the form ``"package.module:name"``."""
    module, _, attribute = name.partition(":")
    return all(part.isidentifier() for part in [*module.split("."), attribute])


def find(kind: str, name: str, own: Mapping[str, Loss]) -> Loss:
    """Returns a loss by name.

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
    loss: Loss = found
    return loss


def allowed(own: Mapping[str, Any]) -> tuple[Callable[[Any], bool], str]:
    """Returns the check of a config field that names a loss, and what it asks for."""
    return (
        lambda value: isinstance(value, str) and (value in own or is_path(value)),
        _names(own),
    )


def _names(own: Mapping[str, Any]) -> str:
    return f"one of {', '.join(own)}, or one of your own as package.module:name"
