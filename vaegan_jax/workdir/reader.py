"""Reads a run's folder, without its lock."""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from vaegan_jax import migrations
from vaegan_jax.errors import UserError

BEST = "best"
"""Folder of checkpoints, beside those of the stages: the GAN with the smallest distance."""

BEST_FACTS = "best.json"
CHECKPOINTS = "checkpoints"
CONFIG = "config.json"
CURVE = "curve.jsonl"
DATA = "data.json"
ENVIRONMENT = "run.json"
EVENTS = "events.jsonl"
LATENT = "latent.json"
METRICS = "metrics.jsonl"
NUMBERS = "evaluation/numbers.json"
REPORT = "report.html"

EVALUATION_FORMAT = 2
"""Of numbers.json."""


class Picture(NamedTuple):
    """A picture that a stage has written, images/STAGE/NAME_STEP.png."""

    name: str
    step: int
    path: pathlib.Path


class Reader:
    """The contents of a run's folder."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def checkpoints(self, stage: str) -> pathlib.Path:
        """Returns the folder of a stage's checkpoints."""
        return self.path / CHECKPOINTS / stage

    def config(self) -> dict[str, Any]:
        """Returns the run's config, flattened, with the fields' current names.

        It is empty if the run has not begun.
        """
        return migrations.migrate(self.read_json(CONFIG) or {})

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Returns the content of a JSON file in the folder, or None if it does not exist.

        Raises:
          UserError: if the file is damaged.
        """
        path = self.path / name
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UserError(f"{path} cannot be read ({error}): restore or remove it.") from error
        return content

    def metrics(self, stage: str = "") -> list[dict[str, Any]]:
        """Returns the scalars in metrics.jsonl, one dict per line, of one stage or of both."""
        return [
            line
            for line in read_lines(self.path / METRICS)
            if "trouble" not in line and (not stage or line["stage"] == stage)
        ]

    def troubles(self) -> list[dict[str, Any]]:
        """Returns the troubles in metrics.jsonl: `stage`, `step`, `trouble`, `text`, `remedy`."""
        return [line for line in read_lines(self.path / METRICS) if "trouble" in line]

    def curve(self) -> list[dict[str, Any]]:
        """Returns the lines of curve.jsonl."""
        return read_lines(self.path / CURVE)

    def smallest_distance(self, stage: str) -> tuple[str, int | None]:
        """Returns the curve's first distance by name, and the step > 0 where it is smallest."""
        lines = [line for line in self.curve() if line["stage"] == stage and line["step"] > 0]
        names = [name for line in lines for name in line if name.startswith(("fd_", "fid_"))]
        lines = [line for line in lines if names and names[0] in line]
        if not lines:
            return "", None
        return names[0], min(lines, key=lambda line: (line[names[0]], -line["step"]))["step"]

    def best_step(self) -> int | None:
        """Returns the best step of the finished GAN, or None if it is not known."""
        step: int | None = (self.read_json(BEST_FACTS) or {}).get("step")
        return step

    def events(self) -> list[dict[str, Any]]:
        """Returns the lines of events.jsonl: `time` and `event`."""
        return read_lines(self.path / EVENTS)

    def finished(self, stage: str) -> bool:
        """Returns whether a stage has ever reached its last step in this folder."""
        return any(line["event"].startswith(f"{stage}: finished at") for line in self.events())

    def evaluation(self) -> dict[str, Any] | None:
        """Returns the latest evaluation, or None if there is none in today's format.

        Raises:
          UserError: if the file is damaged.
        """
        evaluation = self.read_json(NUMBERS)
        is_current = evaluation is not None and evaluation.get("format") == EVALUATION_FORMAT
        return evaluation if is_current else None

    @property
    def evaluation_folder(self) -> pathlib.Path:
        """The folder of the latest evaluation."""
        return self.path / "evaluation"


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the JSON objects in a JSONL file, one per line; none if the file does not exist.

    Lines that are not valid JSON are skipped: a killed process leaves its last line incomplete.
    """
    lines = []
    content = path.read_bytes() if path.exists() else b""
    for text in content.splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def pictures(path: pathlib.Path, stage: str) -> Iterator[Picture]:
    """Yields the pictures that a stage of the run in a folder has written."""
    for file in (path / "images" / stage).glob("*.png"):
        if match := re.fullmatch(r"(.+)_(\d+)", file.stem):
            yield Picture(match[1], int(match[2]), file)


def pictures_by_step(path: pathlib.Path, stage: str, name: str) -> dict[int, pathlib.Path]:
    """Returns the pictures of one name that a stage of the run in a folder has written."""
    return {found.step: found.path for found in pictures(path, stage) if found.name == name}
