"""launch.py on configs/smoke.py: files, resume, refusals."""

import json
import pathlib
import random
import re
import shutil
import signal
import subprocess
import time

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import smoke
from tests.conftest import ROOT, assert_trees_equal
from tests.end_to_end.launched import (
    assert_same_run,
    command,
    launch,
    metrics,
    pictures,
    snapshot,
    state,
)
from vaegan_jax import networks
from vaegan_jax.cli import launch as cli
from vaegan_jax.pipeline import run
from vaegan_jax.report import pictures as run_pictures


def test_a_run_writes_its_files(finished):
    workdir = finished
    config = json.loads((workdir / "config.json").read_text())
    assert (config["vae.steps"], config["gan.steps"], config["seed"]) == (12, 12, 0)
    assert [(line["stage"], line["step"]) for line in metrics(workdir)] == [
        (stage, step) for stage in ("vae", "gan") for step in (4, 8, 12)
    ]
    for line in metrics(workdir):
        assert all(np.isfinite(v) for v in line.values() if isinstance(v, float))
    expected = {
        f"images/{stage}/{name}_{step:06d}.png"
        for stage, names in {
            "vae": ("samples", "interpolations", "reconstructions"),
            "gan": ("samples", "interpolations"),
        }.items()
        for name in names
        for step in (0, 8, 12)
    }
    expected |= {
        f"evaluation/{name}.png"
        for name in ("nearest", "side_by_side", "traversals_gan", "traversals_vae")
    }
    assert set(pictures(workdir)) == expected
    samples = np.asarray(Image.open(workdir / "images/gan/samples_000012.png"))
    assert samples.shape == (8 * 18 - 2, 8 * 18 - 2, 3)
    for stage in ("vae", "gan"):
        assert list((workdir / "tensorboard" / stage).glob("events.out.tfevents.*"))
    summary = (workdir.parent / "stdout.txt").read_text()
    assert f"report: {workdir / 'report.html'}" in summary.splitlines()


def test_the_generator_begins_as_the_decoder_at_posterior_latents(finished):
    workdir = finished
    vae, gan = (state(workdir, stage, 12) for stage in ("vae", "gan"))
    config = smoke.get_config()
    z = run_pictures.fixed_latents(config, 64, "normal")
    posterior = np.asarray(z) @ gan["latent_factor"].T + gan["latent_mean"]
    decoder = networks.make_decoder(config.model, (16, 16, 3))
    logits = decoder.apply({"params": vae["params"]["decoder"]}, jnp.asarray(posterior))
    images = np.clip(np.round((np.tanh(logits) + 1) * 127.5), 0, 255).astype(np.uint8)
    begin = np.asarray(Image.open(workdir / "images/gan/samples_000000.png")).astype(int)
    assert np.abs(begin - run_pictures.grid(images, 8)).max() <= 1
    decoded = np.asarray(Image.open(workdir / "images/vae/samples_000012.png"))
    assert np.abs(begin - decoded).max() > 5
    end = np.asarray(Image.open(workdir / "images/gan/samples_000012.png"))
    assert (end != begin).any()


def test_a_finished_run_is_not_changed(finished, tmp_path, call):
    """The path has special characters, and a file manager has left files."""
    workdir = tmp_path / "[of] a\\b" / "run"
    shutil.copytree(finished, workdir)
    for folder in workdir.glob("checkpoints/*/[0-9]*"):
        (folder / ".DS_Store").write_bytes(b"other")
    before = snapshot(workdir)
    assert call(workdir, evaluated=True)[0] == 0
    assert snapshot(workdir) == before


def test_an_interrupted_run_is_bit_identical(finished, tmp_path):
    workdir = tmp_path / "run"
    generator = random.Random(0)
    for saved, number in (
        ("vae/6", signal.SIGINT), ("vae/12", signal.SIGKILL), ("gan/6", signal.SIGKILL)
    ):  # fmt: skip
        process = subprocess.Popen(
            command(workdir, "--config.training.seconds_per_call=0.001", evaluated=True),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 240
        while not (workdir / "checkpoints" / saved).exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        if number == signal.SIGKILL:
            time.sleep(generator.uniform(0, 0.2))
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == (128 + number if number == signal.SIGINT else -number), errors
        assert "Traceback" not in errors
    assert launch(workdir, evaluated=True).returncode == 0
    assert "stopped by signal 2" in (workdir / "events.jsonl").read_text()
    assert_same_run(workdir, finished)


BAD = {
    "unknown field": (["--config.gan.stepz=3"], r"gan\.stepz.*gan\.steps"),
    "wrong type": (["--config.gan.steps=many"], r"gan\.steps"),
    "batch size": (["--config.vae.batch_size=9000"], r"vae\.batch_size \(9000\)"),
    "unknown flag": (["--wurkdir=x"], "wurkdir"),
    "no flag": (["gan.steps=3"], r"gan\.steps=3"),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_flags_are_refused(name, tmp_path, refused):
    flags, pattern = BAD[name]
    message = refused(tmp_path / "run", *flags)
    assert re.search(pattern, message), message
    assert not (tmp_path / "run").exists()


SETS = """
from vaegan_jax.config import default_config
def get_config():
    config = default_config()
    config.{} = 3
    return config
"""


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        (None, "config.py"),
        ("def get_config(): return 3", "get_config"),
        ("raise ValueError('oh no')", "oh no"),
        (SETS.format("gan.stepz"), "stepz.*steps"),
    ],
)
def test_invalid_config_files_are_refused(text, pattern, tmp_path, refused):
    path = tmp_path / "config.py"
    if text:
        path.write_text(text)
    message = refused(tmp_path / "run", config=str(path))
    assert re.search(pattern, message), message
    assert not (tmp_path / "run").exists()


def test_config_is_required_and_names_the_default_workdir(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["launch.py"]) == 1
    assert "--config" in capsys.readouterr().err
    config = ROOT / "configs" / "smoke.py"
    called = []
    monkeypatch.setattr(run, "train_and_evaluate", lambda *arguments: called.append(arguments))
    assert cli.main(["launch.py", f"--config={config}", "--compilation_cache=off"]) == 0
    assert called[0][1:3] == (pathlib.Path("runs/smoke"), ["vae", "gan", "evaluate"])


def test_more_steps_after_a_damaged_checkpoint_are_bit_identical(finished, tmp_path, refused):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    newest = workdir / "checkpoints/gan/12/state"
    victim = max(newest.rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    data = bytearray(victim.read_bytes())
    data[len(data) // 3] ^= 4
    victim.write_bytes(data)
    longer, reference = (
        launch(path, "--config.gan.steps=15") for path in (workdir, tmp_path / "reference")
    )
    assert (longer.returncode, reference.returncode) == (0, 0), longer.stderr + reference.stderr
    assert "Warning: The checkpoint of step 12" in longer.stderr
    assert metrics(workdir) == metrics(tmp_path / "reference")
    assert_trees_equal(*(state(path, "gan", 15) for path in (workdir, tmp_path / "reference")))
    assert "gan.steps 12 -> 15" in (workdir / "events.jsonl").read_text()
    assert "GAN" in refused(workdir, "--config.vae.steps=13")


def test_a_sweep_resumes(finished, tmp_path):
    flags = ("--config.seeds=(0, 3)", "--config.variants=('a: gan.steps=12',)")
    first = launch(tmp_path / "runs", *flags, "--stages=vae")
    assert first.returncode == 0, first.stderr
    second = launch(tmp_path / "runs", *flags)
    assert second.returncode == 0, second.stderr
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == ["a_seed_0", "a_seed_3"]
    for name in names:
        recorded = json.loads((tmp_path / "runs" / name / "run.json").read_text())
        assert recorded["variant"] == "a"
    alone = state(finished, "gan", 12)  # of seed 0
    assert_trees_equal(state(tmp_path / "runs/a_seed_0", "gan", 12), alone)
    other = state(tmp_path / "runs/a_seed_3", "gan", 12)
    kernels = [tree["generator"]["dense"]["kernel"] for tree in (alone, other)]
    assert not np.array_equal(*kernels)
