"""Reads finished runs: their numbers as flat records, and the facts they depend on."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from vaegan_jax import checkpoints, migrations, workdir
from vaegan_jax import config as configuration
from vaegan_jax.errors import UserError, one_line
from vaegan_jax.training import monitor

TRAINED = ("vae", "gan")
EVALUATION = "evaluation"
STAGES = (*TRAINED, EVALUATION)
CURVE = "curve/"
"""Prefix of the names of records of curve.jsonl."""

# How a run ended, in the order in which groups list it.
ENDED_NOT_FINITE = "not finite"
COLLAPSED = "collapsed"
ENDED_EARLY = "ended early"
PROBLEMS = (ENDED_NOT_FINITE, COLLAPSED, ENDED_EARLY)

_COLLAPSES = {"mode_collapse", "posterior_collapse"}
# Copies of the config, and numbers and times, which are compared separately.
_NOT_FACTS = {
    workdir.ENVIRONMENT: ("config_sha256", "seed", "data_sha256", "variant"),
    workdir.NUMBERS: ("numbers", "findings", "seconds", "seed", "checkpoints"),
}


class Record(NamedTuple):
    """One number of one run.

    Attributes:
      run: the run's folder.
      stage: one of `STAGES`.
      step: of training; for an evaluation, of the evaluated checkpoint.
      name: such as "loss", "curve/fd_pixels" or "gan_samples/test/pixels fd_n100".
      value: NaN for null in numbers.json, which stands for any value that is not finite.
      informative: False if the evaluation says that the value shows nothing about the model.
    """

    run: str
    stage: str
    step: int
    name: str
    value: float
    informative: bool = True


@dataclasses.dataclass(frozen=True)
class Run:
    """The contents of a run's folder.

    Attributes:
      name: the folder.
      facts: config.json, data.json, run.json and the settings of numbers.json by file name, each
        flattened. Fields of the config that are newer than the run have their defaults.
      records: all numbers, in the order of their files.
      checkpoints: steps by stage.
      notes: sentences on missing or skipped data.
      problems: those of `PROBLEMS` that the run has.
      variant: its name in a sweep, "" if it has none.
    """

    name: str
    facts: dict[str, dict[str, Any]]
    records: list[Record]
    checkpoints: dict[str, list[int]]
    notes: list[str]
    problems: list[str]
    variant: str

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of training by stage and in "total", NaN if unknown; a scratch run has no VAE."""
        last = {each.stage: each.value for each in self.records if each.name == "seconds"}
        seconds = {stage: last.get(stage, float("nan")) for stage in _stages(self.config)}
        return seconds | {"total": sum(seconds.values())}

    @property
    def config(self) -> dict[str, Any]:
        """The config, flat."""
        return self.facts[workdir.CONFIG]


@dataclasses.dataclass(frozen=True)
class FactDifference:
    """A fact in which runs differ: one value per run, None if missing."""

    file: str
    name: str
    values: list[Any]


def read(path: pathlib.Path) -> Run:
    """Reads the folder of a run of this or an older version, without locking it.

    Raises:
      UserError: if it has no run, or a damaged file.
    """
    try:
        return _read(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The run {path} cannot be read ({one_line(error)}).") from error


def differing_facts(runs: Sequence[Run]) -> list[FactDifference]:
    """Returns the facts in which runs differ, ignoring runs without the file of the fact."""
    result: list[FactDifference] = []
    for file in dict.fromkeys(file for run in runs for file in run.facts):
        for name in dict.fromkeys(name for run in runs for name in run.facts.get(file, {})):
            known = {json.dumps(run.facts[file].get(name)) for run in runs if file in run.facts}
            values = [run.facts.get(file, {}).get(name) for run in runs]
            # "environment.cpu" of the evaluation is a copy of "cpu" of the run.
            is_copy = any(name.endswith(f".{x.name}") and x.values == values for x in result)
            if len(known) > 1 and not is_copy:
                result.append(FactDifference(file, name, values))
    return result


def is_distance(name: str) -> bool:
    """Whether a record of this name is a distance of curve.jsonl."""
    is_cost = name.removeprefix(CURVE) in ("images", "seconds") or name.endswith("_floor")
    return name.startswith(CURVE) and not is_cost


def series(records: Iterable[Record]) -> dict[tuple[str, str], dict[int, float]]:
    """Returns the values of one run by (stage, name) and then by step."""
    values: dict[tuple[str, str], dict[int, float]] = {}
    for record in records:
        values.setdefault((record.stage, record.name), {})[record.step] = record.value
    return values


def _read(path: pathlib.Path) -> Run:
    # `open_workdir` would lock the folder and require a valid config.
    folder = workdir.Workdir(path)
    names = (workdir.CONFIG, workdir.DATA, workdir.ENVIRONMENT, workdir.NUMBERS)
    files = {name: tree for name in names if (tree := _object(folder, name)) is not None}
    if workdir.CONFIG not in files:
        raise UserError(f"{path} is not a run: name a folder with a {workdir.CONFIG}.")
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
    available = {name: name in files for name in names} | {
        workdir.METRICS: bool(numbers),
        workdir.CURVE: bool(curve),
        "checkpoints": any(steps.values()),
    }
    notes += [f"{path} has no {name}." for name, exists in available.items() if not exists]
    endings, sentences = _endings(path, facts[workdir.CONFIG], metrics, steps)
    findings = files.get(workdir.NUMBERS, {}).get("findings") or ()
    failures = [line.get("trouble") for line in metrics] + [each.get("name") for each in findings]
    collapses = _COLLAPSES & {str(name).lower().replace(" ", "_") for name in failures}
    if collapses:
        endings.add(COLLAPSED)
        notes.append(f"{path} has {' and '.join(sorted(collapses)).replace('_', ' ')}.")
    problems = [each for each in PROBLEMS if each in endings]
    if source := facts.get(workdir.ENVIRONMENT, {}).get("vae.source"):
        notes.append(f"{path} uses the VAE of {source}, whose training its times do not include.")
    variant = files.get(workdir.ENVIRONMENT, {}).get("variant", "")
    return Run(str(path), facts, records, steps, notes + sentences, problems, variant)


def _stages(config: dict[str, Any]) -> tuple[str, ...]:
    trains_vae = config["transfer.generator"] == "vae" and not config["transfer.vae"]
    return TRAINED if trains_vae else TRAINED[1:]


def _object(folder: workdir.Workdir, name: str) -> dict[str, Any] | None:
    tree: Any = folder.read_json(name)
    if tree is not None and not isinstance(tree, dict):
        raise _damaged(folder.path / name, "it is not a JSON object")
    return tree


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns ``{"packages.jax": "0.10", ...}`` for nested mappings."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        is_tree = isinstance(value, dict)
        flat |= _flatten(value, f"{prefix}{name}.") if is_tree else {f"{prefix}{name}": value}
    return flat


def _lines(path: pathlib.Path, notes: list[str]) -> list[dict[str, Any]]:
    """Returns the lines of a JSONL file; notes an incomplete last one, as it is after a kill."""
    lines = workdir.read_lines(path, notes)
    for number, line in enumerate(lines, 1):
        if line.get("stage") not in TRAINED or not isinstance(line.get("step"), int):
            raise _damaged(path, f"line {number} has no stage and step")
        values = [value for name, value in line.items() if name != "stage"]
        if "trouble" not in line and not all(isinstance(value, int | float) for value in values):
            raise _damaged(path, f"line {number} has a value that is not a number")
    return lines


def _records(path: pathlib.Path, lines: Iterable[dict[str, Any]], prefix: str) -> Iterator[Record]:
    for line in lines:
        for name, value in line.items():
            if name not in ("stage", "step"):
                yield Record(str(path), line["stage"], line["step"], prefix + name, float(value))


def _evaluation(path: pathlib.Path, evaluation: dict[str, Any] | None) -> Iterator[Record]:
    """Yields the numbers of numbers.json, named "subject/against/embedding metric"."""
    if evaluation is None:
        return
    try:
        for number in evaluation["numbers"]:
            subject, against, metric = (number[x] for x in ("subject", "against", "metric"))
            stage = "gan" if subject.startswith("gan") else "vae"
            step = evaluation.get("checkpoints", {}).get(stage) or 0
            value = float("nan") if number["value"] is None else float(number["value"])
            embedding = number.get("embedding")  # older evaluations had one
            metric = f"{embedding} {metric}" if embedding else metric
            name = f"{subject}/{against or 'alone'}/{metric}"
            informative = number.get("informative", True)
            yield Record(str(path), EVALUATION, step, name, value, informative)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path / workdir.NUMBERS, "no list of numbers") from error


def _endings(
    path: pathlib.Path,
    config: dict[str, Any],
    metrics: Sequence[dict[str, Any]],
    saved: dict[str, list[int]],
) -> tuple[set[str], list[str]]:
    """Returns whether a run ended not finite or early, and sentences on it."""
    endings, notes = set(), []
    for stage in _stages(config) if metrics else ():
        lines = [line for line in metrics if line["stage"] == stage]
        last = max((line["step"] for line in lines if "trouble" not in line), default=0)
        steps = config.get(f"{stage}.steps")
        if isinstance(steps, int) and last < steps:
            endings.add(ENDED_EARLY)
            notes.append(f"{path} ended at {stage} step {last} of {steps}.")
        for step in (x["step"] for x in lines if x.get("trouble") == monitor.NOT_FINITE):
            notes.append(f"{path} had a value that is not finite at {stage} step {step}.")
            if step >= last and step > max(saved[stage], default=0):  # it did not continue
                endings.add(ENDED_NOT_FINITE)
    return endings - {ENDED_EARLY} if ENDED_NOT_FINITE in endings else endings, notes


def _damaged(path: pathlib.Path, why: str) -> UserError:
    return UserError(f"{path} is damaged ({why}): restore the file, or omit this run.")
