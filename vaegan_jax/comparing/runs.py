"""What the folder of a run says, read without its lock and without writing to it."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable
from typing import Any

from vaegan_jax import checkpoints, workdir
from vaegan_jax import config as configuration
from vaegan_jax.comparing.leaves import State
from vaegan_jax.errors import UserError, one_line

STAGES = ("vae", "gan")
TIMES = ("seconds", "steps_per_second", "images_per_second")
"""Scalars that say how long something took, and differ between equal runs."""

_FACTS = ("embedding", "settings", "data")

Line = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run has recorded; what it lacks is None or empty.

    Attributes:
      path: its folder.
      config: every field as it was saved, with today's defaults for fields that are newer than
        the run: whoever adds a field gives it the default under which nothing changes.
      data: which images it was trained on.
      environment: versions and machine that it began with.
      metrics: the lines of numbers, both stages.
      troubles: the lines of troubles.
      curve: the lines of distances.
      evaluation: what `evaluation/numbers.json` holds.
      checkpoints: the steps that are saved, by stage.
      notes: what was left out in reading it, a sentence each.
    """

    path: pathlib.Path
    config: dict[str, Any]
    data: dict[str, Any] | None = None
    environment: dict[str, Any] | None = None
    metrics: list[Line] = dataclasses.field(default_factory=list)
    troubles: list[Line] = dataclasses.field(default_factory=list)
    curve: list[Line] = dataclasses.field(default_factory=list)
    evaluation: dict[str, Any] | None = None
    checkpoints: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        """Its folder, as it was named."""
        return str(self.path)

    @property
    def seed(self) -> Any:
        """The seed of its config."""
        return self.config.get("seed")

    @property
    def digest(self) -> str | None:
        """The digest of its images."""
        found = self.data.get("digest") if self.data else None
        return None if found is None else str(found)


def read(path: pathlib.Path) -> Run:
    """Reads the folder of a run, of this version or an older one.

    Raises:
      UserError: where it holds no run, or a file of it is damaged.
    """
    try:
        return _read(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The run {path} cannot be read ({one_line(error)}).") from error


MISSING = {
    "data": "images are noted (data.json)",
    "environment": "environment is noted (run.json)",
    "metrics": "metrics are logged (metrics.jsonl)",
    "curve": "curve is logged (curve.jsonl)",
    "evaluation": "evaluation is saved (evaluation/numbers.json)",
    "checkpoints": "checkpoint is saved (checkpoints/)",
}
"""What a run may lack, by attribute."""


def missing(run: Run, parts: Iterable[str] = tuple(MISSING)) -> list[str]:
    """Returns a sentence for each of these parts that a run lacks."""
    return [f"{run.path}: no {MISSING[part]}." for part in parts if not getattr(run, part)]


def load_state(run: Run, stage: str, step: int) -> State:
    """Returns the state that a run saved at a step of a stage.

    Raises:
      UserError: where that checkpoint is damaged.
    """
    return checkpoints.load(_folder(run.path).checkpoints(stage), step)


def newest_pictures(a: Run, b: Run, stage: str, name: str) -> tuple[int, list[pathlib.Path]] | None:
    """Returns the newest step at which both drew a picture, and both files; None for no such."""
    drawn = [_pictures(run, stage, name) for run in (a, b)]
    common = drawn[0].keys() & drawn[1].keys()
    if not common:
        return None
    step = max(common)
    return step, [steps[step] for steps in drawn]


def _read(path: pathlib.Path) -> Run:
    folder = _folder(path)
    config = _object(path, workdir.CONFIG, folder)
    if config is None:
        raise UserError(f"{path} holds no run: name the folder of one, which has a config.json.")
    defaults = {name: field.default for name, field in configuration.FIELDS.items()}
    data = _object(path, workdir.DATA, folder)
    environment = _object(path, workdir.ENVIRONMENT, folder)
    lines, cut = _lines(path / workdir.METRICS)
    curve, curve_cut = _lines(path / workdir.CURVE)
    evaluation = _object(path, workdir.NUMBERS, folder)
    _require_numbers(path / workdir.NUMBERS, evaluation)
    metrics = [line for line in lines if "trouble" not in line]
    saved = {stage: checkpoints.steps(folder.checkpoints(stage)) for stage in STAGES}
    notes = [
        f"{path / name}: the last line is cut off and left out."
        for name, is_cut in ((workdir.METRICS, cut), (workdir.CURVE, curve_cut))
        if is_cut
    ]
    return Run(
        path=path,
        # Thresholds were fields in older versions; nothing that is trained depended on them.
        config={
            name: value
            for name, value in (defaults | config).items()
            if not name.startswith("monitor.")
        },
        data=data,
        environment=environment,
        metrics=metrics,
        troubles=[line for line in lines if "trouble" in line],
        curve=curve,
        evaluation=evaluation,
        checkpoints={stage: steps for stage, steps in saved.items() if steps},
        notes=notes,
    )


def _folder(path: pathlib.Path) -> workdir.Workdir:
    # Not `open_workdir`, which takes the lock and asks for a config that this version can run.
    return workdir.Workdir(path)


def _object(path: pathlib.Path, name: str, folder: workdir.Workdir) -> dict[str, Any] | None:
    found: Any = folder.facts(name) if (path / name).exists() else None
    if found is not None and not isinstance(found, dict):
        raise _damaged(path / name, "it is no JSON object")
    return found


def _require_numbers(path: pathlib.Path, evaluation: dict[str, Any] | None) -> None:
    if evaluation is None:
        return
    if not all(isinstance(evaluation.get(name, {}), dict) for name in _FACTS):
        raise _damaged(path, f"one of {', '.join(_FACTS)} is no JSON object")
    kinds: dict[str, Any] = dict.fromkeys(("subject", "against", "metric"), str)
    kinds |= dict.fromkeys(("value", "error"), int | float | None)
    numbers = evaluation.get("numbers")
    if not isinstance(numbers, list) or not all(
        isinstance(number, dict)
        and all(name in number and isinstance(number[name], kinds[name]) for name in kinds)
        for number in numbers
    ):
        raise _damaged(path, "it holds no list of numbers")


def _lines(path: pathlib.Path) -> tuple[list[Line], bool]:
    """Returns the lines of a file, none where there is none, and whether a last one is cut off.

    That happens to a run that is killed while it writes; any other fault is damage.
    """
    if not path.exists():
        return [], False
    text = path.read_text()
    found: list[Line] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            read = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(text.splitlines()) and not text.endswith("\n"):
                return found, True
            raise _damaged(path, f"line {number}: {error}") from error
        if (
            not isinstance(read, dict)
            or not isinstance(read.get("step"), int)
            or read.get("stage") not in STAGES
        ):
            raise _damaged(path, f"line {number} has no stage and step")
        if "trouble" not in read and not all(
            isinstance(value, int | float) for name, value in read.items() if name != "stage"
        ):
            raise _damaged(path, f"line {number} holds what is no number")
        found.append(read)
    return found, False


def _damaged(path: pathlib.Path, why: str) -> UserError:
    return UserError(f"{path} is damaged ({why}): restore it, or leave this run out.")


def _pictures(run: Run, stage: str, name: str) -> dict[int, pathlib.Path]:
    steps = {}
    for path in (run.path / "images" / stage).glob(f"{name}_*.png"):
        match = re.fullmatch(rf"{name}_(\d+)", path.stem)
        if match:
            steps[int(match[1])] = path
    return steps
