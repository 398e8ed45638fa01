"""Commands on runs, evaluate, report, metrics and compare, and the list of losses."""

from __future__ import annotations

import argparse
import csv
import inspect
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vaegan_jax import registry
from vaegan_jax.cli import common, options, program
from vaegan_jax.cli.options import option
from vaegan_jax.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from vaegan_jax.experiments.compare.records import Run
    from vaegan_jax.workdir import Workdir


@options.command(
    "runs/quickstart --set evaluation.samples=500",
    option(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="override a field of the config, such as evaluation.embeddings=inception",
    ),
    *options.MODEL,
    options.SEED,
    options.out("a JSON file for the numbers"),
)
def evaluate(arguments: argparse.Namespace) -> None:
    """Evaluates the newest checkpoints of a run.

    With --model, --step, --seed or --out, it evaluates one checkpoint and leaves the run as it is.

    Raises:
      UserError: if there is no such checkpoint, or no embedding.
    """
    chosen = arguments.model, arguments.step, arguments.seed, arguments.out
    if all(value is None for value in chosen):
        from vaegan_jax.pipeline import run

        config, folder = _load_run(pathlib.Path(arguments.run), arguments.set)
        run.train_and_evaluate(config, folder.path, ("evaluate",))
    else:
        _print_evaluation(arguments)


@options.command("runs/quickstart", options.RUN)
def report(arguments: argparse.Namespace) -> None:
    """Writes the HTML report of a run again.

    Raises:
      UserError: if there is no run or a damaged one.
    """
    from vaegan_jax.report import page

    folder = _folder(arguments.run)
    print(f"report: {folder.write_report(page.make(folder))}")


@options.command(
    "runs/a runs/b --csv > numbers.csv",
    option("runs", type=pathlib.Path, metavar="RUN", nargs="+", help="runs' folders"),
    option("--csv", action="store_true", help="separated by commas, not by tabs"),
)
def metrics(arguments: argparse.Namespace) -> None:
    """Prints every number of runs as one table: run, stage, step, name, value.

    Raises:
      UserError: if a folder has no run or a damaged one.
    """
    runs = _read_runs(arguments.runs)
    delimiter = "," if arguments.csv else "\t"
    writer = csv.writer(sys.stdout, delimiter=delimiter, lineterminator="\n")
    writer.writerow(("run", "stage", "step", "name", "value"))
    writer.writerows((run.folder.path, *record) for run in runs for record in run.records)


@options.command(
    "runs/a runs/b --html comparison.html",
    options.RUN,
    option("others", type=pathlib.Path, metavar="RUN", nargs="+", help="more runs"),
    option("--html", type=pathlib.Path, metavar="FILE", help="also write a page"),
    exit_error=program.EXIT_USAGE,  # as `diff`, whose code 1 means that inputs differ
)
def compare(arguments: argparse.Namespace) -> int:
    """Compares finished runs: two bit for bit, more by means over seeds.

    The exit code is 1 for two runs that are not identical, otherwise 0.

    Raises:
      UserError: if a folder has no run or a damaged one, or there is nothing to compare.
    """
    from vaegan_jax.experiments.compare import page, summary

    comparison = summary.compare(_read_runs([arguments.run, *arguments.others]))
    if arguments.html is not None:
        arguments.html.write_text(page.render(comparison), encoding="utf-8")
    print(comparison, flush=True)
    return int(comparison.is_different)


def _read_runs(paths: Sequence[pathlib.Path]) -> list[Run]:
    import jax

    from vaegan_jax.experiments.compare import records

    jax.config.update("jax_platforms", "cpu")  # an accelerator may be in use by another run
    return [records.read(path) for path in paths]


@options.command("")
def losses(_: argparse.Namespace) -> None:
    """Lists the losses that a config can name, with their options."""
    for field, kind in registry.USER_FIELDS.items():
        if kind in registry.INPUTS:
            print(field)
            for name in registry.BUILT_IN[kind]:
                print(_loss(kind, name, registry.load(kind, name)))
    print("Your own as package.module:name, see docs/extending.md.")


def _loss(kind: str, name: str, function: Any) -> str:
    taken = [f"{each.name}={each.default!r}" for each in registry.options(kind, function)]
    taken += [f"{each}=1" for each in registry.TERM_OPTIONS.get(kind, ())]
    documented = [function] if callable(function) else function  # an objective is a pair
    lines = [(inspect.getdoc(each) or "").partition("\n")[0] for each in documented]
    return f"  {name}({', '.join(taken)})\n      {' | '.join(lines)}"


def _print_evaluation(arguments: argparse.Namespace) -> None:
    from vaegan_jax.data import images
    from vaegan_jax.pipeline import evaluate
    from vaegan_jax.report import tables

    config, folder = _load_run(pathlib.Path(arguments.run), arguments.set)
    if arguments.out is not None:
        common.require_new(arguments.out, arguments.force)
    chosen = common.load(arguments)
    steps = {"vae": None, "gan": None} | {chosen.model: chosen.step}
    if arguments.seed is not None:
        config.seed = arguments.seed
    data = images.load(config.data)
    embeddings = evaluate.load_embeddings(config, data, required=True)
    result, *_ = evaluate.evaluate_checkpoints(config, data, folder, embeddings, steps)
    print(tables.as_text(result))
    for finding in result["findings"]:
        print(f"{finding['name']}: {finding['text']}")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"numbers: {arguments.out}")


def _folder(path: pathlib.Path) -> Workdir:
    from vaegan_jax import workdir

    folder = workdir.Workdir(path)
    if not folder.config():
        raise UserError(f"There is no run in {path}: `vaegan train` starts one.")
    return folder


def _load_run(path: pathlib.Path, overrides: Sequence[str]) -> tuple[ConfigDict, Workdir]:
    """Returns the config of a run, with overrides of evaluation fields, and its folder."""
    from vaegan_jax import config as configuration
    from vaegan_jax import trained, workdir
    from vaegan_jax.runtime import environment

    folder = _folder(path)
    config = trained.config_from(folder.config(), str(path / workdir.CONFIG))
    for override in overrides:
        field = configuration.set_field(config, override)
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
