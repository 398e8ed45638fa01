"""Options that several commands of `vaegan` take, and the types of their values."""

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

from vaegan_jax.cli.program import EXIT_ERROR

Commands = Any
"""The result of `ArgumentParser.add_subparsers`."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Appends the default to the help of an option, unless it is empty."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def add_command(
    commands: Commands,
    function: Callable[[argparse.Namespace], int | None],
    text: str,
    example: str,
    exit_error: int = EXIT_ERROR,
) -> argparse.ArgumentParser:
    """Adds the command with the name of `function`, which takes the parsed arguments."""
    parser: argparse.ArgumentParser = commands.add_parser(
        function.__name__,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"example: vaegan {function.__name__} {example}",
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(function=function, exit_error=exit_error)
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds RUN, --model, --step and --force."""
    parser.add_argument(
        "run",
        metavar="RUN",
        help="a run's folder, an export (.safetensors), or pretrained, the bundled model",
    )
    parser.add_argument("--model", choices=("vae", "gan"), help="which of the run's models to use")
    parser.add_argument("--step", type=step, help=f"{STEP_HELP} (default: the newest)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def add_latents(parser: argparse.ArgumentParser) -> None:
    """Adds --seed and --truncation."""
    parser.add_argument("--seed", type=SEED, help="seed of the latents (default: the run's)")
    parser.add_argument(
        "--truncation",
        type=fraction,
        default=1.0,
        metavar="PSI",
        help="scale latents by this factor from 0 to 1: less variety, fewer failures",
    )


def add_scale(parser: argparse.ArgumentParser) -> None:
    """Adds --scale."""
    parser.add_argument("--scale", type=integer(1), default=1, help="enlarge pixels by this factor")


def add_out(parser: argparse.ArgumentParser, default: str | None, text: str = "") -> None:
    """Adds --out."""
    path = None if default is None else pathlib.Path(default)
    parser.add_argument(
        "--out", type=pathlib.Path, default=path, metavar="PATH", help=f"output path{text}"
    )


def integer(minimum: int, maximum: int = 2**31 - 1) -> Callable[[str], int]:
    """Returns a type for integers in a range."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not minimum <= int(text) <= maximum:
            raise argparse.ArgumentTypeError(
                f"must be an integer from {minimum} to {maximum}, not {text}"
            )
        return int(text)

    return parse


def step(text: str) -> int | str:
    """Parses a step, or "best"."""
    return text if text == "best" else integer(0)(text)


STEP_HELP = "checkpoint to use: a step, or best, the GAN's with the smallest distance of its curve"
SEED = integer(0, 2**32 - 1)


def fraction(text: str) -> float:
    """Parses a number from 0 to 1."""
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {text}")
    return float(text)
