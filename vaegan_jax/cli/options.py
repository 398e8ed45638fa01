"""Declares the commands of `vaegan`, their options, and the types of these."""

import argparse
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from vaegan_jax.cli.program import EXIT_ERROR

Function = Callable[[argparse.Namespace], int | None]
Option = tuple[tuple[str, ...], dict[str, Any]]
"""Arguments of `ArgumentParser.add_argument`."""


class Command(NamedTuple):
    """A command with the name and the documentation of its function, and an example of its use."""

    function: Function
    example: str
    options: tuple[Option, ...] = ()
    exit_error: int = EXIT_ERROR


def command(
    example: str, *options: Option, exit_error: int = EXIT_ERROR
) -> Callable[[Function], Command]:
    """Returns a decorator that makes a command of a function of the parsed arguments."""
    return lambda function: Command(function, example, options, exit_error)


def option(*names: str, **settings: Any) -> Option:
    """Returns an option; see `ArgumentParser.add_argument`."""
    return names, settings


def switch(name: str, text: str) -> Option:
    """Returns an option without a value."""
    return option(name, action="store_true", help=text)


def out(text: str, default: str | None = None) -> Option:
    """Returns the option --out."""
    path = default and pathlib.Path(default)
    text += f" (default: {path})" if path else ""
    return option("--out", type=pathlib.Path, default=path, metavar="PATH", help=text)


def integer(minimum: int, maximum: int = 2**31 - 1) -> Callable[[str], int]:
    """Returns a type for integers in a range."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not minimum <= int(text) <= maximum:
            raise argparse.ArgumentTypeError(
                f"must be an integer from {minimum} to {maximum}, not {text}"
            )
        return int(text)

    return parse


def _step(text: str) -> int | str:
    return text if text == "best" else integer(0)(text)


def _fraction(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {text}")
    return float(text)


RUN = option("run", type=pathlib.Path, metavar="RUN", help="the run's folder")
MODEL = (
    option("run", metavar="RUN", help="a run's folder, an export (.safetensors), or pretrained"),
    option("--model", choices=("vae", "gan"), help="which of the run's models to use"),
    option(
        "--step",
        type=_step,
        help="checkpoint: a step, or best, the GAN's with the smallest distance of its curve "
        "(default: the newest)",
    ),
    switch("--force", "replace an existing file"),
)
SEED = option("--seed", type=integer(0, 2**32 - 1), help="seed of the samples (default: the run's)")
LATENTS = (
    SEED,
    option(
        "--truncation",
        type=_fraction,
        default=1.0,
        metavar="PSI",
        help="scale latents by this factor from 0 to 1 (the default): less variety, fewer failures",
    ),
)
