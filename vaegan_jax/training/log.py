"""The progress lines and the metrics of a stage."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vaegan_jax.checkpoints import Progress
from vaegan_jax.training import monitor
from vaegan_jax.training.stage import RunWriter, Stage


class Log:
    """Writes the means of a stage's scalars since the previous line, and detects troubles.

    The running sums are saved with every checkpoint, so that a resumed run writes the same lines
    as an uninterrupted one.
    """

    def __init__(
        self,
        stage: Stage[Any],
        config: ConfigDict,
        workdir: RunWriter,
        step: int,
        progress: Progress | None = None,
    ) -> None:
        """Starts at a step, with the `progress` that was saved with it."""
        progress = progress or {"seconds": 0.0, "count": 0, "sums": {}}
        self._stage, self._config, self._workdir = stage, config, workdir
        self._lines = workdir.metrics(stage.name)
        self._count: int = progress["count"]
        self._sums: dict[str, float] = dict(progress["sums"])
        self._began: float = time.perf_counter() - progress["seconds"]
        self._written = (step, progress["seconds"])

    def add(self, rows: dict[str, np.ndarray]) -> None:
        """Adds scalars, float32 [steps] each, in the order of the steps."""
        for name, values in rows.items():
            for value in values.tolist():
                self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += len(next(iter(rows.values())))

    def write(self, step: int) -> None:
        """Writes and prints a line of means and speeds, and resets the sums."""
        stage = self._stage.name
        cost = self.cost(step)
        before, seconds_before = self._written
        speed = (step - before) / (cost["seconds"] - seconds_before)
        speeds = {"steps_per_second": speed, "images_per_second": speed * self._stage.batch_size}
        means = {name: total / self._count for name, total in self._sums.items()}
        self._workdir.write_metrics(stage, step, cost | speeds | means)
        self._lines.append({"step": step} | means)
        self._count, self._sums, self._written = 0, {}, (step, cost["seconds"])

        troubles = monitor.detect(stage, self._lines, self._config)
        shown = [f"{name} {means[name]:.3g}" for name in self._stage.shown]
        shown += [f"trouble {trouble.name}" for trouble in troubles]
        shown += [f"images/s {speeds['images_per_second']:.0f}", f"{speed:.2f} steps/s"]
        left = f"{(self._stage.steps - step) / speed:.0f} s left"
        print(f"{stage} {step}/{self._stage.steps}: {', '.join(shown)}, {left}", flush=True)
        for trouble in troubles:
            if self._workdir.write_trouble(stage, step, trouble):
                print(f"{stage}, step {step}: {trouble.sentence}", flush=True)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time spent inside the context from the recorded seconds."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def cost(self, step: int) -> dict[str, float]:
        """Returns the cost of training so far: `seconds` and `images`."""
        return {"seconds": self._seconds(), "images": step * self._stage.batch_size}

    def progress(self) -> Progress:
        """Returns the running sums, to be saved with a checkpoint."""
        return {"seconds": self._seconds(), "count": self._count, "sums": self._sums}

    def _seconds(self) -> float:
        return time.perf_counter() - self._began
