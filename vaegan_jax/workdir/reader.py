"""Reads a run's folder, without its lock."""

import contextlib
import json
import pathlib
from typing import Any

from vaegan_jax.errors import UserError

BEST = "best"
"""Folder of checkpoints, beside those of the stages: the GAN with the smallest distance."""

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


class Reader:
    """The contents of a run's folder."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def checkpoints(self, stage: str) -> pathlib.Path:
        """Returns the folder of a stage's checkpoints."""
        return self.path / CHECKPOINTS / stage

    def config(self) -> dict[str, Any]:
        """Returns the run's config, flattened; empty if the run has not begun."""
        return self.read_json(CONFIG) or {}

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Returns the content of a JSON file in the folder, or None if it does not exist.

        Raises:
          UserError: if the file is damaged.
        """
        path = self.path / name
        try:
            content = json.loads(path.read_bytes())
            if not isinstance(content, dict):
                raise ValueError("it is not a JSON object")
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


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the JSON objects in a JSONL file, one per line; none if the file does not exist.

    Other lines are skipped: a killed process leaves its last line incomplete.
    """
    lines = []
    for text in path.read_bytes().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict)]


def pictures_by_step(path: pathlib.Path, stage: str, name: str) -> dict[int, pathlib.Path]:
    """Returns the pictures of one name that a stage of the run in a folder has written."""
    prefix = f"{name}_"
    files = (path / "images" / stage).glob(f"{prefix}*.png")
    steps = {file.stem.removeprefix(prefix): file for file in files}
    return {int(step): file for step, file in steps.items() if step.isdecimal()}
