"""Reads finished runs: their numbers as one flat table, and the facts that these depend on."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict

from vaegan_jax import checkpoints, workdir
from vaegan_jax import config as configuration
from vaegan_jax.config import resume
from vaegan_jax.errors import UserError, one_line
from vaegan_jax.training import monitor

TRAINED = ("vae", "gan")
EVALUATION = "evaluation"
STAGES = (*TRAINED, EVALUATION)
CURVE = "curve/"
"""Prefix of the names of records of curve.jsonl."""

_COLLAPSES = {"mode_collapse", "posterior_collapse"}
# Facts that others determine.
_COPIES = {
    (workdir.ENVIRONMENT, name) for name in ("config_sha256", "data_sha256", "seed", "variant")
}


class Record(NamedTuple):
    """One number of a run, at a step of training or of the evaluated checkpoint.

    Names are such as "loss", "curve/fd_pixels" and "gan_samples/test/pixels fd_n100". NaN stands
    for any value of an evaluation that is not finite.
    """

    stage: str
    step: int
    name: str
    value: float


@dataclasses.dataclass(frozen=True)
class Run:
    """The contents of a run's folder.

    Attributes:
      folder: reads its files.
      config: flat; fields that are newer than the run have their defaults.
      facts: config.json, data.json, run.json and the settings in numbers.json, by file and name.
      records: all numbers, in the order of their files.
      checkpoints: steps by stage.
      problems: reasons by what went wrong: "not finite", "collapsed" or "ended early".
    """

    folder: workdir.Reader
    config: dict[str, Any]
    facts: dict[tuple[str, str], Any]
    records: list[Record]
    checkpoints: dict[str, list[int]]
    problems: dict[str, str]

    @property
    def seconds(self) -> float:
        """Seconds of training; NaN if unknown."""
        last = {each.stage: each.value for each in self.records if each.name == "seconds"}
        return sum(last.get(stage, math.nan) for stage in _stages(self.config))


class FactDifference(NamedTuple):
    """A fact in which runs differ: one value per run, or "absent"."""

    file: str
    name: str
    values: list[Any]

    @property
    def is_cause(self) -> bool:
        """Whether it is an input of training: a field, the images, or another run's VAE."""
        inputs = {workdir.DATA: ("digest", "train"), workdir.ENVIRONMENT: ("vae.sha256",)}
        return self.name in inputs.get(self.file, ()) or (
            self.file == workdir.CONFIG and resume.affects_training(self.name)
        )


def read(path: pathlib.Path) -> Run:
    """Reads the folder of a run without locking it.

    Raises:
      UserError: if it has no run, or a damaged file.
    """
    try:
        return _read(workdir.Reader(path))
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"The run {path} cannot be read ({one_line(repr(error))}): restore it, or omit it."
        ) from error


def differing_facts(runs: Sequence[Run]) -> list[FactDifference]:
    """Returns the facts in which runs differ, except copies of other facts."""
    facts = [
        FactDifference(*name, [run.facts.get(name, "absent") for run in runs])
        for name in dict.fromkeys(name for run in runs for name in run.facts)
        if name not in _COPIES
    ]
    return [fact for fact in facts if any(value != fact.values[0] for value in fact.values)]


def _read(folder: workdir.Reader) -> Run:
    config = folder.config()
    if not config:
        raise UserError(f"There is no run in {folder.path}: name a folder with a {workdir.CONFIG}.")
    config = json.loads(configuration.to_json(configuration.default_config())) | config
    evaluation = folder.evaluation() or {"numbers": (), "findings": ()}
    recorded = {
        workdir.CONFIG: config,
        workdir.DATA: folder.read_json(workdir.DATA) or {},
        workdir.ENVIRONMENT: folder.read_json(workdir.ENVIRONMENT) or {},
        workdir.NUMBERS: evaluation.get("settings", {}),
    }
    facts = {
        (file, name): value
        for file, tree in recorded.items()
        for name, value in flatten_dict(tree, sep=".").items()
    }
    records = [
        Record(line["stage"], line["step"], prefix + key, float(value))
        for lines, prefix in ((folder.metrics(), ""), (folder.curve(), CURVE))
        for line in lines
        for key, value in line.items()
        if key not in ("stage", "step")
    ]
    for number in evaluation["numbers"]:
        stage = "gan" if number["subject"].startswith("gan") else "vae"
        step = evaluation["checkpoints"][stage] or 0
        metric = f"{number['embedding']} {number['metric']}".strip()
        key = f"{number['subject']}/{number['against'] or 'alone'}/{metric}"
        value = math.nan if number["value"] is None else float(number["value"])
        records.append(Record(EVALUATION, step, key, value))
    steps = {stage: checkpoints.steps(folder.checkpoints(stage)) for stage in TRAINED}
    found = [finding["name"] for finding in evaluation["findings"]]
    problems = _problems(folder, config, steps, found)
    return Run(folder, config, facts, records, steps, problems)


def _stages(config: dict[str, Any]) -> tuple[str, ...]:
    trains_vae = config["transfer.generator"] == "vae" and not config["transfer.vae"]
    return TRAINED if trains_vae else TRAINED[1:]


def _problems(
    folder: workdir.Reader, config: dict[str, Any], saved: dict[str, list[int]], found: list[str]
) -> dict[str, str]:
    """Returns what went wrong by problem; `found` has the names of the evaluation's findings."""
    problems = {}
    for stage in reversed(_stages(config)):
        last = max((line["step"] for line in folder.metrics(stage)), default=0)
        if last < (steps := config[f"{stage}.steps"]):
            problems["ended early"] = f"{stage} step {last} of {steps}"
    names = {name.lower().replace(" ", "_") for name in found}
    for line in folder.troubles():
        names.add(line["trouble"])
        was_resumed = line["step"] <= max(saved[line["stage"]], default=0)
        if line["trouble"] == monitor.NOT_FINITE and not was_resumed:
            problems = {"not finite": f"{line['stage']} step {line['step']}"}
    if collapses := _COLLAPSES & names:
        problems["collapsed"] = " and ".join(sorted(collapses)).replace("_", " ")
    return problems
