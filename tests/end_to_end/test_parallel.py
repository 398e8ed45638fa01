"""Several devices and several processes on one machine."""

import json
import os
import signal
import socket
import subprocess
import time

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.end_to_end.launched import assert_trees_equal, command, launch, metrics, state
from vaegan_jax import checkpoints

FLAGS = ("--config.evaluation.curve_every=0", "--stages=vae,gan")


def devices(count):
    flags = os.environ["XLA_FLAGS"]
    return {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={count}"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def explicit_process(port, index, count):
    joined = f"--coordinator=localhost:{port}", f"--process_id={index}", f"--num_processes={count}"
    return joined, {}


def slurm_task(port, index, count):
    """The environment of a SLURM task on one node."""
    variables = {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(count),
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index),
        "JAX_COORDINATOR_PORT": str(port),
    }
    return ("--distributed",), variables


def processes(workdir, count, *flags, join=explicit_process):
    """Starts the processes of one run; their output goes to files."""
    port = free_port()
    started = []
    for index in range(count):
        joined, variables = join(port, index, count)
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


def output(workdir, index):
    return (workdir.parent / f"process_{index}.txt").read_text()


def await_checkpoint(workdir, stage, started):
    deadline = time.monotonic() + 240
    while not (workdir / "checkpoints" / stage / "6").exists():
        assert time.monotonic() < deadline, output(workdir, 0) + output(workdir, 1)
        assert all(process.poll() is None for process in started), output(workdir, 0)
        time.sleep(0.2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run on two devices, and on two streaming processes of one device each."""
    base = tmp_path_factory.mktemp("parallel")
    curve = ("--config.evaluation.embeddings=pixels", "--config.evaluation.curve_every=6")
    result = launch(base / "devices", *FLAGS, *curve, **devices(2))
    assert result.returncode == 0, result.stderr
    started = processes(base / "processes", 2, *curve, "--config.data.max_resident_mb=0")
    codes = [process.wait(timeout=300) for process in started]
    assert codes == [0, 0], output(base / "processes", 0) + output(base / "processes", 1)
    return base


def test_two_processes_are_bit_identical_to_two_devices(runs):
    a, b = runs / "processes", runs / "devices"
    for stage in ("vae", "gan"):
        assert_trees_equal(state(a, stage, 12), state(b, stage, 12))
    assert metrics(a) == metrics(b)
    facts = json.loads((runs / "processes" / "run.json").read_text())
    assert (facts["devices"], facts["processes"]) == (2, 2)
    assert "vae 12/12" in output(runs / "processes", 0)
    assert "12/12" not in output(runs / "processes", 1)


def test_batches_and_noise_do_not_depend_on_devices(finished, runs):
    """The first steps differ by rounding, since sums over a batch have another order."""
    one, two = metrics(finished), metrics(runs / "devices")
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for name in ("loss", "reconstruction", "kl", "gradient_norm", "sharpness", "active_units"):
        np.testing.assert_allclose(two[0][name], one[0][name], rtol=1e-4, err_msg=name)
    gan_lines = [next(line for line in run if line["stage"] == "gan") for run in (one, two)]
    for name in ("discriminator_loss", "diversity", "near_duplicates"):
        np.testing.assert_allclose(gan_lines[1][name], gan_lines[0][name], rtol=2e-2, err_msg=name)


def test_a_killed_process_ends_the_others_and_one_process_resumes(tmp_path):
    workdir = tmp_path / "run"
    alone = (
        "--config.transfer.generator=scratch",
        "--config.gan.batch_size=15",
        "--stages=gan",
    )
    more = ("--config.gan.steps=4000", "--config.training.seconds_per_call=0.05")
    started = processes(workdir, 3, *alone, *more)
    await_checkpoint(workdir, "gan", started)
    started[1].send_signal(signal.SIGKILL)
    assert started[1].wait(timeout=10) == -signal.SIGKILL
    deadline = time.monotonic() + 60
    for process in (started[0], started[2]):
        assert process.wait(timeout=max(1, deadline - time.monotonic())) != 0

    steps = max(checkpoints.steps(workdir / "checkpoints" / "gan")) + 6
    result = launch(workdir, *FLAGS, *alone, f"--config.gan.steps={steps}")
    assert result.returncode == 0, result.stderr
    assert metrics(workdir)[-1]["step"] == steps


def test_sigterm_to_one_process_stops_all(tmp_path):
    workdir = tmp_path / "run"
    started = processes(workdir, 2, "--config.vae.steps=4000", join=slurm_task)
    await_checkpoint(workdir, "vae", started)
    started[1].send_signal(signal.SIGTERM)
    codes = [process.wait(timeout=120) for process in started]
    assert codes == [128 + signal.SIGTERM] * 2, output(workdir, 0) + output(workdir, 1)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ((), "together"),
        (("--process_id=2", "--num_processes=2"), "from 0"),
    ],
)
def test_inconsistent_flags_of_processes_are_refused(tmp_path, refused, flags, named):
    assert named in refused(tmp_path / "run", "--coordinator=localhost:1234", *flags)


def test_an_indivisible_batch_is_refused(tmp_path):
    result = launch(tmp_path / "run", **devices(3))
    assert result.returncode == 1
    assert "vae.batch_size" in result.stderr
    assert not (tmp_path / "run").exists()
