"""Writes a run's folder, under its lock."""

import contextlib
import datetime
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import filelock
import numpy as np
from ml_collections import ConfigDict
from PIL import Image
from tensorboardX import SummaryWriter

from vaegan_jax import config as configuration
from vaegan_jax.config import resume
from vaegan_jax.errors import UserError
from vaegan_jax.runtime import parallel
from vaegan_jax.runtime.files import write_atomic
from vaegan_jax.training import monitor
from vaegan_jax.workdir import checks, reader


class Workdir(reader.Reader):
    """The open folder of a run; see `open_workdir`.

    Only the primary process writes; in the others the methods that write do nothing.
    """

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__(path)
        self._writes = parallel.is_primary()
        self._tensorboards: dict[str, SummaryWriter] = {}
        self._recorded: set[tuple[str, str]] = set()  # stages and names of troubles

    def require_data(self, facts: dict[str, Any]) -> None:
        """Records the images of the run: `digest`, the count `train`, and anything else.

        Raises:
          UserError: if the run began with other images.
        """
        recorded = self.read_json(reader.DATA)
        if recorded is None:
            self.write_json(reader.DATA, facts)
        elif recorded["digest"] != facts["digest"]:
            raise UserError(
                f"The images have changed since the run in {self.path} began ({recorded['train']} "
                f"training images then, {facts['train']} now): restore them to resume it, or name "
                "another --workdir to start a new run."
            )

    def record_environment(self, facts: dict[str, Any], identity: dict[str, Any]) -> None:
        """Records the environment in which a run starts, and each change when it is resumed.

        `identity` is what else results depend on; other functions check that it is the same.
        """
        recorded = self.read_json(reader.ENVIRONMENT)
        if recorded is None:
            self.write_json(reader.ENVIRONMENT, identity | facts)
            return
        changes = recorded.get("resumed_with", [])
        last = recorded | {name: value for change in changes for name, value in change.items()}
        changed = {name: value for name, value in facts.items() if last.get(name) != value}
        if changed:
            self.write_json(reader.ENVIRONMENT, recorded | {"resumed_with": [*changes, changed]})
            self.write_event(f"resumed in another environment: {', '.join(changed)}")

    def rewind(self, stage: str, step: int) -> None:
        """Removes a stage's metrics and pictures after a step, and incomplete lines.

        They are written again when training continues from the checkpoint of that step, or from the
        initial state at step 0.
        """
        if not self._writes:
            return
        self._drop_records(stage, step)
        self._recorded = {(line["stage"], line["trouble"]) for line in self.troubles()}
        if stage == "gan" and step == 0:
            shutil.rmtree(self.checkpoints(reader.BEST), ignore_errors=True)
        self._tensorboards[stage] = SummaryWriter(
            str(self.path / "tensorboard" / stage), purge_step=step + 1
        )

    def _drop_records(self, stage: str, step: int) -> None:
        for name in (reader.METRICS, reader.CURVE, reader.EVENTS):  # events have no stage
            kept = [
                json.dumps(line)
                for line in reader.read_lines(self.path / name)
                if line.get("stage") != stage or line["step"] <= (step or -1)
            ]
            write_atomic(self.path / name, "".join(f"{line}\n" for line in kept))
        for picture in (self.path / "images" / stage).glob("*.png"):
            written = picture.stem.rpartition("_")[2]
            if written.isdecimal() and int(written) > step:
                picture.unlink()

    def copy_stage(self, stage: str, source: reader.Reader, step: int) -> None:
        """Copies a finished stage of another run: records, pictures, and last its checkpoints."""
        self._drop_records(stage, 0)
        for name in (reader.METRICS, reader.CURVE):
            for line in reader.read_lines(source.path / name):
                if line["stage"] == stage:
                    self._write_line(name, line)
        for folder in ("images", "tensorboard"):
            copy = self.path / folder / stage
            shutil.copytree(source.path / folder / stage, copy, dirs_exist_ok=True)
        partial = self.path / reader.CHECKPOINTS / f".{stage}"
        shutil.copytree(source.checkpoints(stage), partial, dirs_exist_ok=True)
        partial.rename(self.checkpoints(stage))
        self.write_event(f"{stage}: finished at step {step} in {source.path}, and copied")

    def write_metrics(self, stage: str, step: int, scalars: dict[str, float]) -> None:
        """Appends a line to metrics.jsonl; floats are read back exactly."""
        self._write_line(reader.METRICS, {"stage": stage, "step": step} | scalars)
        self._write_scalars(stage, step, scalars)

    def write_curve(self, stage: str, step: int, scalars: dict[str, float]) -> None:
        """Appends a line to curve.jsonl."""
        self._write_line(reader.CURVE, {"stage": stage, "step": step} | scalars)
        self._write_scalars(stage, step, {f"curve/{name}": v for name, v in scalars.items()})

    def write_event(self, text: str) -> None:
        """Appends an event, with the time."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._write_line(reader.EVENTS, {"time": now, "event": text})

    def write_trouble(self, stage: str, step: int, trouble: monitor.Trouble) -> bool:
        """Records a trouble the first time it occurs in a stage; returns whether it is new."""
        if not self._writes or (stage, trouble.name) in self._recorded:
            return False
        self._recorded.add((stage, trouble.name))
        line = {"stage": stage, "step": step, "trouble": trouble.name, "text": trouble.text}
        self._write_line(reader.METRICS, line | {"remedy": trouble.remedy} | trouble.evidence)
        self._tensorboards[stage].add_text("trouble", trouble.sentence, step)
        self.write_event(f"{stage}, step {step}: {trouble.sentence}")
        return True

    def write_picture(self, stage: str, name: str, step: int, picture: np.ndarray) -> None:
        """Writes a picture, uint8 [H, W, 3] or [H, W, 1], as PNG and for TensorBoard."""
        if self._writes:
            folder = self.path / "images" / stage
            folder.mkdir(parents=True, exist_ok=True)
            _save_picture(folder / f"{name}_{step:06d}.png", picture)
            self._tensorboards[stage].add_image(name, picture, step, dataformats="HWC")

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Writes a JSON file in the folder, atomically."""
        self._write_atomic(name, json.dumps(content, indent=1, allow_nan=False) + "\n")

    def write_evaluation(self, numbers: dict[str, Any], pictures: dict[str, np.ndarray]) -> None:
        """Replaces the previous evaluation; the numbers are written last."""
        if not self._writes:
            return
        folder = self.path / "evaluation"
        folder.mkdir(exist_ok=True)
        (self.path / reader.NUMBERS).unlink(missing_ok=True)
        for old in folder.glob("*.png"):
            old.unlink()
        for name, picture in pictures.items():
            _save_picture(folder / f"{name}.png", picture)
        self.write_json(reader.NUMBERS, numbers)

    def write_report(self, page: str) -> pathlib.Path:
        """Writes report.html."""
        self._write_atomic(reader.REPORT, page)
        return self.path / reader.REPORT

    def close(self) -> None:
        """Closes the files of TensorBoard."""
        for writer in self._tensorboards.values():
            writer.close()

    def _write_atomic(self, name: str, text: str) -> None:
        if self._writes:
            write_atomic(self.path / name, text)

    def _write_line(self, name: str, line: dict[str, Any]) -> None:
        if self._writes:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps(line)}\n")

    def _write_scalars(self, stage: str, step: int, scalars: dict[str, float]) -> None:
        if self._writes:
            for name, value in scalars.items():
                self._tensorboards[stage].add_scalar(name, value, step)
            self._tensorboards[stage].flush()


@contextlib.contextmanager
def open_workdir(path: pathlib.Path, config: ConfigDict) -> Iterator[Workdir]:
    """Opens the folder of a run under its lock, creating it if necessary.

    Raises:
      UserError: if the folder holds another run, or is in use.
    """
    if not parallel.is_primary():
        parallel.barrier("workdir opened")
        yield Workdir(path)
        return
    checks.require_usable(path, config)
    with contextlib.ExitStack() as stack:
        path.mkdir(parents=True, exist_ok=True)
        try:  # the kernel releases the lock when the process ends in any way
            stack.enter_context(filelock.FileLock(path / ".lock", timeout=0))
        except filelock.Timeout as error:
            raise UserError(
                f"The workdir {path} is in use by another process: wait for it, or name another "
                "--workdir."
            ) from error
        workdir = stack.enter_context(contextlib.closing(Workdir(path)))
        before = workdir.config()
        changed = resume.differences(before, configuration.flatten(config))
        if not before or changed:
            write_atomic(path / reader.CONFIG, configuration.to_json(config))
        for change in changed if before else ():
            workdir.write_event(f"config: {change.name} {change.before!r} -> {change.now!r}")
        parallel.barrier("workdir opened")
        yield workdir


def _save_picture(path: pathlib.Path, picture: np.ndarray) -> None:
    Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(path)
