"""Commands on runs: evaluate, report, metrics, compare."""

from __future__ import annotations

import argparse
import csv
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vaegan_jax.cli import common, options, program
from vaegan_jax.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from vaegan_jax.workdir import Workdir


def add_parsers(commands: options.Commands) -> None:
    """Adds the commands of this module."""
    parser = options.add_command(
        commands,
        evaluate,
        "evaluate the newest checkpoints of a run",
        "runs/quickstart --set evaluation.samples=500",
    )
    parser.add_argument("run", type=pathlib.Path, metavar="RUN", help="the run's folder")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="override a field of the config, such as evaluation.embeddings=inception",
    )
    parser.add_argument(
        "--model",
        choices=("vae", "gan"),
        help="print the evaluation of this model alone; the run is not changed",
    )
    parser.add_argument(
        "--step",
        type=options.step,
        help="print the evaluation of this checkpoint, or of best; the run is not changed",
    )
    parser.add_argument(
        "--seed",
        type=options.SEED,
        help="print an evaluation with this seed of the samples; the run is not changed",
    )
    options.add_out(parser, None, ": a JSON file of the numbers that are printed")
    parser.add_argument("--force", action="store_true", help="replace an existing file")

    parser = options.add_command(
        commands, report, "write the HTML report of a run again", "runs/quickstart"
    )
    parser.add_argument("run", type=pathlib.Path, metavar="RUN", help="the run's folder")

    parser = options.add_command(
        commands,
        metrics,
        "print metrics, curve and evaluation of runs as one flat table",
        "runs/a runs/b --csv > numbers.csv",
    )
    parser.add_argument("runs", type=pathlib.Path, metavar="RUN", nargs="+", help="runs' folders")
    parser.add_argument("--csv", action="store_true", help="separated by commas, not by tabs")

    parser = options.add_command(
        commands,
        compare,
        "compare finished runs: two bit for bit, more by means over seeds",
        "runs/a runs/b --html comparison.html",
        program.EXIT_USAGE,  # as `diff`, whose code 1 means that inputs differ
    )
    parser.add_argument("run", type=pathlib.Path, metavar="RUN", help="a run's folder")
    parser.add_argument("others", type=pathlib.Path, metavar="RUN", nargs="+", help="more runs")
    parser.add_argument("--html", type=pathlib.Path, metavar="FILE", help="also write a page")


def evaluate(arguments: argparse.Namespace) -> None:
    """Evaluates a run again; with --model, --step or --seed it only prints the evaluation.

    Raises:
      UserError: if there is no such checkpoint, or no embedding.
    """
    if arguments.model is None and arguments.step is None and arguments.seed is None:
        if arguments.out is not None:
            raise UserError("--out requires --model, --step or --seed.")
        _run_stage("evaluate", arguments.run, arguments.set)
    else:
        _print_evaluation(arguments)


def report(arguments: argparse.Namespace) -> None:
    """Writes the report of a run again."""
    _run_stage("report", arguments.run, ())


def metrics(arguments: argparse.Namespace) -> None:
    """Prints every number of runs, one per line: run, stage, step, name, value.

    Raises:
      UserError: if a folder has no run or a damaged one.
    """
    import jax

    from vaegan_jax.experiments.compare import records

    jax.config.update("jax_platforms", "cpu")  # an accelerator may be in use by another run
    runs = [records.read(path) for path in arguments.runs]
    delimiter = "," if arguments.csv else "\t"
    writer = csv.writer(sys.stdout, delimiter=delimiter, lineterminator="\n")
    writer.writerow(records.Record._fields)
    writer.writerows(record for run in runs for record in run.records)


def compare(arguments: argparse.Namespace) -> int:
    """Compares runs; returns 1 for two runs that are not identical, otherwise 0.

    Raises:
      UserError: if a folder has no run or a damaged one, or there is nothing to compare.
    """
    import jax

    from vaegan_jax.experiments.compare import page, records, summary

    jax.config.update("jax_platforms", "cpu")  # an accelerator may be in use by another run
    runs = [records.read(path) for path in (arguments.run, *arguments.others)]
    comparison = summary.compare(runs)
    if arguments.html is not None:
        arguments.html.write_text(page.render(comparison), encoding="utf-8")
    print(comparison, flush=True)
    return int(comparison.is_different)


def _run_stage(stage: str, path: pathlib.Path, overrides: Sequence[str]) -> None:
    """Runs one stage with the config of a finished run."""
    from vaegan_jax.pipeline import run

    config, folder = _load_run(path, overrides)
    run.train_and_evaluate(config, folder.path, (stage,))


def _print_evaluation(arguments: argparse.Namespace) -> None:
    from vaegan_jax.data import images
    from vaegan_jax.pipeline import evaluate
    from vaegan_jax.report import tables
    from vaegan_jax.runtime import signals

    config, folder = _load_run(arguments.run, arguments.set)
    if arguments.out is not None:
        common.require_new(arguments.out, arguments.force)
    steps = _checkpoints(folder, arguments.model, arguments.step)
    if arguments.seed is not None:
        config.seed = arguments.seed
    data = images.load(config.data)
    evaluators = evaluate.make_evaluators(config, data, required=True)
    with signals.StopRequest() as stop:
        result, *_ = evaluate.evaluate_checkpoints(config, data, folder, evaluators, steps, stop)
    print(tables.as_text(result))
    for finding in result["findings"]:
        print(f"{finding['name']}: {finding['text']}")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"numbers: {arguments.out}")


def _checkpoints(
    folder: Workdir, model: str | None, step: int | str | None
) -> dict[str, int | None]:
    """Returns the step of the checkpoint to evaluate for each stage."""
    from vaegan_jax import checkpoints, trained

    available = {stage: checkpoints.steps(folder.checkpoints(stage)) for stage in ("vae", "gan")}
    newest = {stage: checkpoints.latest(folder.checkpoints(stage)) for stage in available}
    if model is None and step is None:
        if not any(newest.values()):
            raise UserError(f"There is no checkpoint in {folder.path}: train the run first.")
        return newest
    if model is None:
        model = "gan" if available["gan"] else "vae"
    chosen = newest[model] if step is None else step
    if step == "best" and model == "gan":
        chosen = trained.best_step(folder.path)
        return {"vae": None, "gan": chosen}
    if chosen not in available[model]:
        listed = ", ".join(map(str, available[model])) or "none"
        raise UserError(
            f"The run in {folder.path} has no such checkpoint of its {model}: available steps are "
            f"{listed}."
        )
    return dict.fromkeys(available, None) | {model: chosen}


def _load_run(path: pathlib.Path, overrides: Sequence[str]) -> tuple[ConfigDict, Workdir]:
    """Returns the config of a run, with overrides of evaluation fields, and its folder."""
    from vaegan_jax import config as configuration
    from vaegan_jax import trained, workdir
    from vaegan_jax.overrides import set_field
    from vaegan_jax.runtime import environment

    workdir.require_run(path)
    folder = workdir.Workdir(path)
    config = trained.config_from(folder.config(), str(path / workdir.CONFIG))
    for override in overrides:
        field = set_field(config, override)
        if not field.startswith("evaluation.") or field.startswith("evaluation.curve_"):
            raise UserError(
                f"--set cannot change {field}: it takes fields of evaluation, without "
                "evaluation.curve_every and evaluation.curve_samples, which training uses."
            )
    if overrides:
        configuration.check(config)
    environment.make_deterministic()
    sys.path.append(str(pathlib.Path.cwd()))  # for the user's modules, as in launch.py
    return config, folder
