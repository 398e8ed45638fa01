"""The one loop that both stages share: many steps a call, then log, draw, evaluate, save."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from vaegan_jax import monitor, profiling, randomness
from vaegan_jax.checkpoints import Checkpoints, Progress
from vaegan_jax.data import preprocessing
from vaegan_jax.data.feed import Batches, ImageArray, make_feed
from vaegan_jax.errors import Stopped, UserError
from vaegan_jax.signals import StopRequest
from vaegan_jax.workdir import Workdir


class StageState(Protocol):
    """What the loop asks of a stage's state."""

    @property
    def step(self) -> jax.Array:
        """int32 scalar, steps taken."""

    @property
    def attempt(self) -> jax.Array:
        """int32 scalar, 0 unless rolled back."""

    def replace(self, **changes: Any) -> Self:
        """Returns the state with other fields."""


State = TypeVar("State", bound=StageState)
Scalars = dict[str, jax.Array]
Step = Callable[[State, jax.Array, jax.Array], tuple[State, Scalars]]


@dataclasses.dataclass(frozen=True)
class Stage(Generic[State]):
    """What the loop needs to know of a stage.

    Attributes:
      number: its number in the derivation of keys; its name names its files.
      steps: how many it takes in all.
      batch_size: images a step.
      template: its state as `jax.ShapeDtypeStruct`, to restore a checkpoint into.
      init: () -> its first state; called only where nothing is saved.
      step: (state, images in [-1, 1], key) -> (state, scalars).
      pictures: state -> pictures by name, uint8 [H, W, C].
      shown: the scalars that the progress line shows.
      measure: state -> distances to real images by name, taken every
        ``evaluation.curve_every`` steps; None for no such curve.
    """

    number: randomness.Stage
    steps: int
    batch_size: int
    template: State
    init: Callable[[], State]
    step: Step[State]
    pictures: Callable[[State], dict[str, np.ndarray]]
    shown: tuple[str, ...]
    measure: Callable[[State], dict[str, float]] | None = None

    @property
    def name(self) -> str:
        """Its name in files and messages."""
        return self.number.name.lower()


def train(
    stage: Stage[State],
    images: ImageArray,
    config: ConfigDict,
    workdir: Workdir,
    stop: StopRequest,
    profile: bool = False,
) -> bool:
    """Trains a stage from where it stands to its last step.

    Args:
      stage: what to train.
      images: uint8 [N, H, W, C], N no less than a batch.
      config: the run's config.
      workdir: where metrics, pictures and checkpoints go.
      stop: asked after every call.
      profile: whether to leave a trace of some steps in the workdir.

    Returns:
      Whether there was anything left to do.

    Raises:
      Stopped: after saving, where a signal asked for it.
      UserError: for a checkpoint that does not fit or cannot be written, and for a number that is
        not finite, naming it and the step, unless ``training.on_nonfinite`` has it rolled back.
    """
    every = config.training
    checkpoints = Checkpoints(workdir.checkpoints(stage.name), every.keep_checkpoints)
    call = make_call(stage, config.seed, every.log_every, config.data.flip)
    if profile:
        call = profiling.traced(call, workdir.path / "profile" / stage.name)
    attempt = 0
    try:
        if checkpoints.latest() == stage.steps:
            return False
        while True:
            try:
                _train(stage, images, config, workdir, checkpoints, stop, call, attempt)
                return True
            except NotFiniteError as bad:
                checkpoints.finish()
                saved = checkpoints.latest()
                trouble = monitor.not_finite(bad.what, bad.step, stage.name)
                workdir.write_trouble(stage.name, bad.step, trouble)
                if every.on_nonfinite == "stop" or bad.attempt >= every.most_rollbacks:
                    raise _not_finite(stage, config, bad, saved) from None
                attempt = bad.attempt + 1
                print(
                    f"{stage.name}: {trouble.text} Going back to step {saved or 0} with learning "
                    f"rates of {every.rollback_rate**attempt:.3g} of the config's "
                    f"(rollback {attempt} of {every.most_rollbacks}).",
                    flush=True,
                )
                workdir.write_event(f"{stage.name}: rolled back to step {saved or 0}")
    finally:
        checkpoints.close()


class NotFiniteError(Exception):
    """A number that is not finite.

    Attributes:
      what: the number's name.
      step: of the stage.
      attempt: how often the stage had been rolled back by then.
    """

    def __init__(self, what: str, step: int, attempt: int) -> None:
        super().__init__(f"{what} at step {step}")
        self.what, self.step, self.attempt = what, step, attempt


def _train(
    stage: Stage[State],
    images: ImageArray,
    config: ConfigDict,
    workdir: Workdir,
    checkpoints: Checkpoints,
    stop: StopRequest,
    call: Callable[..., tuple[State, Scalars]],
    attempt: int,
) -> None:
    """Goes on from the last checkpoint, at this attempt or, where that was later, at its own."""
    every = config.training
    curve_every = config.evaluation.curve_every if stage.measure else 0
    step, progress = checkpoints.latest(), None
    for warning in checkpoints.warnings:
        sys.stderr.write(f"Warning: {warning}\n")
        workdir.write_event(f"{stage.name}: {warning}")
    checkpoints.warnings.clear()
    if step is None:
        step, state = 0, stage.init()
    else:
        state, progress = checkpoints.restore(step, stage.template)
    attempt = max(attempt, int(state.attempt))
    state = state.replace(attempt=jnp.full_like(state.attempt, attempt))
    workdir.rewind(stage.name, step)
    workdir.write_event(f"{stage.name}: {'began' if step == 0 else f'went on from step {step}'}")
    if step == 0:
        _draw(stage, state, workdir, step)

    log = Log(stage, config, workdir, step, progress)
    batches = Batches(config.seed, stage.number, stage.batch_size, len(images))
    limit_mb, workers = config.data.resident_limit_mb, config.data.workers
    feed = make_feed(images, batches, step, every.log_every, limit_mb, workers)
    stopping: int | None = None
    allowed = 1  # the first call also compiles, so it says little about the speed
    while step < stage.steps:
        served = feed.serve(
            step, min(allowed, _steps_to_next(step, stage.steps, every, curve_every))
        )
        count = len(served.indices)
        began = time.perf_counter()
        with jax.transfer_guard("disallow"):
            which = (
                _padded(served.places, every.log_every),
                _padded(served.indices, every.log_every),
                np.int32(count),
            )
            state, scalars = call(state, served.images, *jax.device_put(which))
            feed.prefetch()
            rows = {name: row[:count] for name, row in jax.device_get(scalars).items()}
        allowed = max(1, int(every.seconds_per_call * count / (time.perf_counter() - began)))

        bad = first_not_finite(rows)
        if bad is not None:
            log.close()
            raise NotFiniteError(bad[1], step + bad[0] + 1, attempt)
        step += count
        log.add(rows)
        last, stopping = step == stage.steps, stop.signal
        if last or step % every.log_every == 0:
            log.write(step)
        if last or step % every.picture_every == 0:
            _draw(stage, state, workdir, step)
        if stage.measure and curve_every and (last or step % curve_every == 0):
            with log.paused():
                found = stage.measure(state)
            workdir.write_curve(stage.name, step, log.cost(step) | found)
        if last or step % every.checkpoint_every == 0 or stopping:
            if not all_finite(state):
                log.close()
                raise NotFiniteError("a parameter", step, attempt)
            checkpoints.save(step, state, log.progress())
        if stopping and not last:
            break
    log.close()
    checkpoints.finish()
    workdir.write_event(
        f"{stage.name}: {'finished' if last else f'stopped by signal {stopping}'} at step {step}"
    )
    if stopping and step < stage.steps:
        raise Stopped(
            f"Stopped and saved at step {step} of {stage.steps} ({stage.name}): run the same "
            "command again to go on.",
            128 + stopping,
        )


class Log:
    """The progress line and the metrics of a stage: means over the steps since the last line.

    What it has summed up travels with every checkpoint, so that a resumed run writes the same
    lines as one that was never stopped.
    """

    def __init__(
        self,
        stage: Stage[Any],
        config: ConfigDict,
        workdir: Workdir,
        step: int,
        progress: Progress | None = None,
    ) -> None:
        """Begins at a step, with what `progress` returned when that step was saved."""
        progress = progress or {"seconds": 0.0, "count": 0, "sums": {}}
        self._stage, self._config, self._workdir = stage, config, workdir
        self._lines = workdir.metrics(stage.name)
        self._count: int = progress["count"]
        self._sums: dict[str, float] = dict(progress["sums"])
        self._began: float = time.perf_counter() - progress["seconds"]
        self._written = (step, progress["seconds"])
        self._bar = tqdm(
            total=stage.steps, initial=step, desc=stage.name, unit=" steps", disable=None
        )

    def add(self, rows: dict[str, np.ndarray]) -> None:
        """Adds scalars, float32 [steps] each, in the order of the steps."""
        for name, values in rows.items():
            for value in values.tolist():
                self._sums[name] = self._sums.get(name, 0.0) + value
        steps = len(next(iter(rows.values())))
        self._count += steps
        self._bar.update(steps)

    def write(self, step: int) -> None:
        """Writes a line of means and rates, and begins the next."""
        cost = self.cost(step)
        seconds = cost["seconds"]
        before, seconds_before = self._written
        rate = (step - before) / (seconds - seconds_before)
        batch_size = self._stage.batch_size
        rates = cost | {
            "steps_per_second": rate,
            "images_per_second": rate * batch_size,
        }
        means = {name: total / self._count for name, total in self._sums.items()}
        self._workdir.write_metrics(self._stage.name, step, rates | means)
        self._lines.append({"step": step} | means)
        self._count, self._sums, self._written = 0, {}, (step, seconds)

        troubles = monitor.look(self._stage.name, self._lines, self._config)
        shown = {name: f"{means[name]:.3g}" for name in self._stage.shown}
        shown["images/s"] = f"{rate * batch_size:.0f}"
        if troubles:
            shown["trouble"] = "+".join(trouble.name for trouble in troubles)
        self._bar.set_postfix(shown)
        if self._bar.disable:  # no terminal: a line instead of a bar
            numbers = ", ".join(f"{name} {value}" for name, value in shown.items())
            left = (self._stage.steps - step) / rate
            print(
                f"{self._stage.name} {step}/{self._stage.steps}: {numbers}, {rate:.2f} steps/s, "
                f"{left:.0f} s left",
                flush=True,
            )
        for trouble in troubles:
            if self._workdir.write_trouble(self._stage.name, step, trouble):
                self._bar.write(f"{self._stage.name}, step {step}: {trouble.sentence}")

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out what happens meanwhile of the seconds, so that these are of training alone."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def cost(self, step: int) -> dict[str, float]:
        """Returns what it took to come so far: `seconds`, and `images` seen."""
        return {"seconds": self._seconds(), "images": step * self._stage.batch_size}

    def progress(self) -> Progress:
        """Returns what has been summed up, to be saved with a checkpoint."""
        # A copy: it is written in the background, while further steps are added up.
        return {"seconds": self._seconds(), "count": self._count, "sums": dict(self._sums)}

    def close(self) -> None:
        """Leaves the progress line as it is."""
        self._bar.close()

    def _seconds(self) -> float:
        return time.perf_counter() - self._began


def make_call(
    stage: Stage[State], seed: int, most: int, flip: bool = False
) -> Callable[..., tuple[State, Scalars]]:
    """Returns the jitted ``call(state, images, places, indices, count) -> (state, rows)``.

    It takes `count` <= `most` steps over batches gathered on the device from the uint8 images
    [N, H, W, C] by `places`, int32 [most, B]; `indices`, of the same shape, are those of the
    images in the data set, by which random flips are keyed where `flip` asks for them. Each
    scalar is returned as float32 [most], of which the first `count` are set. The state is
    donated. The number of steps is an argument of one compiled program, so the length of a call
    cannot change a bit of its result.
    """

    def take_step(
        state: State, images: jax.Array, places: jax.Array, indices: jax.Array
    ) -> tuple[State, Scalars]:
        key = randomness.step_key(seed, stage.number, state.attempt, state.step)
        batch = images[places]
        if flip:
            flip_key = randomness.draw_key(key, randomness.Purpose.FLIP)
            batch = preprocessing.random_flip(batch, indices, flip_key)
        return stage.step(state, preprocessing.to_network(batch), key)

    def call(
        state: State,
        images: jax.Array,
        places: jax.Array,
        indices: jax.Array,
        count: jax.Array,
    ) -> tuple[State, Scalars]:
        _, scalars = jax.eval_shape(take_step, state, images, places[0], indices[0])
        rows = {name: jnp.zeros((most,), jnp.float32) for name in scalars}

        def body(i: jax.Array, carry: tuple[State, Scalars]) -> tuple[State, Scalars]:
            state, rows = carry
            state, scalars = take_step(state, images, places[i], indices[i])
            return state, {name: rows[name].at[i].set(scalars[name]) for name in rows}

        result: tuple[State, Scalars] = jax.lax.fori_loop(0, count, body, (state, rows))
        return result

    return jax.jit(call, donate_argnums=0)


def first_not_finite(rows: dict[str, np.ndarray]) -> tuple[int, str] | None:
    """Returns the first row that holds a number that is not finite, and the names of all such.

    Args:
      rows: float32 [steps] by name.

    Returns:
      For example ``(3, "kl and loss")``, or None.
    """
    finite = np.stack([np.isfinite(values) for values in rows.values()])
    if finite.all():
        return None
    row = int(np.argmin(finite.all(axis=0)))
    return row, " and ".join(
        name for name, fine in zip(rows, finite[:, row], strict=True) if not fine
    )


def all_finite(state: Any) -> bool:
    """Whether every float of a state is finite."""
    return bool(jax.device_get(_all_finite(state)))


@jax.jit
def _all_finite(state: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state)]))


def _padded(rows: np.ndarray, most: int) -> np.ndarray:
    """Returns rows followed by zeros, so that every call has one shape: [n, B] -> [most, B]."""
    return np.concatenate([rows, np.zeros((most - len(rows), rows.shape[1]), rows.dtype)])


def _draw(stage: Stage[State], state: State, workdir: Workdir, step: int) -> None:
    for name, picture in stage.pictures(state).items():
        workdir.write_picture(stage.name, name, step, picture)


def _steps_to_next(step: int, last: int, every: ConfigDict, curve_every: int) -> int:
    intervals = (every.log_every, every.picture_every, every.checkpoint_every, curve_every or last)
    return min(last - step, *(interval - step % interval for interval in intervals))


def _not_finite(
    stage: Stage[Any], config: ConfigDict, bad: NotFiniteError, saved: int | None
) -> UserError:
    kept = (
        "no checkpoint was saved before"
        if saved is None
        else f"the checkpoint of step {saved} is kept"
    )
    tried = f" after {bad.attempt} rollbacks" if bad.attempt else ""
    return UserError(
        f"The {stage.name} stage stopped at step {bad.step}{tried}: {bad.what} is not finite; "
        f"{kept}. Try lower learning rates in config.{stage.name}, in another --workdir."
    )
