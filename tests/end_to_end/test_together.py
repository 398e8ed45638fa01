"""Several seeds trained in one program, on the real command line."""

import os
import signal
import subprocess
import time

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.end_to_end.launched import (
    assert_trees_equal,
    command,
    launch,
    launch_each,
    metrics,
    pictures,
    refused,
    state,
)

FLAGS = ("--config.evaluation.curve_every=0", "--stages=vae,gan")
TOGETHER = ("--config.seeds=(0, 5)", "--config.together=True", *FLAGS)


@pytest.fixture(scope="module")
def alone(finished, tmp_path_factory):
    """A run of each seed by itself."""
    base = tmp_path_factory.mktemp("alone")
    (base / "seed_0").symlink_to(finished[0])
    result = launch(base / "seed_5", "--config.seed=5", *FLAGS)
    assert result.returncode == 0, result.stderr
    return base


def assert_same_members(a, b):
    for seed in ("seed_0", "seed_5"):
        for stage in ("vae", "gan"):
            assert_trees_equal(state(a / seed, stage, 12), state(b / seed, stage, 12))
        assert metrics(a / seed) == metrics(b / seed)
        assert pictures(a / seed / "images") == pictures(b / seed / "images")


def test_each_member_has_the_bits_that_it_has_alone_killed_and_resumed(alone, tmp_path):
    arguments = command(tmp_path, *TOGETHER, "--config.training.seconds_per_call=1e-3")
    process = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not (tmp_path / "seed_0" / "checkpoints" / "vae" / "6" / "seal.json").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = launch(tmp_path, *TOGETHER)
    assert result.returncode == 0, result.stderr
    assert_same_members(tmp_path, alone)


def test_members_that_stand_at_different_steps_come_to_the_same_end(alone, tmp_path):
    first = launch(tmp_path / "seed_0", *FLAGS[:1], "--stages=vae", "--config.vae.steps=6")
    assert first.returncode == 0, first.stderr
    result = launch(tmp_path, *TOGETHER)
    assert result.returncode == 0, result.stderr
    for seed in ("seed_0", "seed_5"):
        for stage in ("vae", "gan"):
            expected = state(alone / seed, stage, 12)
            assert_trees_equal(state(tmp_path / seed, stage, 12), expected)


def test_two_devices_go_through_a_member_each(alone, tmp_path):
    devices = {"XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=2"}
    result = launch(tmp_path, *TOGETHER, "--stages=vae", **devices)
    assert result.returncode == 0, result.stderr
    for seed in ("seed_0", "seed_5"):
        of_two, of_one = metrics(tmp_path / seed)[0], metrics(alone / seed)[0]
        for name in ("loss", "kl", "gradient_norm"):  # devices share the threads of one
            np.testing.assert_allclose(of_two[name], of_one[name], rtol=1e-4, err_msg=name)


def test_all_at_once_they_are_nearly_what_they_are_alone(alone, tmp_path):
    result = launch(tmp_path, *TOGETHER, "--config.training.together_by=vmap")
    assert result.returncode == 0, result.stderr
    for seed in ("seed_0", "seed_5"):
        at_once, by_itself = metrics(tmp_path / seed)[0], metrics(alone / seed)[0]
        for name in ("loss", "kl", "gradient_norm"):
            np.testing.assert_allclose(at_once[name], by_itself[name], rtol=1e-4, err_msg=name)


def test_a_member_that_breaks_is_left_out_and_the_others_finish(tmp_path):
    """No learning rate breaks one seed for sure and not the other; a loss of one's own does."""
    (tmp_path / "fragile.py").write_text(
        "import jax.numpy as jnp\n"
        "def error(images, logits):\n"
        "    of_each = jnp.sum(jnp.square(images - jnp.tanh(logits)), axis=(1, 2, 3))\n"
        "    return of_each + jnp.where(jnp.sum(images[:1]) > LIMIT, jnp.nan, 0)\n"
    )
    source = (tmp_path / "fragile.py").read_text()
    sums = first_batches_sums()
    (tmp_path / "fragile.py").write_text(source.replace("LIMIT", str(sum(sorted(sums)) / 2)))
    broken, fine = (0, 5) if sums[0] > sums[1] else (5, 0)
    result = subprocess.run(
        command(
            tmp_path / "runs", *TOGETHER, "--config.vae.steps=1",
            "--config.vae.reconstruction=fragile:error",
        ),
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert result.returncode == 1
    assert f"seed_{broken} is left out" in result.stdout
    assert "not finite" in result.stderr
    assert "Traceback" not in result.stderr
    assert state(tmp_path / "runs" / f"seed_{fine}", "gan", 12)
    assert not list((tmp_path / "runs" / f"seed_{broken}" / "checkpoints").glob("vae/*/seal.json"))


def first_batches_sums():
    """The sum of the first image of the first batch of either seed."""
    from configs import smoke
    from vaegan_jax import randomness
    from vaegan_jax.data import images, preprocessing

    data = images.load(smoke.get_config().data).train
    firsts = [randomness.order(s, randomness.Stage.VAE, 0, len(data))[:1] for s in (0, 5)]
    return [float(np.sum(preprocessing.to_network(data[first]))) for first in firsts]


def test_what_cannot_be_had_together_is_refused(tmp_path):
    two = ("--config.together=True", "--config.seeds=(0, 1)")
    cases = {
        "together is for several seeds": ("--config.together=True",),
        "cannot be had with together": (*two, "--config.training.on_nonfinite=rollback"),
        "raise data.resident_limit_mb": (*two, "--config.data.resident_limit_mb=1"),
    }
    commands = [command(tmp_path / "run", *flags) for flags in cases.values()]
    for message, result in zip(cases, launch_each(tmp_path / "said", commands), strict=True):
        assert message in refused(result)
