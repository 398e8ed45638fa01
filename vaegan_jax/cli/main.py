"""The command ``vaegan``: its subcommands and their options, and nothing of what they do.

What a subcommand needs is imported when it runs, so that ``--help`` is there at once.
"""

import argparse
import importlib
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from vaegan_jax.errors import Stopped, UserError, one_line
from vaegan_jax.explorer import command as explorer

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_DESCRIPTION = "Train a VAE and a GAN grown from it, and use what was trained."
_OWN_FLAGS = ("train",)
"""Subcommands whose arguments are read elsewhere."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line, the program's own if none is given.

    Returns:
      0, or 1 for an error, or 2 for a wrong command line; `compare` returns 1 for runs that
      differ and 2 for any error.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        if given and given[0] in _OWN_FLAGS:
            return int(_find(f"runs:{given[0]}")(given[1:]) or 0)
        if "--pretrained" in given:
            raise UserError(f"--pretrained was removed: write `vaegan {given[0]} pretrained`.")
        arguments = _parser().parse_args(given)
    except UserError as error:
        sys.stderr.write(f"Error: {error}\n")
        return EXIT_USAGE
    try:
        _prepare()
        return int(_find(arguments.run_by)(arguments) or 0)
    except UserError as error:
        sys.stderr.write(f"Error: {error}\n")
        return int(arguments.exit_error)
    except BrokenPipeError:
        # The reader, such as head, has seen enough; what is left to flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        sys.stderr.write(f"Error: A file could not be read or written ({one_line(error)}).\n")
        return int(arguments.exit_error)
    except Stopped as stopped:
        sys.stderr.write(f"{stopped}\n")
        return stopped.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return EXIT_INTERRUPTED
    return 0


def _find(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(
        importlib.import_module(f"vaegan_jax.cli.{module}"), function
    )
    return found


def _prepare() -> None:
    from absl import logging

    from vaegan_jax.runtime import environment

    environment.pin()
    logging.set_verbosity(logging.ERROR)  # Orbax says much that is of no use here


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{one_line(message)} (`{self.prog} --help` says more.)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="vaegan", description=_DESCRIPTION)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run_by: str, text: str, example: str) -> argparse.ArgumentParser:
        found = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"example: vaegan {example}",
        )
        found.set_defaults(run_by=run_by, exit_error=EXIT_ERROR)
        return found

    add(
        "train",
        "",
        "train a run, as launch.py does: --config, --workdir and any --config.FIELD",
        "train --config configs/quickstart.py --workdir runs/quickstart",
    )
    command = add(
        "evaluate",
        "runs:evaluate",
        "judge the newest checkpoints of a run",
        "evaluate runs/quickstart --set evaluation.samples=500",
    )
    command.add_argument("run", metavar="RUN", help="the run's folder")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="another value of a field of the config, such as evaluation.embedding=inception",
    )
    command.add_argument(
        "--model",
        choices=("vae", "gan"),
        help="judge this one alone, print it, and leave the run's evaluation as it is",
    )
    command.add_argument(
        "--step",
        type=_whole(0),
        help="of the checkpoint, the newest by default; prints only",
    )
    command.add_argument(
        "--seed", type=_seed, help="of the samples, the run's by default; prints only"
    )
    _out(command, "nothing but the terminal; a JSON file of the numbers")
    command.add_argument("--force", action="store_true", help="replace that file")
    command = add(
        "report", "runs:report", "write the page of a run again", "report runs/quickstart"
    )
    command.add_argument("run", metavar="RUN", help="the run's folder")
    command = add(
        "compare",
        "runs:compare",
        "compare finished runs: two bit for bit, more by their means over seeds",
        "compare runs/a runs/b --html comparison.html",
    )
    command.set_defaults(exit_error=EXIT_USAGE)  # as of `diff`, where 1 means that inputs differ
    command.add_argument("run", type=pathlib.Path, metavar="RUN", help="a run's folder")
    command.add_argument("others", type=pathlib.Path, metavar="RUN", nargs="+", help="more of them")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_argument("--html", type=pathlib.Path, metavar="FILE", help="write a page as well")

    command = _using(
        add(
            "sample",
            "show:sample",
            "draw new images",
            "sample runs/quickstart --count 36 --seed 7 --out faces.png",
        )
    )
    _seeded(command)
    command.add_argument(
        "--count", type=_whole(1), help="images, 64 if not given or as many as --latents holds"
    )
    _columns(command)
    command.add_argument(
        "--files", action="store_true", help="one file per image in a folder, instead of a grid"
    )
    _truncation(command)
    _latents_in(command)
    command.add_argument(
        "--save-latents", type=pathlib.Path, metavar="FILE", help="write them, .npy or .csv"
    )
    _out(command, "sample.png, or the folder sample")

    command = _using(
        add(
            "interpolate",
            "show:interpolate",
            "go from image to image on great circles",
            "interpolate runs/quickstart --stops 5 --out walk.webp",
        )
    )
    _seeded(command)
    command.add_argument("--stops", type=_whole(2), help="images to pass by, 4 if not given")
    command.add_argument("--loop", action="store_true", help="return to the first")
    _truncation(command)
    _latents_in(command)
    _moving(command, "interpolate.png")

    command = _using(
        add(
            "traverse",
            "show:traverse",
            "show what the latent dimensions do, one a row",
            "traverse runs/quickstart --by units --count 8",
        )
    )
    command.add_argument(
        "--by",
        choices=("units", "directions"),
        help="units: the encoder's most active dimensions, the default where these are known; "
        "directions: the principal directions of the network's first layer",
    )
    command.add_argument(
        "--count", type=_whole(1), help="rows, at most one for each dimension; 8 if not given"
    )
    command.add_argument(
        "--columns", type=_whole(2), default=9, help="images in a row, %(default)s if not given"
    )
    command.add_argument(
        "--reach",
        type=_positive,
        default=3.0,
        help="deviations to either side, %(default)s if not given",
    )
    command.add_argument(
        "--seed",
        type=_seed,
        help="pass through the first image of `sample` with this seed; "
        "through the middle of the latents if not given",
    )
    _scale(command)
    _out(command, "traverse.png")

    command = _using(
        add(
            "reconstruct",
            "show:reconstruct",
            "put images through encoder and decoder",
            "reconstruct runs/quickstart ~/Pictures/me.png --model vae",
        )
    )
    _images(command)
    _columns(command)
    _out(command, "reconstruct.png")

    command = _using(
        add(
            "morph",
            "show:morph",
            "go from one image of yours to another",
            "morph runs/quickstart a.png b.png --out morph.webp",
        )
    )
    command.add_argument("images", nargs=2, type=pathlib.Path, metavar="IMAGE", help="from and to")
    _moving(command, "morph.png")

    command = _using(
        add(
            "encode",
            "compress:encode",
            "compress images into one small file by the VAE",
            "encode runs/quickstart ~/Pictures/faces --out faces.vgl",
        )
    )
    _images(command)
    command.add_argument(
        "--step-size",
        type=_positive,
        help="of the latents, 0.25 if not given; larger is smaller and worse",
    )
    _out(command, "encoded.vgl")

    command = _using(
        add(
            "decode",
            "compress:decode",
            "bring back the images of a compressed file",
            "decode runs/quickstart faces.vgl --out faces",
        )
    )
    command.add_argument("file", type=pathlib.Path, metavar="FILE", help="that `encode` wrote")
    _out(command, "decoded, a folder; a name ending in .png is a grid")

    command = _using(
        add(
            "export",
            "exports:export",
            "write the model for use elsewhere, verified",
            "export runs/quickstart --format safetensors stablehlo",
        )
    )
    command.add_argument(
        "--format",
        nargs="+",
        choices=("safetensors", "stablehlo"),
        default=["safetensors"],
        help="one or both, safetensors if not given",
    )
    command.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of the parameters in safetensors, as they are if not given",
    )
    command.add_argument("--licence", default="", help="of the data, for the model card")
    command.add_argument("--made-by", default="", help="how the model was made, for the model card")
    _out(command, "NAME_MODEL beside you; suffixes follow from the formats")

    explorer.add_arguments(
        add(
            "explore",
            "explore:explore",
            "look at what was trained in the browser",
            "explore runs/quickstart --open",
        )
    )
    return parser


def _using(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument(
        "run",
        metavar="RUN",
        help="a run's folder, an export (.safetensors), or pretrained, the bundled model",
    )
    command.add_argument(
        "--model", choices=("vae", "gan"), help="the GAN where there is one, if not given"
    )
    command.add_argument(
        "--step", type=_whole(0), help="of which checkpoint, the newest if not given"
    )
    command.add_argument(
        "--force", action="store_true", help="replace a file that is there already"
    )
    return command


def _seeded(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=_seed, help="of the latents, the run's if not given")


def _truncation(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--truncation",
        type=_fraction,
        default=1.0,
        metavar="PSI",
        help="from 0 to 1, by which latents are scaled: less variety, fewer failures",
    )


def _latents_in(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--latents", type=pathlib.Path, metavar="FILE", help="read them, .npy or .csv, a row each"
    )


def _moving(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument(
        "--frames", type=_whole(2), default=9, help="from one to the next, %(default)s if not given"
    )
    command.add_argument(
        "--milliseconds",
        type=_whole(10, 655_350),
        default=80,
        help="a frame, %(default)s if not given",
    )
    _scale(command)
    _out(command, f"{default}; .png is a strip, .gif and .webp move")


def _images(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "images", nargs="+", type=pathlib.Path, metavar="IMAGE", help="images, folders or zips"
    )


def _columns(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--columns", type=_whole(1), default=8, help="images in a row, %(default)s if not given"
    )
    _scale(command)


def _scale(command: argparse.ArgumentParser) -> None:
    command.add_argument("--scale", type=_whole(1), default=1, help="enlarge pixels so many times")


def _out(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument(
        "--out", type=pathlib.Path, metavar="PATH", help=f"where to, {default} if not given"
    )


def _whole(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(
                f"a whole number of at least {least} and at most {most}, and not {text}"
            )
        return int(text)

    return whole


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"a whole number from 0 to 2^32 - 1, and not {text}")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number, and not {text}") from None


def _fraction(text: str) -> float:
    if not 0 <= _number(text) <= 1:
        raise argparse.ArgumentTypeError(f"from 0 to 1, and not {text}")
    return _number(text)


def _positive(text: str) -> float:
    if not 0 < _number(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"a number above 0, and not {text}")
    return _number(text)
