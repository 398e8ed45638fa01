"""The command `vaegan`.

Modules with commands import JAX only when a command runs, so that `--help` answers at once.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from vaegan_jax import migrations
from vaegan_jax.cli import exports, launch, losses, options, program, runs, show
from vaegan_jax.errors import one_line
from vaegan_jax.explorer import command as explorer


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
    parser = _parser()
    if (command := "".join(arguments[:1])) in migrations.REMOVED_COMMANDS:
        parser.error(f"{command} was removed: {migrations.REMOVED_COMMANDS[command]}")
    parsed = parser.parse_args(arguments)

    def run() -> int | None:
        program.set_up()
        result: int | None = parsed.function(parsed)
        return result

    return program.run(run, parsed.exit_error)


class _Parser(argparse.ArgumentParser):
    """Reports errors in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(program.EXIT_USAGE, f"Error: {one_line(message)} (see `{self.prog} --help`).\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="vaegan", description="Train a VAE and a GAN initialised from it, and use the models."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    commands.add_parser("train", help="train a run: the same as launch.py, with its flags")
    for module in (runs, show, exports, losses):
        module.add_parsers(commands)
    explore = options.add_command(
        commands,
        explorer.explore,
        "open the latent explorer in a browser",
        "runs/quickstart --open",
    )
    explorer.add_arguments(explore)
    return parser


if __name__ == "__main__":
    sys.exit(main())
