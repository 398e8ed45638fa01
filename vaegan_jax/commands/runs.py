"""Subcommands that make, judge and compare runs."""

import argparse
import ast
import pathlib
from collections.abc import Sequence
from typing import Any

from vaegan_jax.errors import UserError


def train(argv: Sequence[str]) -> None:
    """Trains as launch.py does, with its flags; it ends the program."""
    from absl import app

    from vaegan_jax import cli

    cli.define_flags()
    app.run(cli.main, argv=["vaegan train", *argv], flags_parser=cli.parse_flags)


def compare(argv: Sequence[str]) -> int:
    """Compares runs, as vaegan-compare does."""
    from vaegan_jax import compare as comparing

    return comparing.main(argv)


def evaluate(arguments: argparse.Namespace) -> None:
    """Judges a run anew."""
    _go_through("evaluate", arguments.run, dict(map(_setting, arguments.set)))


def report(arguments: argparse.Namespace) -> None:
    """Makes a run's page anew."""
    _go_through("report", arguments.run, {})


def _go_through(stage: str, run: str, settings: dict[str, Any]) -> None:
    """Runs one stage with the config that the run was saved with."""
    import jax

    from vaegan_jax import environment, pipeline, trained, workdir

    path = pathlib.Path(run)
    workdir.require_run(path)
    saved = workdir.Workdir(path).config()
    config = trained.config_from(saved | settings, str(path / workdir.CONFIG))
    jax.config.update("jax_numpy_rank_promotion", "raise")
    environment.make_deterministic()
    pipeline.run(config, path, (stage,))


def _setting(text: str) -> tuple[str, Any]:
    from vaegan_jax import config as configuration

    name, equals, value = text.partition("=")
    if name not in configuration.FIELDS:
        raise configuration.unknown_field(name)
    field = configuration.FIELDS[name]
    if not equals or not name.startswith("evaluation."):
        raise UserError(f"--set takes evaluation.FIELD=VALUE, and is {text}.")
    try:
        found: Any = value if isinstance(field.default, str) else ast.literal_eval(value)
        found = float(found) if isinstance(field.default, float) else found
    except (ValueError, SyntaxError, TypeError):
        found = value
    if not field.allowed(found):
        raise UserError(f"{name} must be {field.wanted}, and is {value!r}.")
    return name, found
