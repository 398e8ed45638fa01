import json
import shutil
import signal
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import assert_trees_equal
from vaegan_jax import randomness, vae, workdir
from vaegan_jax.checkpoints import Checkpoints
from vaegan_jax.data import feed, preprocessing
from vaegan_jax.errors import Stopped, UserError
from vaegan_jax.losses import symptoms
from vaegan_jax.runtime.signals import StopRequest
from vaegan_jax.training import log as log_module
from vaegan_jax.training import loop, monitor
from vaegan_jax.training.log import Log

SHAPE = (16, 32, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (11, *SHAPE)).astype(np.uint8)


def make_stage(config, **changes):
    def init():
        return vae.init(config, SHAPE)

    fields = {
        "number": randomness.Stage.VAE,
        "steps": config.vae.steps,
        "batch_size": config.vae.batch_size,
        "template": jax.eval_shape(init),
        "init": jax.jit(init),
        "step": vae.make_train_step(config, SHAPE),
        "pictures": lambda state: {"step": np.full((2, 2, 3), int(state.step), np.uint8)},
        "shown": ("kl",),
    }
    return loop.Stage(**(fields | changes))


def train(stage, config, path, stop=None):
    handler = mock.patch.object(loop, "StopRequest", return_value=stop or StopRequest())
    with workdir.open_workdir(path, config) as folder, handler:
        loop.train(stage, IMAGES, config, folder)


def final_state(stage, config, path):
    checkpoints = Checkpoints(path / "checkpoints" / "vae", config.training.max_checkpoints)
    state, _ = checkpoints.restore(checkpoints.latest(), stage.template)
    return state


def metrics(path):
    """The lines of metrics.jsonl without the times."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "steps_per_second", "images_per_second")
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


class StopAt(StopRequest):
    """Asks to stop after so many looks, as a signal would."""

    def __init__(self, looks):
        self.looks = looks

    @property
    def signal(self):
        self.looks -= 1  # the loop looks once a call
        return signal.SIGTERM if self.looks <= 0 else None


def test_loop_matches_individual_steps(tmp_path, config):
    stage = make_stage(config)
    train(stage, config, tmp_path)

    step = jax.jit(stage.step)
    state = stage.init()
    rows = []
    for i in range(7):
        epoch, position = divmod(i, 2)  # eleven images hold two batches of four
        order = randomness.order(0, randomness.Stage.VAE, epoch, 11)
        images = preprocessing.to_network(IMAGES[order[4 * position : 4 * position + 4]])
        key = randomness.step_key(0, randomness.Stage.VAE, i)
        state, scalars = step(state, images, key)
        rows.append({name: float(value) for name, value in scalars.items()})
    saved = final_state(stage, config, tmp_path)
    assert int(saved.step) == 7
    for a, b in zip(jax.tree.leaves(saved.params), jax.tree.leaves(state.params), strict=True):
        # Adam moves a parameter by up to 1e-3 a step, whatever the size of its gradient.
        np.testing.assert_allclose(a, b, atol=2e-3)
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == [4, 7]
    assert [line["images"] for line in lines] == [16, 28]
    for line, part in zip(lines, (rows[:4], rows[4:]), strict=True):
        for name in ("loss", "reconstruction", "kl", "gradient_norm"):
            mean = np.mean([row[name] for row in part])
            np.testing.assert_allclose(line[name], mean, rtol=1e-3)


def test_call_length_does_not_change_bits(config):
    stage = make_stage(config)
    call = loop.make_call(stage, 8)
    batches = feed.Batches(config.seed, stage.number, 4, len(IMAGES))

    def go(*lengths):
        state, first, losses = stage.init(), 0, []
        for length in lengths:
            indices = np.zeros((8, 4), np.int32)
            indices[:length] = [batches.indices(first + i) for i in range(length)]
            block = loop.Block(IMAGES, indices, indices, np.int32(length), np.uint32(config.seed))
            state, rows = call(state, block)
            losses.append(rows.by_name(length)["loss"])
            first += length
        return state, np.concatenate(losses)

    whole = go(7)
    for lengths in ([1] * 7, [3, 4], [6, 1]):
        assert_trees_equal(go(*lengths), whole)


def test_resume_after_stop_is_bit_identical(tmp_path, config):
    stage = make_stage(config)
    train(stage, config, tmp_path / "whole")
    with pytest.raises(Stopped) as caught:
        train(stage, config, tmp_path / "parts", StopAt(2))
    assert caught.value.exit_code == 128 + signal.SIGTERM
    with pytest.raises(Stopped):
        train(stage, config, tmp_path / "parts", StopAt(1))
    train(stage, config, tmp_path / "parts")
    assert_trees_equal(
        final_state(stage, config, tmp_path / "parts"),
        final_state(stage, config, tmp_path / "whole"),
    )
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    names = [
        sorted(p.name for p in (tmp_path / d / "images/vae").iterdir()) for d in ("parts", "whole")
    ]
    assert names[0] == names[1] == [f"step_{step:06d}.png" for step in (0, 5, 7)]


@pytest.mark.parametrize("loss", ["damaged", "removed"])
def test_finished_stage_without_checkpoints_is_refused(tmp_path, config, loss):
    stage = make_stage(config)
    train(stage, config, tmp_path)
    folder = tmp_path / "checkpoints" / "vae"
    if loss == "removed":
        shutil.rmtree(folder)
    else:
        for manifest in folder.glob("*/checksums.json"):
            manifest.write_text("{}")
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="workdir"):
        train(stage, config, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert not (folder / "damaged").exists()


@pytest.mark.parametrize("name", ["kl", "a parameter"])
def test_a_value_that_is_not_finite_stops_the_run(tmp_path, config, name):
    sound = vae.make_train_step(config, SHAPE)

    def step(state, images, key):
        state, scalars = sound(state, images, key)
        spoil = jnp.where(state.step == 5, jnp.nan, 0.0)
        if name == "kl":
            return state, scalars | {"kl": scalars["kl"] + spoil}
        params = jax.tree.map(lambda leaf: leaf + spoil, state.params)
        # The scalars stay finite, as when only an average has overflowed.
        scalars = {name: jnp.nan_to_num(value) for name, value in scalars.items()}
        return state.replace(params=params), scalars

    stage = make_stage(config, step=step)
    found = 5 if name == "kl" else 6  # parameters are checked when they are saved
    message = f"vae stage stopped at step {found}: {name} is not finite; the checkpoint of step 3"
    with pytest.raises(UserError, match=message):
        train(stage, config, tmp_path)
    assert int(final_state(stage, config, tmp_path).step) == 3


def test_troubles_are_equal_after_resume(tmp_path, config, capsys, monkeypatch):
    monkeypatch.setattr(monitor, "WINDOW", 1)
    monkeypatch.setattr(symptoms, "MIN_KL", 1e9)
    monkeypatch.setattr(symptoms, "MIN_SHARPNESS_IN_TRAINING", 0.0)
    config.training.log_every = 2
    config.training.seconds_per_call = 1e-9
    train(make_stage(config), config, tmp_path / "whole")
    assert capsys.readouterr().out.count("vae, step 2: posterior collapse:") == 1
    with pytest.raises(Stopped):
        train(make_stage(config), config, tmp_path / "parts", StopAt(1))
    train(make_stage(config), config, tmp_path / "parts")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")
    troubles = [line for line in metrics(tmp_path / "whole") if "trouble" in line]
    assert [(line["trouble"], line["step"]) for line in troubles] == [("posterior_collapse", 2)]
    assert troubles[0]["kl"] == metrics(tmp_path / "whole")[0]["kl"]


def test_first_not_finite():
    fine = np.arange(4.0)
    bad = np.array([0, 1, np.nan, np.inf])
    assert loop.first_not_finite({"a": fine, "b": fine}) is None
    assert loop.first_not_finite({"a": fine, "b": bad}) == (2, "b")
    assert loop.first_not_finite({"a": -bad, "b": bad, "c": fine}) == (2, "a and b")


def test_measuring_time_is_excluded_from_seconds(tmp_path, config, monkeypatch):
    clock = iter([100.0, 105.0, 110.0, 140.0, 143.0])
    with workdir.open_workdir(tmp_path, config) as folder, monkeypatch.context() as patch:
        patch.setattr(log_module.time, "perf_counter", lambda: next(clock))
        log = Log(make_stage(config), config, folder, 0)
        assert log.cost(2) == {"seconds": 5.0, "images": 8}
        with log.paused():
            pass  # for thirty seconds
        assert log.cost(3)["seconds"] == 13.0


def test_curve_is_written_at_intervals_and_does_not_change_training(tmp_path, config):
    steps = []

    def measure(state):
        steps.append(int(state.step))
        return {"fd_x": float(state.step)}

    config.evaluation.curve_every = 3
    with workdir.open_workdir(tmp_path / "with", config) as folder:
        folder.rewind("vae", 0)
        folder.write_curve("vae", 0, {"fd_x": 9.0})  # of a run that was killed before it saved
    stage = make_stage(config, measure=measure, measures_start=True)
    train(stage, config, tmp_path / "with")
    assert steps == [0, 3, 6, 7]
    curve = workdir.Reader(tmp_path / "with").curve()
    found = [(line["step"], line["fd_x"], line["images"]) for line in curve]
    assert found == [(step, float(step), 4 * step) for step in steps]
    config.evaluation.curve_every = 0
    train(make_stage(config), config, tmp_path / "without")
    assert_trees_equal(*(final_state(stage, config, tmp_path / x) for x in ("with", "without")))
    assert metrics(tmp_path / "with") == metrics(tmp_path / "without")
