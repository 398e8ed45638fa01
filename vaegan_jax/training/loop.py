"""The training loop that both stages share: many steps per call, then log, draw, measure, save."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from vaegan_jax import randomness
from vaegan_jax.checkpoints import Checkpoints, Progress
from vaegan_jax.data import preprocessing
from vaegan_jax.data.feed import Batches, ImageArray, Served, make_feed
from vaegan_jax.errors import Stopped, UserError
from vaegan_jax.runtime import memory, parallel, profiling
from vaegan_jax.runtime.signals import StopRequest
from vaegan_jax.training import monitor
from vaegan_jax.workdir import Workdir


class StageState(Protocol):
    """The attribute that the loop needs of a stage's state."""

    @property
    def step(self) -> jax.Array:
        """int32 scalar, steps taken."""


State = TypeVar("State", bound=StageState)
Scalars = dict[str, jax.Array]
Step = Callable[[State, jax.Array, jax.Array], tuple[State, Scalars]]


@dataclasses.dataclass(frozen=True)
class Stage(Generic[State]):
    """The functions and sizes that the loop needs of a stage.

    Attributes:
      number: its number in the derivation of keys; its name in lower case names its files.
      steps: total number of steps.
      batch_size: images per step.
      template: the state as `jax.ShapeDtypeStruct`, to restore a checkpoint into.
      init: () -> the initial state; called only where no checkpoint exists.
      step: (state, images in [-1, 1], key) -> (state, scalars).
      pictures: state -> pictures by name, uint8 [H, W, C].
      shown: names of the scalars on the progress line.
      measure: state -> distances to real images by name, computed every
        ``evaluation.curve_every`` steps; None for no curve.
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
        """The name in files and messages."""
        return self.number.name.lower()


class Block(NamedTuple):
    """The images of the next steps, and the seed, as arrays on the devices.

    Attributes:
      images: uint8 [N, H, W, C].
      places: int32 [max_steps, B], the rows of `images` that form each step's batch.
      indices: int32 [max_steps, B], the images' indices in the data set, which key random flips.
      steps: int32 scalar, the number of steps to take, at most max_steps.
      seed: uint32 scalar.
    """

    images: jax.Array
    places: jax.Array
    indices: jax.Array
    steps: jax.Array
    seed: jax.Array


class NotFiniteError(Exception):
    """A scalar or a parameter is not finite.

    Attributes:
      name: of the number.
      step: of the stage.
    """

    def __init__(self, name: str, step: int) -> None:
        super().__init__(f"{name} at step {step}")
        self.name, self.step = name, step


def train(
    stage: Stage[State],
    images: ImageArray,
    config: ConfigDict,
    workdir: Workdir,
    stop: StopRequest,
    profile: bool = False,
) -> bool:
    """Trains a stage from its newest checkpoint to its last step.

    Args:
      stage: the stage.
      images: uint8 [N, H, W, C], N at least the batch size.
      config: the run's config.
      workdir: receives metrics, pictures and checkpoints.
      stop: read after every call.
      profile: whether to write a trace of some steps to the workdir.

    Returns:
      Whether any step was left to take.

    Raises:
      Stopped: after saving, when a signal asked for it.
      UserError: for a checkpoint that does not fit or cannot be written, and for a number that is
        not finite, which it names together with the step.
    """
    directory = workdir.checkpoints(stage.name)
    checkpoints = Checkpoints(directory, config.training.max_checkpoints)
    with contextlib.closing(checkpoints):
        saved = _newest_checkpoint(checkpoints, stage, workdir)
        if saved == stage.steps:
            return False
        try:
            _train(stage, images, config, workdir, checkpoints, saved, stop, profile)
        except NotFiniteError as error:
            checkpoints.finish()
            workdir.write_trouble(
                stage.name, error.step, monitor.not_finite(error.name, error.step, stage.name)
            )
            raise _not_finite(stage, error, checkpoints.latest()) from error
    return True


def _train(
    stage: Stage[State],
    images: ImageArray,
    config: ConfigDict,
    workdir: Workdir,
    checkpoints: Checkpoints,
    step: int,
    stop: StopRequest,
    profile: bool,
) -> None:
    """Takes the steps from a saved one to the last, or to the one at which a signal stops it."""
    every = config.training
    curve_every = config.evaluation.curve_every if stage.measure else 0
    mesh = parallel.make_mesh()
    state, progress = _restore_or_init(stage, checkpoints, workdir, step, parallel.replicated(mesh))
    batches = Batches(config.seed, stage.number, stage.batch_size, len(images))
    limit_mb, workers = config.data.max_resident_mb, config.data.workers
    feed = make_feed(images, batches, step, every.log_every, limit_mb, workers, mesh)
    call = make_call(stage, every.log_every, config.data.flip, mesh)
    if profile:
        call = profiling.traced(call, workdir.path / "profile" / stage.name)
    allowed = 1  # the first call also compiles, so its duration says little about the speed
    stopping = 0
    with contextlib.closing(Log(stage, config, workdir, step, progress)) as log:
        while step < stage.steps and not stopping:
            allowed = parallel.broadcast_from_primary([allowed])[0]
            until_due = _steps_to_next(step, stage.steps, every, curve_every)
            served = feed.serve(step, min(allowed, until_due))
            began = time.perf_counter()
            with jax.transfer_guard("disallow"):
                state, scalars = call(state, _block(served, every.log_every, config.seed, mesh))
                feed.prefetch()
                rows = {
                    name: values[: served.steps] for name, values in jax.device_get(scalars).items()
                }
            seconds = time.perf_counter() - began
            allowed = max(1, int(every.seconds_per_call * served.steps / seconds))
            if bad := first_not_finite(rows):
                raise NotFiniteError(bad[1], step + bad[0] + 1)
            step += served.steps
            stopping = parallel.any_process(stop.signal or 0)
            last = step == stage.steps
            log.add(rows)
            if last or step % every.log_every == 0:
                log.write(step)
            if last or step % every.picture_every == 0:
                _draw(stage, parallel.local(state), workdir, step)
            if stage.measure and curve_every and (last or step % curve_every == 0):
                with log.paused():
                    measured = stage.measure(parallel.local(state))
                workdir.write_curve(stage.name, step, log.cost(step) | measured)
            if last or step % every.checkpoint_every == 0 or stopping:
                if not all_finite(state):
                    raise NotFiniteError("a parameter", step)
                checkpoints.save(step, state, log.progress())
    checkpoints.finish()
    ending = "finished" if step == stage.steps else f"stopped by signal {stopping}"
    workdir.write_event(f"{stage.name}: {ending} at step {step}")
    if step < stage.steps:
        raise Stopped(
            f"Stopped and saved at step {step} of {stage.steps} ({stage.name}): run the same "
            "command again to continue.",
            128 + stopping,
        )


def _newest_checkpoint(checkpoints: Checkpoints, stage: Stage[Any], workdir: Workdir) -> int:
    """Returns the step of the newest sound checkpoint, or 0; reports those that are damaged."""
    step = checkpoints.latest()
    if step is None and workdir.finished(stage.name):
        raise UserError(
            f"The {stage.name} stage of this run was finished, and its checkpoints are gone: put "
            f"{workdir.checkpoints(stage.name)} back, or name another --workdir to train again."
        )
    for warning in checkpoints.warnings:
        sys.stderr.write(f"Warning: {warning}\n")
        workdir.write_event(f"{stage.name}: {warning}")
    return step or 0


def _restore_or_init(
    stage: Stage[State],
    checkpoints: Checkpoints,
    workdir: Workdir,
    step: int,
    sharding: jax.sharding.NamedSharding,
) -> tuple[State, Progress | None]:
    """Returns the state at a saved step, or the initial state at step 0, and the log's progress."""
    progress = None
    if step == 0:
        state = parallel.put_state(stage.init(), sharding)
    else:
        state, progress = checkpoints.restore(step, stage.template, sharding)
    workdir.rewind(stage.name, step)
    workdir.write_event(f"{stage.name}: {'began' if step == 0 else f'resumed from step {step}'}")
    if step == 0:
        _draw(stage, parallel.local(state), workdir, step)
    return state, progress


def _block(served: Served, max_steps: int, seed: int, mesh: jax.sharding.Mesh) -> Block:
    """Puts a call's arguments on the devices, padded to the shapes that every call has."""
    padding = [(0, max_steps - served.steps), (0, 0)]
    whole = parallel.replicated(mesh)
    return Block(
        served.images,
        places=parallel.put(np.pad(served.places, padding), whole),
        indices=parallel.put(np.pad(served.indices, padding), whole),
        steps=parallel.put(np.asarray(served.steps, np.int32), whole),
        seed=parallel.put(np.asarray(seed, np.uint32), whole),
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
            total=stage.steps,
            initial=step,
            desc=stage.name,
            unit=" steps",
            disable=None if parallel.is_primary() else True,
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
    stage: Stage[State],
    max_steps: int,
    flip: bool = False,
    mesh: jax.sharding.Mesh | None = None,
) -> Callable[[State, Block], tuple[State, Scalars]]:
    """Returns the jitted ``call(state, block) -> (state, rows)``, which takes many steps.

    The state is donated. Each scalar is returned as float32 [max_steps], of which the first
    ``block.steps`` are set. Number of steps and seed are arguments of one compiled program, so
    the length of a call cannot change a bit of its result, and all seeds share the program.

    Over the devices of a mesh every batch is split; state and scalars are replicated.

    Args:
      stage: the stage.
      max_steps: the largest number of steps in one call.
      flip: whether to mirror images at random.
      mesh: the devices; all of them by default.
    """
    mesh = mesh or parallel.make_mesh()

    def take_step(state: State, block: Block, i: jax.Array | int) -> tuple[State, Scalars]:
        key = randomness.step_key(block.seed, stage.number, state.step)
        batch = block.images[parallel.shard_batch(block.places[i])]
        if flip:
            flip_key = randomness.draw_key(key, randomness.Purpose.FLIP)
            batch = preprocessing.random_flip(batch, block.indices[i], flip_key)
        return stage.step(state, preprocessing.to_network(batch), key)

    def steps(state: State, block: Block) -> tuple[State, Scalars]:
        _, scalars = jax.eval_shape(take_step, state, block, 0)
        rows = {name: jnp.zeros((max_steps,), jnp.float32) for name in scalars}

        def body(i: jax.Array, carry: tuple[State, Scalars]) -> tuple[State, Scalars]:
            state, rows = carry
            state, scalars = take_step(state, block, i)
            return state, {name: rows[name].at[i].set(scalars[name]) for name in rows}

        result: tuple[State, Scalars] = jax.lax.fori_loop(0, block.steps, body, (state, rows))
        return result

    compiled = memory.checked(
        jax.jit(steps, donate_argnums=0, out_shardings=parallel.replicated(mesh)), stage.name
    )

    def call(state: State, block: Block) -> tuple[State, Scalars]:
        with jax.set_mesh(mesh) if mesh.size > 1 else contextlib.nullcontext():
            result: tuple[State, Scalars] = compiled(state, block)
        return result

    return call


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
    """Whether every number of a state is finite."""
    # On the host, where nothing has to be compiled for it.
    return all(bool(np.isfinite(leaf).all()) for leaf in jax.device_get(jax.tree.leaves(state)))


def _draw(stage: Stage[State], state: State, workdir: Workdir, step: int) -> None:
    for name, picture in stage.pictures(state).items():
        workdir.write_picture(stage.name, name, step, picture)


def _steps_to_next(step: int, last: int, every: ConfigDict, curve_every: int) -> int:
    intervals = (every.log_every, every.picture_every, every.checkpoint_every, curve_every or last)
    return min(last - step, *(interval - step % interval for interval in intervals))


def _not_finite(stage: Stage[Any], error: NotFiniteError, saved: int | None) -> UserError:
    kept = f"the checkpoint of step {saved} is kept" if saved else "no checkpoint was saved before"
    return UserError(
        f"The {stage.name} stage stopped at step {error.step}: {error.name} is not finite; {kept}. "
        f"Lower the learning rates in config.{stage.name} and train in another --workdir."
    )
