"""The command `vaegan`.

Modules with commands import JAX only when a command runs, so that `--help` answers at once.
"""

import argparse
import inspect
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from vaegan_jax.cli import explore, launch, models, program, runs
from vaegan_jax.cli.options import Command
from vaegan_jax.errors import one_line

_COMMANDS = (
    *(runs.evaluate, runs.report, runs.metrics, runs.compare, runs.losses),
    *(models.sample, models.interpolate, models.reconstruct, models.export, explore.explore),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line, by default that of the program.

    Returns:
      0, or 1 after an error; `compare` returns 1 for runs that differ and 2 after an error.

    Raises:
      SystemExit: after --help, and with code 2 for an invalid command line.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["train"]:
        return launch.main(["vaegan train", *arguments[1:]])
    parsed = _parser().parse_args(arguments)

    def run() -> int | None:
        program.set_up()
        result: int | None = parsed.command.function(parsed)
        return result

    return program.run(run, parsed.command.exit_error)


class _Parser(argparse.ArgumentParser):
    """Reports errors in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(program.EXIT_USAGE, f"Error: {one_line(message)} (see `{self.prog} --help`).\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="vaegan", description="Train a VAE and a GAN initialised from it, and use the models."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    commands.add_parser("train", help="Trains a run: the same as launch.py, with its flags.")
    for command in _COMMANDS:
        _add(commands, command)
    return parser


def _add(commands: Any, command: Command) -> None:
    name, text = command.function.__name__, inspect.getdoc(command.function) or ""
    parser = commands.add_parser(
        name,
        help=text.partition("\n")[0],
        description=text.partition("\n\nRaises")[0],
        epilog=f"example: vaegan {name} {command.example}",
    )
    for names, settings in command.options:
        parser.add_argument(*names, **settings)
    parser.set_defaults(command=command)


if __name__ == "__main__":
    sys.exit(main())
