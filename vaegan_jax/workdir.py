"""A run's folder: its lock, its config, its metrics and its pictures.

config.json          the resolved config, every field
data.json            which images the run is trained on
run.json             versions, settings, device, machine and sources that it began with
metrics.jsonl        a line of numbers every few steps, both stages, and of every trouble raised
latent.json          what the VAE's latent dimensions say
curve.jsonl          a line of distances to real images every now and then, both stages
events.jsonl         what happened when
images/STAGE/        PNG pictures, named by what they show and the step
tensorboard/STAGE/   the same metrics and pictures, for TensorBoard
checkpoints/STAGE/   Orbax checkpoints
evaluation/          numbers.json and pictures of the newest evaluation
report.html          all of it on one page
"""

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import re
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image
from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

from vaegan_jax import checkpoints, migrations, resume
from vaegan_jax import config as configuration
from vaegan_jax.errors import UserError
from vaegan_jax.rules import Resume
from vaegan_jax.runtime import parallel
from vaegan_jax.runtime.files import write_atomic
from vaegan_jax.training import monitor

CHECKPOINTS = "checkpoints"
CONFIG = "config.json"
CURVE = "curve.jsonl"
DATA = "data.json"
ENVIRONMENT = "run.json"
LATENT = "latent.json"
METRICS = "metrics.jsonl"
NUMBERS = "evaluation/numbers.json"
REPORT = "report.html"

_EVENTS = "events.jsonl"
_LOCK = ".lock"


class Workdir:
    """The open folder of a run; see `open_workdir`.

    Of the processes of a run the first alone writes; in the others all that writes does nothing.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._writes = parallel.is_primary()
        self._tensorboards: dict[str, SummaryWriter] = {}

    def checkpoints(self, stage: str) -> pathlib.Path:
        """Returns the folder of a stage's checkpoints."""
        return self.path / CHECKPOINTS / stage

    def config(self) -> dict[str, Any]:
        """Returns the run's config, flattened."""
        return self.facts(CONFIG) or {}

    def facts(self, name: str) -> dict[str, Any] | None:
        """Returns what a JSON file of the folder holds, or None where it is not there.

        Raises:
          UserError: where it is damaged.
        """
        path = self.path / name
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except json.JSONDecodeError as error:
            raise UserError(f"{path} cannot be read ({error}): restore or remove it.") from error
        return found

    def require_data(self, facts: dict[str, Any]) -> None:
        """Notes which images the run is trained on, or compares them with what is noted.

        Args:
          facts: `digest`, which decides, and whatever else is worth knowing.

        Raises:
          UserError: where the run was begun on other images.
        """
        noted = self.facts(DATA)
        if noted is None:
            self._write_atomic(DATA, json.dumps(facts, indent=2) + "\n")
            return
        if noted["digest"] != facts["digest"]:
            raise UserError(
                f"The images have changed since the run in {self.path} began "
                f"({_counts(noted)} then, {_counts(facts)} now): put them back to go on with it, "
                "or name another --workdir to start again."
            )

    def note_environment(self, facts: dict[str, Any], identity: dict[str, Any]) -> None:
        """Records the environment in which a run starts, and every other one in which it resumes.

        Args:
          facts: of the environment.
          identity: what else a result depends on, which `require_usable` and `require_data` watch.
        """
        noted = self.facts(ENVIRONMENT)
        if noted is None:
            self.write_facts(ENVIRONMENT, identity | facts)
            return
        last = noted
        for change in noted.get("resumed_with", []):
            last = _merged(last, change)
        changed = _changes({name: last.get(name) for name in facts}, facts)
        if changed:
            noted["resumed_with"] = [*noted.get("resumed_with", []), changed]
            self.write_facts(ENVIRONMENT, noted)
            self.write_event(f"went on with another environment: {', '.join(changed)}")

    def rewind(self, stage: str, step: int) -> None:
        """Drops a stage's metrics and pictures beyond a step, and a line cut off in the middle.

        What follows a restored checkpoint is written again.
        """
        if not self._writes:
            return
        for name in (METRICS, CURVE, _EVENTS):  # of events, which have no stage, all are kept
            if not (self.path / name).exists():
                continue
            kept = [
                json.dumps(line)
                for line in self._lines(name)
                if line.get("stage") != stage
                or line["step"] <= step
                or line.get("trouble") == monitor.NOT_FINITE  # what went wrong stays on record
            ]
            write_atomic(self.path / name, "".join(f"{line}\n" for line in kept))
        for picture in (self.path / "images" / stage).glob("*.png"):
            match = re.fullmatch(r".*_(\d+)", picture.stem)
            if match and int(match[1]) > step:
                picture.unlink()
        self._tensorboards[stage] = SummaryWriter(
            str(self.path / "tensorboard" / stage), purge_step=step + 1
        )

    def metrics(self, stage: str = "") -> list[dict[str, Any]]:
        """Returns the lines of numbers in metrics.jsonl, whole ones only, of one stage or all."""
        return [
            line
            for line in self._lines(METRICS)
            if "trouble" not in line and line["stage"] in (stage or line["stage"],)
        ]

    def troubles(self) -> list[dict[str, Any]]:
        """Returns the troubles in metrics.jsonl: `stage`, `step`, `trouble`, `text`, `remedy`."""
        return [line for line in self._lines(METRICS) if "trouble" in line]

    def curve(self) -> list[dict[str, Any]]:
        """Returns the lines of curve.jsonl, whole ones only."""
        return self._lines(CURVE)

    def events(self) -> list[dict[str, Any]]:
        """Returns the lines of events.jsonl, whole ones only."""
        return self._lines(_EVENTS)

    def finished(self, stage: str) -> bool:
        """Returns whether a stage has ever taken its last step here."""
        return any(line["event"].startswith(f"{stage}: finished at") for line in self.events())

    def write_metrics(self, stage: str, step: int, scalars: dict[str, float]) -> None:
        """Appends a line; floats are written so that they read back exactly."""
        self._write_line(METRICS, {"stage": stage, "step": step} | scalars)
        self._write_scalars(stage, step, scalars)

    def write_curve(self, stage: str, step: int, scalars: dict[str, float]) -> None:
        """Appends a line of distances to real images."""
        self._write_line(CURVE, {"stage": stage, "step": step} | scalars)
        self._write_scalars(stage, step, {f"curve/{name}": v for name, v in scalars.items()})

    def write_event(self, text: str) -> None:
        """Appends what happened, with the time."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._write_line(_EVENTS, {"time": now, "event": text})

    def write_trouble(self, stage: str, step: int, trouble: monitor.Trouble) -> bool:
        """Notes a trouble where it is seen for the first time; says whether it is.

        A stage has each but once, and a number that is not finite once a step.
        """
        line = {
            "stage": stage,
            "step": step,
            "trouble": trouble.name,
            "text": trouble.text,
            "remedy": trouble.remedy,
        } | trouble.evidence
        identity = ["stage", "trouble"] + (["step"] if trouble.name == monitor.NOT_FINITE else [])
        if any(all(old[name] == line[name] for name in identity) for old in self.troubles()):
            return False
        self._write_line(METRICS, line)
        if self._writes:
            self._tensorboards[stage].add_text("trouble", trouble.sentence, step)
        self.write_event(f"{stage}, step {step}: {trouble.sentence}")
        return True

    def write_facts(self, name: str, facts: dict[str, Any]) -> None:
        """Writes a JSON file of the folder, whole or not at all."""
        self._write_atomic(name, json.dumps(facts, indent=1, allow_nan=False) + "\n")

    def evaluation(self) -> dict[str, Any] | None:
        """Returns what `write_evaluation` wrote last, or None.

        Raises:
          UserError: where the file is damaged.
        """
        return self.facts(NUMBERS)

    @property
    def evaluation_folder(self) -> pathlib.Path:
        """The folder of the newest evaluation."""
        return self.path / "evaluation"

    def write_evaluation(self, numbers: dict[str, Any], pictures: dict[str, np.ndarray]) -> None:
        """Replaces the evaluation before; the numbers are written last."""
        if not self._writes:
            return
        self.evaluation_folder.mkdir(exist_ok=True)
        (self.path / NUMBERS).unlink(missing_ok=True)
        for old in self.evaluation_folder.glob("*.png"):
            old.unlink()
        for name, picture in pictures.items():
            _save_picture(self.evaluation_folder / f"{name}.png", picture)
        text = json.dumps(numbers, indent=1, allow_nan=False) + "\n"
        write_atomic(self.path / NUMBERS, text)

    def write_report(self, page: str) -> pathlib.Path:
        """Writes report.html."""
        self._write_atomic(REPORT, page)
        return self.path / REPORT

    def _lines(self, name: str) -> list[dict[str, Any]]:
        try:
            text = (self.path / name).read_text()
        except FileNotFoundError:
            return []
        lines = []
        for line in text.splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                lines.append(json.loads(line))
        return lines

    def _write_atomic(self, name: str, text: str) -> None:
        if self._writes:
            write_atomic(self.path / name, text)

    def _write_line(self, name: str, line: dict[str, Any]) -> None:
        if not self._writes:
            return
        with (self.path / name).open("a") as file:
            file.write(f"{json.dumps(line)}\n")

    def _write_scalars(self, stage: str, step: int, scalars: dict[str, float]) -> None:
        if not self._writes:
            return
        for name, value in scalars.items():
            self._tensorboards[stage].add_scalar(name, value, step)
        self._tensorboards[stage].flush()

    def write_picture(self, stage: str, name: str, step: int, picture: np.ndarray) -> pathlib.Path:
        """Writes a picture, uint8 [H, W, 3] or [H, W, 1], as PNG and for TensorBoard."""
        path = self.path / "images" / stage / f"{name}_{step:06d}.png"
        if not self._writes:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        _save_picture(path, picture)
        # The same bytes, where `add_image` would take as long again to compress them once more.
        height, width, channels = picture.shape
        image = Summary.Image(
            height=height,
            width=width,
            colorspace=channels,
            encoded_image_string=path.read_bytes(),
        )
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        self._tensorboards[stage].file_writer.add_summary(summary, step)
        return path

    def close(self) -> None:
        """Closes what is open."""
        for writer in self._tensorboards.values():
            writer.close()


def require_usable(path: pathlib.Path, config: ConfigDict) -> None:
    """Checks, without writing, that a folder can hold the run or holds its beginning.

    Of several processes only the first looks, since it may be writing there.

    Raises:
      UserError: where it holds a run with another config, or something else altogether.
    """
    if not parallel.is_primary():
        return
    try:
        names = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
    except FileNotFoundError:
        return
    except OSError as error:
        raise _not_writable(path, error) from error
    if not names:
        return
    if CONFIG not in names:
        raise UserError(
            f"The workdir {path} is not empty and holds no run: name a new or an empty folder."
        )
    try:
        saved = migrations.migrate(json.loads((path / CONFIG).read_text()))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path / CONFIG} cannot be read ({error}): restore it, or name another --workdir."
        ) from error
    removed = [name for name in saved if name in migrations.REMOVED]
    if removed:
        raise UserError(
            f"The run in {path} cannot be resumed, because its {CONFIG} has fields that were "
            f"removed ({', '.join(removed)}): resume it with the version that {ENVIRONMENT} names, "
            "or name another --workdir."
        )
    steps = {
        stage: found[-1]
        for stage in ("vae", "gan")
        if (found := checkpoints.steps(path / CHECKPOINTS / stage))
    }
    refused = [
        (change.name, repr(change.before), repr(change.now), objection)
        for change in resume.differences(saved, configuration.flatten(config))
        if (objection := resume.objection(change, config, steps))
    ]
    if refused:
        heading = ("field", "was", "is", "which cannot be, since")
        raise UserError(
            f"The workdir {path} holds a run with another config: name another --workdir, or set "
            f"these fields back to go on with that run.\n{resume.table(refused, heading)}"
        )


def require_same_sources(
    path: pathlib.Path, config: ConfigDict, sources: dict[str, dict[str, str]]
) -> None:
    """Checks that the user's functions are those that a run began with; it only reads.

    Fields on which nothing that is trained depends are left out. A run that began before sources
    were recorded, or that has not begun, passes.

    Args:
      path: the workdir.
      config: the run's config.
      sources: from `registry.sources`.

    Raises:
      UserError: where the source of one has changed.
    """
    noted = Workdir(path).facts(ENVIRONMENT) or {}
    records = [noted, *noted.get("resumed_with", [])]
    began: dict[str, dict[str, str]]
    began = next((record["sources"] for record in records if "sources" in record), {})
    values = configuration.flatten(config)
    for field, before in began.items():
        now = sources.get(field, before)
        if now != before and configuration.FIELDS[field].resume is not Resume.ALWAYS:
            changed = sorted({name for name, _ in before.items() ^ now.items()})
            raise UserError(
                f"The source of {field}={values[field]} has changed since the run in {path} began "
                f"({', '.join(changed)}): restore it to continue this run, or name another "
                "--workdir to start a new one."
            )


def require_run(path: pathlib.Path) -> None:
    """Checks that a folder holds a run, begun at least.

    Raises:
      UserError: where it does not.
    """
    if not (path / CONFIG).exists():
        raise UserError(f"There is no run in {path} yet: leave --stages out to begin it.")


@contextlib.contextmanager
def open_workdir(path: pathlib.Path, config: ConfigDict) -> Iterator[Workdir]:
    """Opens the folder of a run, creating it where needed, and holds its lock meanwhile.

    Raises:
      UserError: where the folder cannot be written, belongs to another run, or is in use.
    """
    if not parallel.is_primary():
        parallel.barrier("workdir opened")
        yield Workdir(path)
        return
    require_usable(path, config)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / _LOCK).open("a+")
    except OSError as error:
        raise _not_writable(path, error) from error
    with lock:
        try:
            # The kernel lets go of it when this process ends, however it ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            raise UserError(
                f"The workdir {path} is in use by {owner}: wait for it, or name another."
            ) from error
        lock.truncate(0)  # what stands in it is for that message alone
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        require_usable(path, config)
        try:
            workdir = Workdir(path)
            before = workdir.config()
            changed = resume.differences(before, configuration.flatten(config))
            if not before or changed:
                write_atomic(path / CONFIG, configuration.to_json(config))
            for change in changed if before else ():
                workdir.write_event(f"config: {change.name} {change.before!r} -> {change.now!r}")
        except OSError as error:
            raise _not_writable(path, error) from error
        parallel.barrier("workdir opened")
        try:
            yield workdir
        finally:
            workdir.close()


def _save_picture(path: pathlib.Path, picture: np.ndarray) -> None:
    Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(path)


def _changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Returns what of a nested mapping is other than before; None for what is gone."""
    changed: dict[str, Any] = {}
    for name in before | now:
        a, b = before.get(name), now.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            inner = _changes(a, b)
            changed |= {name: inner} if inner else {}
        elif a != b:
            changed[name] = b
    return changed


def _merged(before: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Returns a nested mapping with changes made to it."""
    merged = dict(before)
    for name, value in change.items():
        nested = isinstance(merged.get(name), dict) and isinstance(value, dict)
        merged[name] = _merged(merged[name], value) if nested else value
    return merged


def _counts(facts: dict[str, Any]) -> str:
    return f"{facts['train']} to train on and {facts['held_out']} held out"


def _not_writable(path: pathlib.Path, error: OSError) -> UserError:
    return UserError(
        f"The workdir {path} cannot be written ({error.strerror}): name another with --workdir."
    )
