"""Several devices and several processes, on the real command line and on one machine."""

import json
import os
import signal
import socket
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
    refused,
    state,
)

FLAGS = ("--config.evaluation.curve_every=0", "--stages=vae,gan")


def devices(count):
    quick = os.environ["XLA_FLAGS"]  # to compile
    return {"XLA_FLAGS": f"{quick} --xla_force_host_platform_device_count={count}"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def processes(workdir, count, *flags, slurm=False):
    """Starts so many processes of one run; their messages go to files."""
    port = free_port()
    started = []
    for index in range(count):
        joined, variables = by_slurm(port, index, count) if slurm else by_hand(port, index, count)
        with (workdir.parent / f"process_{index}.txt").open("w") as log:
            started.append(
                subprocess.Popen(
                    command(workdir, *FLAGS, *flags, *joined),
                    cwd=ROOT,
                    env=os.environ | devices(1) | variables,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    return started


def by_hand(port, index, count):
    joined = f"--coordinator=localhost:{port}", f"--process_id={index}", f"--num_processes={count}"
    return joined, {}


def by_slurm(port, index, count):
    """What SLURM would tell a task of one node."""
    variables = {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(count),
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index),
        "JAX_COORDINATOR_PORT": str(port),  # else it follows from the job's number
    }
    return ("--distributed",), variables


def said(workdir, index):
    return (workdir.parent / f"process_{index}.txt").read_text()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run on two devices, and on two processes of one each, which stream."""
    base = tmp_path_factory.mktemp("parallel")
    result = launch(base / "devices", *FLAGS, **devices(2))
    assert result.returncode == 0, result.stderr
    started = processes(base / "processes", 2, "--config.data.max_resident_mb=0")
    codes = [process.wait(timeout=300) for process in started]
    assert codes == [0, 0], said(base / "processes", 0) + said(base / "processes", 1)
    return base


def assert_same_bits(a, b):
    for stage in ("vae", "gan"):
        assert_trees_equal(state(a, stage, 12), state(b, stage, 12))
    assert metrics(a) == metrics(b)


def test_two_processes_that_stream_are_two_devices_to_the_last_bit(runs):
    assert_same_bits(runs / "processes", runs / "devices")
    facts = json.loads((runs / "processes" / "run.json").read_text())
    assert (facts["devices"], facts["processes"]) == (2, 2)


def test_only_the_first_process_speaks(runs):
    assert "vae 12/12" in said(runs / "processes", 0)
    assert "12/12" not in said(runs / "processes", 1)


def test_other_devices_see_the_same_batches_and_noise(finished, runs):
    """Where sums over a batch are taken in another order, the first steps differ by rounding."""
    one, two = metrics(finished[0]), metrics(runs / "devices")
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for name in ("loss", "reconstruction", "kl", "gradient_norm", "sharpness", "active_units"):
        np.testing.assert_allclose(two[0][name], one[0][name], rtol=1e-4, err_msg=name)
    gan_lines = [next(line for line in found if line["stage"] == "gan") for found in (one, two)]
    for name in ("discriminator_loss", "diversity", "near_duplicates"):
        np.testing.assert_allclose(gan_lines[1][name], gan_lines[0][name], rtol=2e-2, err_msg=name)


def test_eight_devices_that_hold_a_part_of_the_images_each(finished, tmp_path):
    """8,300 images of 16x16 take 5.5 MB: more than the limit of one device, not that of eight."""
    flags = ("--config.data.max_resident_mb=1", "--config.training.seconds_per_call=60")
    parts = launch(tmp_path / "parts", *FLAGS, "--stages=vae", *flags, **devices(8))
    assert parts.returncode == 0, parts.stderr
    one = metrics(finished[0])[0]
    eight = metrics(tmp_path / "parts")[0]
    for name in ("loss", "reconstruction", "kl", "gradient_norm"):
        np.testing.assert_allclose(eight[name], one[name], rtol=1e-4, err_msg=name)


def test_when_one_of_four_is_killed_the_others_end_and_the_run_goes_on_with_one(tmp_path):
    workdir = tmp_path / "run"
    # One stage is enough, and quicker to compile four times.
    alone = ("--config.transfer.generator=scratch", "--stages=gan")
    more = ("--config.gan.steps=4000", "--config.training.seconds_per_call=0.05")
    started = processes(workdir, 4, *alone, *more)
    deadline = time.monotonic() + 240
    while not (workdir / "checkpoints" / "gan" / "6" / "checksums.json").exists():
        assert time.monotonic() < deadline, said(workdir, 0) + said(workdir, 1)
        assert all(process.poll() is None for process in started), said(workdir, 0)
        time.sleep(0.2)
    started[1].send_signal(signal.SIGKILL)
    assert started[1].wait(timeout=10) == -signal.SIGKILL
    deadline = time.monotonic() + 60
    for process in (started[0], started[2], started[3]):
        assert process.wait(timeout=max(1, deadline - time.monotonic())) != 0

    saved = [int(p.parent.name) for p in workdir.glob("checkpoints/gan/*/checksums.json")]
    steps = max(saved) + 6
    result = launch(workdir, *FLAGS, *alone, f"--config.gan.steps={steps}")
    assert result.returncode == 0, result.stderr
    assert metrics(workdir)[-1]["step"] == steps


def test_sigterm_to_one_process_saves_and_stops_all(tmp_path):
    workdir = tmp_path / "run"
    started = processes(workdir, 2, "--config.vae.steps=4000", slurm=True)
    deadline = time.monotonic() + 240
    while not (workdir / "checkpoints" / "vae" / "6" / "checksums.json").exists():
        assert time.monotonic() < deadline, said(workdir, 0) + said(workdir, 1)
        time.sleep(0.2)
    started[1].send_signal(signal.SIGTERM)
    codes = [process.wait(timeout=120) for process in started]
    assert codes == [128 + signal.SIGTERM] * 2, said(workdir, 0) + said(workdir, 1)


def test_flags_of_processes_that_do_not_go_together(tmp_path):
    alone = "--coordinator=localhost:1234"
    cases = {
        "belong together": (alone,),
        "must be from 0": (alone, "--process_id=2", "--num_processes=2"),
    }
    commands = [command(tmp_path / "run", *flags) for flags in cases.values()]
    for message, result in zip(cases, launch_each(tmp_path / "said", commands), strict=True):
        assert message in refused(result)


def test_a_batch_that_cannot_be_divided(tmp_path):
    assert "cannot be divided" in refused(launch(tmp_path / "run", **devices(3)))
