"""Finished runs compared: ``python -m vaegan_jax.compare RUN RUN ...``, or ``vaegan-compare``.

Two runs are searched for the first bit in which they differ; more, or two with --replicates, are
replicates and groups, whose means are compared. The runs are only read.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import jax
from absl import logging

from vaegan_jax import environment
from vaegan_jax.comparing import many, page, runs, tables, two
from vaegan_jax.errors import UserError, one_line
from vaegan_jax.report.tables import Table, lay_out

SAME, DIFFERENT, CANNOT = 0, 1, 2
"""Exit codes; many runs that could be compared are 0."""

_MOST_LEAVES = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Compares the runs of a command line, the program's own if none is given.

    Returns:
      One of the exit codes.
    """
    # Orbax says much that is of no use here; and a comparison needs no accelerator, which may be
    # at work on another run.
    logging.set_verbosity(logging.ERROR)
    jax.config.update("jax_platforms", "cpu")
    environment.pin()
    try:
        return _main(_parse(argv))
    except UserError as error:
        sys.stderr.write(f"Error: {error}\n")
        return CANNOT


def _main(arguments: argparse.Namespace) -> int:
    read = [runs.read(path) for path in arguments.runs]
    if len(read) > 2 or arguments.replicates:
        if len(read) == 2:
            _require_replicates(*read)
        of_many = many.compare(read)
        facts = {"mode": "many"} | plain(of_many)
        text, make, code = many_as_text(of_many), lambda: page.of_many(of_many), SAME
    else:
        a, b = read
        of_two = two.compare(a, b, runs.load_state)
        facts = {"mode": "two"} | plain(of_two)
        text, make = two_as_text(of_two), lambda: page.of_two(a, b, of_two)
        code = SAME if of_two.verdict.kind == two.IDENTICAL else DIFFERENT
    if arguments.html:
        try:
            arguments.html.write_text(make())
        except OSError as error:
            raise UserError(
                f"The page cannot be made ({one_line(error)}): name another file with --html."
            ) from error
    _say(json.dumps(facts, indent=1, allow_nan=False) if arguments.json else text)
    return code


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader, such as head, has seen enough; what is left to flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="vaegan-compare", description="Compares finished runs.")
    parser.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--replicates", action="store_true", help="two runs are replicates, apart but for the seed"
    )
    parser.add_argument("--json", action="store_true", help="print all that was found as JSON")
    parser.add_argument("--html", type=pathlib.Path, metavar="FILE", help="write a page as well")
    arguments = parser.parse_args(argv)
    if len(arguments.runs) < 2:
        parser.error("there is nothing to compare a single run with: name two or more.")
    return arguments


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{one_line(message)} (--help says more.)")


def _require_replicates(a: runs.Run, b: runs.Run) -> None:
    other = [
        pair.name
        for pair in two.pairs(a.config, b.config)
        if pair.name != "seed" and not two.is_free(pair.name)
    ]
    if other or a.seed == b.seed:
        apart = f"in {', '.join(other)}" if other else "not even in the seed"
        raise UserError(
            f"--replicates is for runs that differ in the seed alone, and {a.path} and {b.path} "
            f"differ {apart}: leave it out."
        )


def two_as_text(found: two.Comparison) -> str:
    """Returns what two runs say about each other, for a terminal."""
    lines = [f"A: {found.a}", f"B: {found.b}", found.verdict.text]
    shown = [*tables.of_config(found), *tables.of_bits(found, _MOST_LEAVES)]
    if not all(number.same for number in found.evaluation.numbers):
        shown += tables.of_numbers(found)
    lines += _laid_out(shown)
    return "\n".join(lines + found.notes)


def many_as_text(found: many.Comparison) -> str:
    """Returns what many runs say together, for a terminal."""
    lines = [page.EXPLANATION, *_laid_out(tables.of_groups(found))]
    lines += tables.lonely(found.groups)
    if found.main is None:
        lines.append("There is no ranking, since no GAN is evaluated.")
    lines += _laid_out(tables.of_means(found))
    contrasts = tables.of_contrasts(found)
    lines += [page.CAUTION, *_laid_out(contrasts)] if contrasts else []
    return "\n".join(lines + tables.unpaired(found) + found.notes)


def plain(value: Any) -> Any:
    """Returns dataclasses and named tuples as JSON can hold them; what is not finite as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in value._asdict().items()}
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _laid_out(found: Sequence[Table]) -> list[str]:
    return [line for table in found for line in lay_out(table)]


if __name__ == "__main__":
    sys.exit(main())
