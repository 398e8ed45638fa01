"""Reads finished runs: their numbers as flat records, and the facts that these depend on."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from vaegan_jax import checkpoints, migrations, workdir
from vaegan_jax import config as configuration
from vaegan_jax.errors import UserError, one_line
from vaegan_jax.rules import Resume
from vaegan_jax.training import monitor

TRAINED = ("vae", "gan")
EVALUATION = "evaluation"
STAGES = (*TRAINED, EVALUATION)
CURVE = "curve/"
"""Prefix of the names of the records of curve.jsonl."""

# What is compared elsewhere: copies of the config, numbers, times.
_NOT_FACTS = {
    workdir.ENVIRONMENT: ("config_sha256", "seed", "data_sha256"),
    workdir.NUMBERS: ("numbers", "findings", "seconds", "seed", "checkpoints"),
}


class Record(NamedTuple):
    """One number of one run.

    Attributes:
      run: the run's folder.
      stage: one of `STAGES`.
      step: of training; in an evaluation, of the checkpoint that was evaluated.
      name: such as "loss", "curve/fd_pixels" or "gan_samples/held_out/fd_pixels".
      value: NaN where numbers.json holds null, which it does for any value that is not finite.
    """

    run: str
    stage: str
    step: int
    name: str
    value: float


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run's folder holds; what is missing is empty.

    Attributes:
      name: the folder.
      facts: config.json, data.json, run.json and the settings in numbers.json, each flattened, by
        file name. A field of the config that is newer than the run has today's default.
      records: all numbers, in the order of their files.
      checkpoints: the saved steps by stage.
      notes: what is missing or was left out, a sentence each.
    """

    name: str
    facts: dict[str, dict[str, Any]]
    records: list[Record]
    checkpoints: dict[str, list[int]]
    notes: list[str]

    @property
    def config(self) -> dict[str, Any]:
        """The config, flat."""
        return self.facts[workdir.CONFIG]


@dataclasses.dataclass(frozen=True)
class FactDifference:
    """A fact in which runs differ: a value for each run, None where a run does not have it."""

    file: str
    name: str
    values: list[Any]


def read(path: pathlib.Path) -> Run:
    """Reads a run's folder, of this version or an older one, without its lock and without writing.

    Raises:
      UserError: where it holds no run, or a file of it is damaged.
    """
    try:
        return _read(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The run {path} cannot be read ({one_line(error)}).") from error


def differing_facts(runs: Sequence[Run]) -> list[FactDifference]:
    """Returns the facts in which runs differ; of a run that lacks a file nothing is known."""
    found: list[FactDifference] = []
    for file in dict.fromkeys(file for run in runs for file in run.facts):
        for name in dict.fromkeys(name for run in runs for name in run.facts.get(file, {})):
            known = {json.dumps(run.facts[file].get(name)) for run in runs if file in run.facts}
            values = [run.facts.get(file, {}).get(name) for run in runs]
            # Such as "environment.cpu" of an evaluation and "cpu" of the run.
            is_copy = any(name.endswith(f".{x.name}") and x.values == values for x in found)
            if len(known) > 1 and not is_copy:
                found.append(FactDifference(file, name, values))
    return found


def is_trained_by(field: str) -> bool:
    """Whether training depends on a field of the config."""
    return (
        field not in configuration.FIELDS or configuration.FIELDS[field].resume is not Resume.ALWAYS
    )


def is_distance(name: str) -> bool:
    """Whether a record of this name is a distance of curve.jsonl."""
    is_cost = name.removeprefix(CURVE) in ("images", "seconds") or name.endswith("_floor")
    return name.startswith(CURVE) and not is_cost


def series(found: Iterable[Record]) -> dict[tuple[str, str], dict[int, float]]:
    """Returns the values of one run by (stage, name) and then by step."""
    values: dict[tuple[str, str], dict[int, float]] = {}
    for record in found:
        values.setdefault((record.stage, record.name), {})[record.step] = record.value
    return values


def _read(path: pathlib.Path) -> Run:
    # Not `open_workdir`, which takes the lock and requires a config that this version can run.
    folder = workdir.Workdir(path)
    names = (workdir.CONFIG, workdir.DATA, workdir.ENVIRONMENT, workdir.NUMBERS)
    files = {name: found for name in names if (found := _object(folder, name)) is not None}
    if workdir.CONFIG not in files:
        raise UserError(f"{path} holds no run: name a folder that has a {workdir.CONFIG}.")
    defaults = json.dumps({name: field.default for name, field in configuration.FIELDS.items()})
    files[workdir.CONFIG] = json.loads(defaults) | migrations.migrate(files[workdir.CONFIG])
    facts = {
        name: _flatten({k: v for k, v in tree.items() if k not in _NOT_FACTS.get(name, ())})
        for name, tree in files.items()
    }
    notes: list[str] = []
    metrics, curve = (_lines(path / name, notes) for name in (workdir.METRICS, workdir.CURVE))
    numbers = [line for line in metrics if "trouble" not in line]
    records = [
        *_records(path, numbers, ""),
        *_records(path, curve, CURVE),
        *_evaluation(path, files.get(workdir.NUMBERS)),
    ]
    steps = {stage: checkpoints.steps(folder.checkpoints(stage)) for stage in TRAINED}
    there = {name: name in files for name in names} | {
        workdir.METRICS: bool(numbers),
        workdir.CURVE: bool(curve),
        "checkpoints": any(steps.values()),
    }
    notes += [f"{path} has no {name}." for name, is_there in there.items() if not is_there]
    notes += _early_ends(path, facts[workdir.CONFIG], metrics)
    return Run(str(path), facts, records, steps, notes)


def _object(folder: workdir.Workdir, name: str) -> dict[str, Any] | None:
    found: Any = folder.read_json(name)
    if found is not None and not isinstance(found, dict):
        raise _damaged(folder.path / name, "it holds no JSON object")
    return found


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns ``{"packages.jax": "0.10", ...}`` for nested mappings."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        is_tree = isinstance(value, dict)
        found |= _flatten(value, f"{prefix}{name}.") if is_tree else {f"{prefix}{name}": value}
    return found


def _lines(path: pathlib.Path, notes: list[str]) -> list[dict[str, Any]]:
    """Returns the lines of a JSONL file; notes an incomplete last one, as it is after a kill."""
    lines = workdir.read_lines(path, notes)
    for number, line in enumerate(lines, 1):
        if line.get("stage") not in TRAINED or not isinstance(line.get("step"), int):
            raise _damaged(path, f"line {number} has no stage and step")
        values = [value for name, value in line.items() if name != "stage"]
        if "trouble" not in line and not all(isinstance(value, int | float) for value in values):
            raise _damaged(path, f"line {number} holds a value that is not a number")
    return lines


def _records(path: pathlib.Path, lines: Iterable[dict[str, Any]], prefix: str) -> Iterator[Record]:
    for line in lines:
        for name, value in line.items():
            if name not in ("stage", "step"):
                yield Record(str(path), line["stage"], line["step"], prefix + name, float(value))


def _evaluation(path: pathlib.Path, evaluation: dict[str, Any] | None) -> Iterator[Record]:
    """Yields the numbers of numbers.json, named "subject/against/metric"."""
    if evaluation is None:
        return
    try:
        for number in evaluation["numbers"]:
            subject, against, metric = (number[x] for x in ("subject", "against", "metric"))
            stage = "gan" if subject.startswith("gan") else "vae"
            step = evaluation.get("checkpoints", {}).get(stage) or 0
            value = float("nan") if number["value"] is None else float(number["value"])
            name = f"{subject}/{against or 'alone'}/{metric}"
            yield Record(str(path), EVALUATION, step, name, value)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path / workdir.NUMBERS, "it holds no list of numbers") from error


def _early_ends(
    path: pathlib.Path, config: dict[str, Any], metrics: Sequence[dict[str, Any]]
) -> Iterator[str]:
    """Yields sentences on stages that ended before the last step of the config, or not finite."""
    for stage in TRAINED:
        lines = [line for line in metrics if line["stage"] == stage]
        last = max((line["step"] for line in lines if "trouble" not in line), default=None)
        wanted = config.get(f"{stage}.steps")
        if last is not None and isinstance(wanted, int) and last < wanted:
            yield f"{path} ended at {stage} step {last} of {wanted}."
        for line in lines:
            if line.get("trouble") == monitor.NOT_FINITE:
                yield f"{path} had a value that is not finite at {stage} step {line['step']}."


def _damaged(path: pathlib.Path, why: str) -> UserError:
    return UserError(f"{path} is damaged ({why}): restore it, or leave this run out.")
