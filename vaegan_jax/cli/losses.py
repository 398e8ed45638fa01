"""The command `losses`."""

import argparse
import inspect
from typing import Any

from vaegan_jax import registry
from vaegan_jax.cli import options


def add_parsers(commands: options.Commands) -> None:
    """Adds `losses`."""
    options.add_command(commands, losses, "list the losses that a config can name", "")


def losses(_: argparse.Namespace) -> None:
    """Prints every built-in loss with its options and the first line of its documentation."""
    for field, kind in registry.USER_FIELDS.items():
        if kind in registry.INPUTS:
            print(field)
            for name in registry.BUILT_IN[kind]:
                function = registry.load(kind, name)
                print(
                    f"  {name}({', '.join(_options(kind, function))})\n      {_summary(function)}"
                )
    print("Your own as package.module:name, see docs/extending.md.")


def _options(kind: str, function: Any) -> list[str]:
    parameters = registry.options(kind, function)
    own = [f"{parameter.name}={parameter.default!r}" for parameter in parameters]
    return own + [f"{name}=1" for name in registry.TERM_OPTIONS.get(kind, ())]


def _summary(function: Any) -> str:
    documented = [function] if callable(function) else [*function]  # an objective is a pair
    return " | ".join((inspect.getdoc(each) or "").partition("\n")[0] for each in documented)
