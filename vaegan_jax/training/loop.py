"""The training loop of both stages: many steps per call, then log, draw, measure, save."""

import contextlib
import functools
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vaegan_jax import randomness
from vaegan_jax.checkpoints import Checkpoints, Progress
from vaegan_jax.data import preprocessing
from vaegan_jax.data.feed import Batches, ImageArray, make_feed
from vaegan_jax.errors import Stopped, UserError
from vaegan_jax.runtime import memory, parallel, profiling
from vaegan_jax.runtime.signals import StopRequest
from vaegan_jax.training import monitor
from vaegan_jax.training.log import Log
from vaegan_jax.training.stage import RunWriter, Scalars, State
from vaegan_jax.training.stage import Stage as Stage


class Rows(flax.struct.PyTreeNode):
    """What the host reads of a call, in few arrays, since each is copied separately.

    Attributes:
      values: float32 [max_steps, n], the scalars of one step per row; the first ``Block.steps``
        rows are set.
      is_state_finite: bool scalar, whether the state after the last step is finite.
      names: of the n scalars.
    """

    values: jax.Array
    is_state_finite: jax.Array
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)

    def by_name(self, steps: int) -> dict[str, np.ndarray]:
        """Returns the scalars of the first steps, float32 [steps] each."""
        return dict(zip(self.names, np.asarray(self.values)[:steps].T, strict=True))


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


def train(
    stage: Stage[State],
    images: ImageArray,
    config: ConfigDict,
    workdir: RunWriter,
    profile: bool = False,
) -> None:
    """Trains an unfinished stage from its latest checkpoint to its last step.

    Args:
      stage: the stage.
      images: uint8 [N, H, W, C], N at least the batch size.
      config: the run's config.
      workdir: receives metrics, pictures and checkpoints.
      profile: whether to write a trace of some steps to the workdir.

    Raises:
      Stopped: after saving, if Ctrl-C or SIGTERM came during training.
      UserError: if a checkpoint does not fit or cannot be written, or if a value is not finite.
    """
    every = config.training
    checkpoints = Checkpoints(workdir.checkpoints(stage.name), every.max_checkpoints)
    step = _latest_step(stage, checkpoints, workdir)
    state, progress = _restore_or_init(stage, checkpoints, workdir, step)
    trace = workdir.path / "profile" / stage.name if profile else None
    take_steps = _make_take_steps(stage, images, config, step, trace)
    log = Log(stage, config, workdir, step, progress)
    if step == 0 and stage.measures_start:
        _measure(stage, state, workdir, log, step)
    with StopRequest() as stop:
        signal = 0
        while step < stage.steps and not signal:
            state, scalars, is_finite = take_steps(state, step, _next_due(stage, config, step))
            if bad := first_not_finite(scalars):
                raise _not_finite(stage, checkpoints, workdir, bad[1], step + bad[0] + 1)
            step += len(next(iter(scalars.values())))
            signal = parallel.any_process(stop.signal or 0)
            log.add(scalars)
            if _is_due(stage, step, every.log_every):
                log.write(step)
            if _is_due(stage, step, every.picture_every):
                _draw(stage, state, workdir, step)
            if _is_due(stage, step, config.evaluation.curve_every):
                _measure(stage, state, workdir, log, step)
            if _is_due(stage, step, every.checkpoint_every) or signal:
                if not is_finite:
                    raise _not_finite(stage, checkpoints, workdir, "a parameter", step)
                checkpoints.save(step, state, log.progress())
        signal = signal or parallel.any_process(stop.signal or 0)
    if step == stage.steps:
        workdir.write_event(f"{stage.name}: finished at step {step}")
    if signal:
        raise _stopped(stage, workdir, signal, step)


def _latest_step(stage: Stage[Any], checkpoints: Checkpoints, workdir: RunWriter) -> int:
    """Returns the step of the latest undamaged checkpoint, or 0; reports the damaged ones."""
    step = checkpoints.latest()
    if step is None and workdir.finished(stage.name):
        raise UserError(
            f"The {stage.name} stage of this run was finished, but its checkpoints are gone: "
            f"restore {workdir.checkpoints(stage.name)}, or name another --workdir to train again."
        )
    for warning in checkpoints.warnings:
        sys.stderr.write(f"Warning: {warning}\n")
        workdir.write_event(f"{stage.name}: {warning}")
    return step or 0


def _restore_or_init(
    stage: Stage[State], checkpoints: Checkpoints, workdir: RunWriter, step: int
) -> tuple[State, Progress | None]:
    """Returns the state at a saved step, or the initial state at step 0, and the log's progress."""
    if step > 0:
        sharding = parallel.replicated(parallel.make_mesh())
        state, progress = checkpoints.restore(step, stage.template, sharding)
        workdir.rewind(stage.name, step)
        workdir.write_event(f"{stage.name}: resumed from step {step}")
        return state, progress
    state = parallel.put_state(stage.init())
    workdir.rewind(stage.name, step)
    workdir.write_event(f"{stage.name}: began")
    _draw(stage, state, workdir, step)
    return state, None


def _make_take_steps(
    stage: Stage[State],
    images: ImageArray,
    config: ConfigDict,
    first: int,
    trace: pathlib.Path | None,
) -> Callable[[State, int, int], tuple[State, dict[str, np.ndarray], bool]]:
    """Returns ``take_steps(state, step, limit)``, which starts at step `first`.

    It returns the new state, the scalars by name, float32 [steps] each, and whether the state is
    finite. Each call takes at least one step and at most `limit`, as many as fit into
    ``training.seconds_per_call``.
    """
    max_steps, data = config.training.log_every, config.data
    batches = Batches(config.seed, stage.number, stage.batch_size, len(images))
    feed = make_feed(images, batches, first, max_steps, data.max_resident_mb, data.workers)
    call = make_call(stage, max_steps, data.flip)
    if trace is not None:
        call = profiling.traced(call, trace)
    allowed = 1  # the first call also compiles, so its duration does not tell the speed

    def take_steps(
        state: State, step: int, limit: int
    ) -> tuple[State, dict[str, np.ndarray], bool]:
        nonlocal allowed
        allowed = parallel.broadcast_from_primary(allowed)
        served = feed.serve(step, min(allowed, limit))
        began = time.perf_counter()
        steps = len(served.places)
        padding = [(0, max_steps - steps), (0, 0)]  # every call has the same shapes
        arrays = (
            np.pad(served.places, padding),
            np.pad(served.indices, padding),
            np.asarray(steps, np.int32),
            np.asarray(config.seed, np.uint32),
        )
        with jax.transfer_guard("disallow"):
            state, rows = call(state, Block(served.images, *parallel.put(arrays)))
            feed.prefetch()
            fetched: Rows = jax.device_get(rows)
        steps_per_second = steps / (time.perf_counter() - began)
        allowed = max(1, int(config.training.seconds_per_call * steps_per_second))
        return state, fetched.by_name(steps), bool(fetched.is_state_finite)

    return take_steps


def make_call(
    stage: Stage[State], max_steps: int, flip: bool = False
) -> Callable[[State, Block], tuple[State, Rows]]:
    """Returns the jitted ``call(state, block) -> (state, rows)``, which takes many steps.

    The state is donated. The number of steps and the seed are arguments of one compiled program,
    so the length of a call does not change any bit of the result, and all seeds share the program.
    On several devices each batch is sharded; state and scalars are replicated. `flip` mirrors
    images at random.
    """
    mesh = parallel.make_mesh()
    compiled = memory.checked(
        _compile_steps(stage.step, stage.number, max_steps, flip, mesh), stage.name
    )

    def call(state: State, block: Block) -> tuple[State, Rows]:
        with jax.set_mesh(mesh) if mesh.size > 1 else contextlib.nullcontext():
            result: tuple[State, Rows] = compiled(state, block)
        return result

    return call


@functools.cache  # runs of several seeds share the program
def _compile_steps(
    step: Callable[..., Any],
    number: randomness.Stage,
    max_steps: int,
    flip: bool,
    mesh: jax.sharding.Mesh,
) -> Any:
    """Returns the jitted function of `make_call`."""

    def take_step(state: State, block: Block, i: jax.Array | int) -> tuple[State, Scalars]:
        key = randomness.step_key(block.seed, number, state.step)
        batch = block.images[parallel.shard_batch(block.places[i])]
        if flip:
            flip_key = randomness.draw_key(key, randomness.Purpose.FLIP)
            batch = preprocessing.random_flip(batch, block.indices[i], flip_key)
        result: tuple[State, Scalars] = step(state, preprocessing.to_network(batch), key)
        return result

    def steps(state: State, block: Block) -> tuple[State, Rows]:
        _, scalars = jax.eval_shape(take_step, state, block, 0)
        names = tuple(sorted(scalars))

        def body(i: jax.Array, carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
            state, values = carry
            state, scalars = take_step(state, block, i)
            row = jnp.stack([jnp.asarray(scalars[name], jnp.float32) for name in names])
            return state, values.at[i].set(row)

        values = jnp.zeros((max_steps, len(names)), jnp.float32)
        state, values = jax.lax.fori_loop(0, block.steps, body, (state, values))
        return state, Rows(values, _is_finite(state), names)

    return jax.jit(steps, donate_argnums=0, out_shardings=parallel.replicated(mesh))


def first_not_finite(scalars: dict[str, np.ndarray]) -> tuple[int, str] | None:
    """Returns the first step with values that are not finite, as ``(3, "kl and loss")``, or None.

    The scalars are float32 [steps] by name.
    """
    for row, values in enumerate(zip(*scalars.values(), strict=True)):
        names = [name for name, x in zip(scalars, values, strict=True) if not np.isfinite(x)]
        if names:
            return row, " and ".join(names)
    return None


def _is_finite(state: Any) -> jax.Array:
    """Returns whether all floating-point numbers of a tree are finite, a bool scalar."""
    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.asarray([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _not_finite(
    stage: Stage[Any], checkpoints: Checkpoints, workdir: RunWriter, name: str, step: int
) -> UserError:
    """Records that a value was not finite at a step, and returns the error that says so."""
    workdir.write_trouble(stage.name, step, monitor.not_finite(name, step, stage.name))
    saved = checkpoints.latest()
    kept = f"the checkpoint of step {saved} is kept" if saved else "no checkpoint was saved"
    return UserError(
        f"The {stage.name} stage stopped at step {step}: {name} is not finite; {kept}. Lower the "
        f"learning rates in config.{stage.name} and train in another --workdir."
    )


def _stopped(stage: Stage[Any], workdir: RunWriter, signal: int, step: int) -> Stopped:
    """Records that a signal stopped a stage, and returns the exception that says so."""
    workdir.write_event(f"{stage.name}: stopped by signal {signal} at step {step}")
    return Stopped(
        f"Stopped and saved at step {step} of {stage.steps} ({stage.name}): run the same command "
        "again to continue.",
        128 + signal,
    )


def _draw(stage: Stage[State], state: State, workdir: RunWriter, step: int) -> None:
    for name, picture in stage.pictures(parallel.local(state)).items():
        workdir.write_picture(stage.name, name, step, picture)


def _measure(stage: Stage[State], state: State, workdir: RunWriter, log: Log, step: int) -> None:
    """Measures distances for the curve, and saves the state where they are smallest."""
    if stage.measure is None:
        return
    cost = log.cost(step)
    with log.paused():
        workdir.write_curve(stage.name, step, cost | stage.measure(parallel.local(state)))
        smallest = parallel.broadcast_from_primary(workdir.smallest_distance(stage.name)[1] or 0)
        if stage.kept is not None and step == smallest > 0:
            best = Checkpoints(workdir.checkpoints("best"), keep=1)
            if step > (best.latest() or 0):  # else it was saved before resuming
                best.save(step, stage.kept(state), {})


def _is_due(stage: Stage[Any], step: int, interval: int) -> bool:
    """Returns whether a step is a multiple of an interval or the last one; False if it is 0."""
    return interval > 0 and (step == stage.steps or step % interval == 0)


def _next_due(stage: Stage[Any], config: ConfigDict, step: int) -> int:
    """Returns the number of steps until the next log line, picture, measurement or checkpoint."""
    every = config.training
    intervals: list[int] = [every.log_every, every.picture_every, every.checkpoint_every]
    if stage.measure and config.evaluation.curve_every:
        intervals.append(config.evaluation.curve_every)
    return min(stage.steps - step, *(interval - step % interval for interval in intervals))
