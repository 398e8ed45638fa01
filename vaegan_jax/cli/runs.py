"""Subcommands that make, judge and compare runs."""

import argparse
import ast
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from vaegan_jax.errors import UserError


def train(argv: Sequence[str]) -> None:
    """Trains as launch.py does, with its flags; it ends the program."""
    from absl import app

    from vaegan_jax.cli import launch

    launch.define_flags()
    app.run(launch.main, argv=["vaegan train", *argv], flags_parser=launch.parse_flags)


def compare(arguments: argparse.Namespace) -> int:
    """Compares runs; returns 1 for two that are not identical, otherwise 0.

    Raises:
      UserError: where a folder holds no run or a damaged one, or there is nothing to compare.
    """
    import jax

    from vaegan_jax.experiments.compare import page, records, summary

    jax.config.update("jax_platforms", "cpu")  # an accelerator may be busy with another run
    runs = [records.read(path) for path in (arguments.run, *arguments.others)]
    found = summary.compare(runs)
    if arguments.html is not None:
        arguments.html.write_text(page.render(runs, found), encoding="utf-8")
    print(summary.as_json(found) if arguments.json else summary.as_text(found), flush=True)
    return found.exit_code


def evaluate(arguments: argparse.Namespace) -> None:
    """Evaluates a run again; with --model, --step or --seed it prints and leaves the run unchanged.

    Raises:
      UserError: where there is no such checkpoint, or nothing to judge by.
    """
    settings = dict(map(_setting, arguments.set))
    if arguments.model is None and arguments.step is None and arguments.seed is None:
        if arguments.out is not None:
            raise UserError("--out goes with --model, --step or --seed: else the run is evaluated.")
        _go_through("evaluate", arguments.run, settings)
    else:
        _judge(arguments, settings)


def _judge(arguments: argparse.Namespace, settings: dict[str, Any]) -> None:
    import json

    from vaegan_jax.cli import common
    from vaegan_jax.data import images
    from vaegan_jax.pipeline import evaluate
    from vaegan_jax.report import tables
    from vaegan_jax.runtime import signals

    config, folder = _saved(arguments.run, settings)
    if arguments.out is not None:
        common.require_new(arguments.out, arguments.force)
    steps = _chosen(folder, arguments.model, arguments.step)
    if arguments.seed is not None:
        config.seed = arguments.seed
    data = images.load(config.data)
    judges = evaluate.make_evaluators(config, data, required=True)
    with signals.StopRequest() as stop:
        found, *_ = evaluate.evaluate_checkpoints(config, data, folder, judges, steps, stop)
    print(tables.as_text(found))
    for finding in found["findings"]:
        print(f"{finding['name']}: {finding['text']}")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
        print(f"numbers: {arguments.out}")


def _chosen(folder: Any, model: str | None, step: int | None) -> dict[str, int | None]:
    """Returns which checkpoints of a run's folder are judged, by stage."""
    from vaegan_jax import checkpoints

    places = {stage: folder.checkpoints(stage) for stage in ("vae", "gan")}
    there = {stage: checkpoints.steps(place) for stage, place in places.items()}
    newest = {stage: checkpoints.latest(place) for stage, place in places.items()}
    if model is None and step is not None:
        model = "gan" if there["gan"] else "vae"
    if model is None:
        chosen = newest
    else:
        chosen = dict.fromkeys(there, None) | {model: newest[model] if step is None else step}
        if chosen[model] not in there[model]:
            asked = "" if step is None else f" of step {step}"
            listed = ", ".join(map(str, there[model])) or "none"
            raise UserError(
                f"The run in {folder.path} has no checkpoint{asked} of its {model}: there are "
                f"{listed}."
            )
    if not any(chosen.values()):
        raise UserError(
            f"There is nothing to evaluate yet: no checkpoint is saved in {folder.path}."
        )
    return chosen


def report(arguments: argparse.Namespace) -> None:
    """Writes a run's page again."""
    _go_through("report", arguments.run, {})


def _go_through(stage: str, source: str, settings: dict[str, Any]) -> None:
    """Runs one stage with the config that the run was saved with."""
    from vaegan_jax.pipeline import run

    config, folder = _saved(source, settings)
    run.train_and_evaluate(config, folder.path, (stage,))


def _saved(run: str, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Returns the config that a run was saved with, but for some settings, and its folder."""
    from vaegan_jax import trained, workdir
    from vaegan_jax.runtime import environment

    path = pathlib.Path(run)
    workdir.require_run(path)
    folder = workdir.Workdir(path)
    config = trained.config_from(folder.config() | settings, str(path / workdir.CONFIG))
    environment.make_deterministic()
    sys.path.append(str(pathlib.Path.cwd()))  # where `launch.py` finds the user's own modules
    return config, folder


def _setting(text: str) -> tuple[str, Any]:
    from vaegan_jax import config as configuration

    name, equals, value = text.partition("=")
    if name not in configuration.FIELDS:
        raise configuration.unknown_field(name)
    field = configuration.FIELDS[name]
    if not equals or not name.startswith("evaluation."):
        raise UserError(f"--set takes evaluation.FIELD=VALUE, and is {text}.")
    if name.startswith("evaluation.curve_"):
        raise UserError(
            f"--set cannot change {name}, which only a run in training uses: leave it out."
        )
    try:
        found: Any = value if isinstance(field.default, str) else ast.literal_eval(value)
        found = float(found) if isinstance(field.default, float) else found
    except (ValueError, SyntaxError, TypeError):
        found = value
    if not field.rule.allows(found):
        raise UserError(f"{name} must be {field.rule.text}, and is {value!r}.")
    return name, found
