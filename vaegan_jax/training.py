"""The one loop that both stages share: many steps a call, then log, draw, evaluate, save."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from vaegan_jax import memory, monitor, parallel, profiling, randomness
from vaegan_jax.checkpoints import Checkpoints, Progress
from vaegan_jax.data import preprocessing
from vaegan_jax.data.feed import Batches, ImageArray, Served, make_feed
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


@dataclasses.dataclass(frozen=True)
class Run(Generic[State]):
    """One run's part in a training.

    Attributes:
      stage: what is trained.
      config: the run's config.
      workdir: where its metrics, pictures and checkpoints go.
      profile: whether to leave a trace of some steps in its folder.
    """

    stage: Stage[State]
    config: ConfigDict
    workdir: Workdir
    profile: bool = False


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
    worked, broken = train_together([Run(stage, config, workdir, profile)], images, stop)
    for error in broken.values():
        raise error
    return worked


def train_together(
    runs: Sequence[Run[State]], images: ImageArray, stop: StopRequest
) -> tuple[bool, dict[int, UserError]]:
    """Trains the same stage of runs that differ in their seeds, in one program.

    Each is trained as if it were alone, from where it stands: those that lie behind go first.

    Args:
      runs: one or more, with configs that are equal but for the seed.
      images: uint8 [N, H, W, C], N no less than a batch.
      stop: asked after every call.

    Returns:
      Whether there was anything left to do, and of the runs, by their position, that met a number
      which is not finite and were left out from then on, what to say of it.

    Raises:
      Stopped: after saving, where a signal asked for it.
      UserError: for a checkpoint that does not fit or cannot be written.
    """
    mesh = parallel.make_mesh()
    last = runs[0].stage.steps
    members = [_Member(run, position) for position, run in enumerate(runs)]
    broken: dict[int, UserError] = {}
    worked = False
    try:
        for member in members:
            member.find()
        while left := [m for m in members if m.step != last and m.position not in broken]:
            worked = True
            first = min(member.step for member in left)
            group = [member for member in left if member.step == first]
            until = min((member.step for member in left if member.step > first), default=last)
            try:
                _train(group, images, stop, mesh, until)
            except NotFiniteError as bad:
                for member in group:
                    member.checkpoints.finish()
                    member.find()
                error = _give_up(group[bad.member], bad)
                if error is not None:
                    broken[group[bad.member].position] = error
    finally:
        for member in members:
            member.checkpoints.close()
    return worked, broken


class _Member(Generic[State]):
    """A run while it is trained.

    Attributes:
      run: the run.
      position: among those that are trained together.
      checkpoints: its own.
      step: of its newest checkpoint, or 0.
      attempt: how often it was rolled back since it began or was resumed.
    """

    def __init__(self, run: Run[State], position: int) -> None:
        directory = run.workdir.checkpoints(run.stage.name)
        self.run, self.position = run, position
        self.checkpoints = Checkpoints(directory, run.config.training.keep_checkpoints)
        self.step = self.attempt = 0

    def find(self) -> None:
        """Looks for the newest checkpoint, and says which had to be set aside."""
        self.step = self.checkpoints.latest() or 0
        for warning in self.checkpoints.warnings:
            sys.stderr.write(f"Warning: {warning}\n")
            self.run.workdir.write_event(f"{self.run.stage.name}: {warning}")
        self.checkpoints.warnings.clear()

    def begin(self, whole: jax.sharding.NamedSharding) -> tuple[State, "Log"]:
        """Returns the state to go on from, whole on every device, and the log."""
        stage, workdir, step = self.run.stage, self.run.workdir, self.step
        progress = None
        if step == 0:
            state = parallel.put_state(stage.init(), whole)
        else:
            state, progress = self.checkpoints.restore(step, stage.template, whole)
        self.attempt = max(self.attempt, int(state.attempt))
        attempt = parallel.put(np.full((), self.attempt, np.int32), whole)
        state = state.replace(attempt=attempt)
        workdir.rewind(stage.name, step)
        workdir.write_event(
            f"{stage.name}: {'began' if step == 0 else f'went on from step {step}'}"
        )
        if step == 0:
            _draw(stage, parallel.local(state), workdir, step)
        return state, Log(stage, self.run.config, workdir, step, progress)


class NotFiniteError(Exception):
    """A number that is not finite.

    Attributes:
      what: the number's name.
      step: of the stage.
      attempt: how often the stage had been rolled back by then.
      member: in which of the runs that are trained together.
    """

    def __init__(self, what: str, step: int, attempt: int, member: int = 0) -> None:
        super().__init__(f"{what} at step {step}")
        self.what, self.step, self.attempt, self.member = what, step, attempt, member


def _give_up(member: _Member[Any], bad: NotFiniteError) -> UserError | None:
    """Notes what happened; returns the error, or None where the run is to be rolled back."""
    stage, workdir, every = member.run.stage, member.run.workdir, member.run.config.training
    trouble = monitor.not_finite(bad.what, bad.step, stage.name)
    workdir.write_trouble(stage.name, bad.step, trouble)
    if every.on_nonfinite == "stop" or bad.attempt >= every.most_rollbacks:
        return _not_finite(stage, member.run.config, bad, member.step)
    member.attempt = bad.attempt + 1
    print(
        f"{stage.name}: {trouble.text} Going back to step {member.step} with learning "
        f"rates of {every.rollback_rate**member.attempt:.3g} of the config's "
        f"(rollback {member.attempt} of {every.most_rollbacks}).",
        flush=True,
    )
    workdir.write_event(f"{stage.name}: rolled back to step {member.step}")
    return None


def _train(
    members: Sequence[_Member[State]],
    images: ImageArray,
    stop: StopRequest,
    mesh: jax.sharding.Mesh,
    until: int,
) -> None:
    """Goes on from the checkpoints of the members, all of one step, up to another step."""
    first = members[0].run
    stage, config, every = first.stage, first.config, first.config.training
    together = len(members) > 1
    curve_every = config.evaluation.curve_every if stage.measure else 0
    step = members[0].step
    begun = [member.begin(parallel.whole(mesh)) for member in members]
    logs = [log for _, log in begun]
    seeds = [member.run.config.seed for member in members]
    batches = [Batches(seed, stage.number, stage.batch_size, len(images)) for seed in seeds]
    if together:
        mesh = parallel.leading(len(members), mesh)
        call = make_call_together(stage, seeds, every.log_every, config, mesh)
        states = jax.device_put(_stacked([state for state, _ in begun]), parallel.split(mesh))
    else:
        call = make_call(stage, seeds[0], every.log_every, config.data.flip, mesh)
        states = begun[0][0]
    del begun
    if first.profile:
        call = profiling.traced(call, first.workdir.path / "profile" / stage.name)
    limit_mb, workers = config.data.resident_limit_mb, config.data.workers
    feed = make_feed(images, batches, step, every.log_every, limit_mb, workers, mesh)
    allowed = 1  # the first call also compiles, so it says little about the speed
    while step < until:
        allowed = parallel.first_says([allowed])[0]
        served = feed.serve(step, min(allowed, _steps_to_next(step, until, every, curve_every)))
        count = served.steps
        began = time.perf_counter()
        with jax.transfer_guard("disallow"):
            states, scalars = call(states, served.images, *_put(served, every.log_every, mesh))
            feed.prefetch()
            rows = _of_members(jax.device_get(scalars), len(members), count)
        allowed = max(1, int(every.seconds_per_call * count / (time.perf_counter() - began)))

        bad = [first_not_finite(of_member) for of_member in rows]
        for position, found in enumerate(bad):
            if found is not None:
                _close(logs)
                attempt = members[position].attempt
                raise NotFiniteError(found[1], step + found[0] + 1, attempt, position)
        step += count
        stopping = parallel.any_says(stop.signal or 0)
        last = step == stage.steps
        saving = step == until or step % every.checkpoint_every == 0 or bool(stopping)
        for position, (member, log) in enumerate(zip(members, logs, strict=True)):
            workdir, of = member.run.workdir, member.run.stage
            log.add(rows[position])
            if last or step % every.log_every == 0:
                log.write(step)
            drawing = last or step % every.picture_every == 0
            measuring = of.measure and curve_every and (last or step % curve_every == 0)
            if not (drawing or measuring or saving):
                continue
            state = _member_state(states, position) if together else states
            if drawing:
                _draw(of, parallel.local(state), workdir, step)
            if measuring and of.measure:
                with contextlib.ExitStack() as paused:
                    for each in logs:
                        paused.enter_context(each.paused())
                    measured = of.measure(parallel.local(state))
                workdir.write_curve(of.name, step, log.cost(step) | measured)
            if saving:
                if not all_finite(state):
                    _close(logs)
                    raise NotFiniteError("a parameter", step, member.attempt, position)
                member.checkpoints.save(step, state, log.progress())
        if stopping and not last:
            break
    _close(logs)
    for member in members:
        member.checkpoints.finish()
        member.step = step
        ending = "finished" if last else f"stopped by signal {stopping}" if stopping else "paused"
        member.run.workdir.write_event(f"{stage.name}: {ending} at step {step}")
    if stopping and not last:
        raise Stopped(
            f"Stopped and saved at step {step} of {stage.steps} ({stage.name}): run the same "
            "command again to go on.",
            128 + stopping,
        )


def _close(logs: Sequence["Log"]) -> None:
    for log in logs:
        log.close()


def _stacked(states: Sequence[State]) -> State:
    """Returns states of one shape as one, with an axis of members first."""
    stacked: State = jax.jit(lambda *states: jax.tree.map(lambda *x: jnp.stack(x), *states))(
        *states
    )
    return stacked


def _member_state(states: State, position: int) -> State:
    """Returns one member's state, on the first device."""
    device = jax.local_devices()[0]
    state: State = jax.tree.map(lambda leaf: jax.device_put(leaf[position], device), states)
    return state


def _of_members(
    scalars: dict[str, np.ndarray], members: int, count: int
) -> list[dict[str, np.ndarray]]:
    """Returns the scalars of each member, [count] each: from [most] or [members, most]."""
    return [
        {name: rows.reshape(members, -1)[i, :count] for name, rows in scalars.items()}
        for i in range(members)
    ]


def _put(served: Served, most: int, mesh: jax.sharding.Mesh) -> tuple[jax.Array, ...]:
    """Puts what a call takes beside state and images on the devices, of one shape for every call.

    The places and indices, int32 [members, count, B], or [count, B] of one run, get zeros after
    them up to `most` steps.
    """
    missing = [(0, 0)] * served.places.ndim
    missing[-2] = (0, most - served.steps)
    whole = parallel.whole(mesh)
    return (
        parallel.put(np.pad(served.places, missing), whole),
        parallel.put(np.pad(served.indices, missing), whole),
        parallel.put(np.asarray(served.steps, np.int32), whole),
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
            disable=None if parallel.is_first() else True,
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
    seed: int,
    most: int,
    flip: bool = False,
    mesh: jax.sharding.Mesh | None = None,
) -> Callable[..., tuple[State, Scalars]]:
    """Returns the jitted ``call(state, images, places, indices, count) -> (state, rows)``.

    It takes `count` <= `most` steps over batches gathered on the device from the uint8 images
    [N, H, W, C] by `places`, int32 [most, B]; `indices`, of the same shape, are those of the
    images in the data set, by which random flips are keyed where `flip` asks for them. Each
    scalar is returned as float32 [most], of which the first `count` are set. The state is
    donated. The number of steps is an argument of one compiled program, so the length of a call
    cannot change a bit of its result; and so is the seed, so that all seeds share the program.

    Over the devices of a mesh every batch is split; state and scalars are whole on each.
    """
    mesh = mesh or parallel.make_mesh()
    whole = parallel.whole(mesh)
    steps = _steps(stage, most, flip)
    call = memory.checked(jax.jit(steps, donate_argnums=0, out_shardings=whole), stage.name)
    own_seed = parallel.put(np.asarray(seed, np.uint32), whole)

    def run(
        state: State,
        images: jax.Array,
        places: jax.Array,
        indices: jax.Array,
        count: jax.Array,
    ) -> tuple[State, Scalars]:
        with jax.set_mesh(mesh) if mesh.size > 1 else contextlib.nullcontext():
            result: tuple[State, Scalars] = call(state, images, places, indices, count, own_seed)
        return result

    return run


def make_call_together(
    stage: Stage[State],
    seeds: Sequence[int],
    most: int,
    config: ConfigDict,
    mesh: jax.sharding.Mesh,
) -> Callable[..., tuple[State, Scalars]]:
    """Returns the like of `make_call` for as many runs as there are seeds.

    State, places, indices and scalars have an axis of members first. The members are dealt to the
    devices of the mesh, which need nothing from one another, and each device goes through its own:
    one after another with ``training.together_by=map``, where each has the bits that it has alone;
    all at once with `vmap`, where other convolutions are chosen, and the last bits are others.
    """
    one = _steps(stage, most, config.data.flip)

    def each(
        states: State,
        images: jax.Array,
        places: jax.Array,
        indices: jax.Array,
        count: jax.Array,
        seeds: jax.Array,
    ) -> tuple[State, Scalars]:
        result: tuple[State, Scalars]
        if config.training.together_by == "vmap":
            # All stand at the same step; one number for all keeps each `lax.cond` on it a branch,
            # where a batch of them would have both sides computed.
            axes = jax.tree.map(lambda _: 0, states).replace(step=None)
            by_member = jax.vmap(one, (axes, None, 0, 0, None, 0), (axes, 0))
            shared = states.replace(step=states.step[0])
            moved, rows = by_member(shared, images, places, indices, count, seeds)
            step = jnp.broadcast_to(moved.step, states.step.shape)
            result = moved.replace(step=step), rows
        else:
            result = jax.lax.map(
                lambda of: one(of[0], images, of[1], of[2], count, of[3]),
                (states, places, indices, seeds),
            )
        return result

    dealt = (True, False, True, True, False, True)
    call = memory.checked(jax.jit(parallel.apart(each, mesh, dealt), donate_argnums=0), stage.name)
    own_seeds = parallel.put(np.asarray(seeds, np.uint32), parallel.split(mesh))

    def run(
        states: State,
        images: jax.Array,
        places: jax.Array,
        indices: jax.Array,
        count: jax.Array,
    ) -> tuple[State, Scalars]:
        result: tuple[State, Scalars] = call(states, images, places, indices, count, own_seeds)
        return result

    return run


def _steps(stage: Stage[State], most: int, flip: bool) -> Callable[..., tuple[State, Scalars]]:
    """Returns ``steps(state, images, places, indices, count, seed) -> (state, rows)``."""

    def take_step(
        state: State, images: jax.Array, places: jax.Array, indices: jax.Array, seed: jax.Array
    ) -> tuple[State, Scalars]:
        key = randomness.step_key(seed, stage.number, state.attempt, state.step)
        batch = images[parallel.split_batch(places)]
        if flip:
            flip_key = randomness.draw_key(key, randomness.Purpose.FLIP)
            batch = preprocessing.random_flip(batch, indices, flip_key)
        return stage.step(state, preprocessing.to_network(batch), key)

    def steps(
        state: State,
        images: jax.Array,
        places: jax.Array,
        indices: jax.Array,
        count: jax.Array,
        seed: jax.Array,
    ) -> tuple[State, Scalars]:
        _, scalars = jax.eval_shape(take_step, state, images, places[0], indices[0], seed)
        rows = {name: jnp.zeros((most,), jnp.float32) for name in scalars}

        def body(i: jax.Array, carry: tuple[State, Scalars]) -> tuple[State, Scalars]:
            state, rows = carry
            state, scalars = take_step(state, images, places[i], indices[i], seed)
            return state, {name: rows[name].at[i].set(scalars[name]) for name in rows}

        result: tuple[State, Scalars] = jax.lax.fori_loop(0, count, body, (state, rows))
        return result

    return steps


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


def _not_finite(
    stage: Stage[Any], config: ConfigDict, bad: NotFiniteError, saved: int
) -> UserError:
    kept = (
        "no checkpoint was saved before"
        if saved == 0
        else f"the checkpoint of step {saved} is kept"
    )
    tried = f" after {bad.attempt} rollbacks" if bad.attempt else ""
    return UserError(
        f"The {stage.name} stage stopped at step {bad.step}{tried}: {bad.what} is not finite; "
        f"{kept}. Try lower learning rates in config.{stage.name}, in another --workdir."
    )
