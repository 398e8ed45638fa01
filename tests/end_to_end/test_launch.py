"""The real command line, as a person types it, on configs/smoke.py."""

import json
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import smoke
from tests.conftest import ROOT, assert_trees_equal
from tests.end_to_end.launched import (
    NOT_EVALUATED,
    assert_same_run,
    command,
    launch,
    launch_each,
    metrics,
    pictures,
    refused,
    snapshot,
    state,
)
from vaegan_jax import networks
from vaegan_jax.report import pictures as run_pictures


def test_a_run_leaves_the_files_it_promises(finished):
    workdir, said = finished
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
    # The summary names files, and they are there.
    named = [pathlib.Path(line.strip()) for line in said.splitlines() if line.endswith(".png")]
    assert len(named) == 5
    assert all(path.is_file() for path in named)


def test_the_generator_begins_as_the_decoder_at_the_latents_it_was_trained_on(finished):
    workdir, _ = finished
    vae, gan = (state(workdir, stage, 12) for stage in ("vae", "gan"))
    config = smoke.get_config()
    z = run_pictures.fixed_latents(config, 64, "normal")
    there = np.asarray(z) @ gan["latent_factor"].T + gan["latent_mean"]
    decoder = networks.make_decoder(config.model, (16, 16, 3))
    logits = decoder.apply({"params": vae["params"]["decoder"]}, jnp.asarray(there))
    images = np.clip(np.round((np.tanh(logits) + 1) * 127.5), 0, 255).astype(np.uint8)
    begin = np.asarray(Image.open(workdir / "images/gan/samples_000000.png")).astype(int)
    assert np.abs(begin - run_pictures.grid(images, 8)).max() <= 1
    decoded = np.asarray(Image.open(workdir / "images/vae/samples_000012.png"))
    assert np.abs(begin - decoded).max() > 5
    end = np.asarray(Image.open(workdir / "images/gan/samples_000012.png"))
    assert (end != begin).any()


def test_a_finished_run_says_so_and_does_nothing(finished, tmp_path):
    """Whatever its path, and whatever a file manager has left in it."""
    workdir = tmp_path / "[of] a\\b" / "run"
    shutil.copytree(finished[0], workdir)
    for folder in workdir.glob("checkpoints/*/[0-9]*"):
        (folder / ".DS_Store").write_bytes(b"other")
    before = snapshot(workdir)
    result = launch(workdir, evaluated=True)
    assert result.returncode == 0
    assert "already finished" in result.stdout
    assert snapshot(workdir) == before


def test_the_same_command_gives_the_same_bits(finished, tmp_path):
    flag = "--config.training.seconds_per_call=0.001"
    assert launch(tmp_path / "run", flag, evaluated=True).returncode == 0
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["training.seconds_per_call"] == 0.001
    assert_same_run(tmp_path / "run", finished[0])


def test_another_seed_gives_other_bits(finished, tmp_path):
    assert launch(tmp_path / "run", "--config.seed=1").returncode == 0
    for stage in ("vae", "gan"):
        part = {"vae": ("params", "decoder"), "gan": ("generator",)}[stage]
        ours, theirs = state(tmp_path / "run", stage, 12), state(finished[0], stage, 12)
        for name in part:
            ours, theirs = ours[name], theirs[name]
        assert not np.array_equal(ours["dense"]["kernel"], theirs["dense"]["kernel"])
    assert metrics(tmp_path / "run") != metrics(finished[0])
    a, b = pictures(tmp_path / "run"), pictures(finished[0])
    assert a.keys() == {name for name in b if name.startswith("images/")}
    assert all(a[name] != b[name] for name in a)


def test_from_scratch_all_else_is_equal(finished, tmp_path):
    flags = ("--config.transfer.generator=scratch", "--config.training.checkpoint_every=1",
             "--config.training.max_checkpoints=12")  # fmt: skip
    assert launch(tmp_path / "[scratch]", *flags).returncode == 0
    unmatched = "--config.transfer.match_posterior=False"
    assert launch(tmp_path / "warm", unmatched, *flags[1:]).returncode == 0
    assert not (tmp_path / "[scratch]/checkpoints/vae").exists()
    scratch, warm = (state(tmp_path / name, "gan", 1) for name in ("[scratch]", "warm"))
    # One step in, the generator is still frozen as it began: random here, the decoder there.
    decoder = state(tmp_path / "warm", "vae", 12)["params"]["decoder"]
    assert_trees_equal(warm["generator"], decoder)
    begin, last = (
        np.asarray(Image.open(tmp_path / "warm/images" / name))
        for name in ("gan/samples_000000.png", "vae/samples_000012.png")
    )
    np.testing.assert_array_equal(begin, last)
    assert not np.array_equal(scratch["generator"]["dense"]["kernel"], decoder["dense"]["kernel"])
    assert jax.tree.structure(scratch) == jax.tree.structure(warm)
    assert_trees_equal(scratch["generator_optimizer"], warm["generator_optimizer"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_by_signal_saves_and_the_next_run_goes_on(finished, tmp_path, number, code):
    # The flags change no result, but give the signal time to arrive.
    flags = ("--config.training.seconds_per_call=0.001", "--config.training.log_every=1")
    process = subprocess.Popen(
        command(tmp_path / "run", *flags, "--config.vae.steps=100000"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("vae 5/"):
            break
    process.send_signal(number)
    process.stdout.read()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert "run the same command again" in errors
    folder = tmp_path / "run/checkpoints/vae"
    steps = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    assert steps
    assert steps[-1] >= 5
    # What was saved is what any run of this seed has at that step.
    assert metrics(tmp_path / "run")[-1]["step"] == steps[-1]


def test_a_run_killed_again_and_again_equals_one_never_stopped(finished, tmp_path):
    workdir = tmp_path / "run"
    generator = random.Random(0)
    for saved in ("vae/6", "vae/12", "gan/6"):
        process = subprocess.Popen(
            command(workdir, "--config.training.seconds_per_call=0.001", evaluated=True),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 240
        while not (workdir / "checkpoints" / saved).exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.2))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert launch(workdir, evaluated=True).returncode == 0
    assert_same_run(workdir, finished[0])


def test_two_processes_on_one_workdir(tmp_path):
    first = subprocess.Popen(
        command(tmp_path / "run", "--config.vae.steps=100000"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert any(line.startswith("vae 4/") for line in first.stdout)
        assert f"in use by process {first.pid} on" in refused(
            launch(tmp_path / "run", "--config.vae.steps=100000")
        )
    finally:
        first.kill()
        first.communicate()


BAD = {
    "unknown field": (["--config.gan.stepz=3"], r"no field gan.stepz: did you mean gan.steps"),
    "unknown section": (["--config.gam.steps=3"], r"no field gam.steps: did you mean gan.steps"),
    "removed field": (
        ["--config.gan.generator_rate_warmup_steps=3"],
        r"gan.generator_rate_warmup_steps was removed: set gan.generator_learning_rate",
    ),
    "wrong type": (["--config.gan.steps=many"], r"config.gan.steps=many"),
    "bad value": (["--config.gan.objective=hinge?"], r"gan.objective must be one of minimax"),
    "image size": (["--config.data.image_size=60"], r"data.image_size must be a multiple of 16"),
    "inconsistent": (["--config.gan.discriminator_warmup_steps=12"], r"must be below gan.steps"),
    "batch size": (
        ["--config.vae.batch_size=9000"],
        r"vae.batch_size \(9000\) is larger than the training",
    ),
    "unknown flag": (["--wurkdir=x"], r"wurkdir"),
    "no flag": (["gan.steps=3"], r"gan.steps=3"),
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """What became of each bad command line, and of the folder it named."""
    base = tmp_path_factory.mktemp("bad")
    commands = [command(base / name, *flags) for name, (flags, _) in BAD.items()]
    return base, dict(zip(BAD, launch_each(base / "said", commands), strict=True))


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_writes_nothing(name, bad):
    base, results = bad
    message = refused(results[name])
    assert re.search(BAD[name][1], message), message
    assert not (base / name).exists()


NO_CONFIGS = {
    "missing": (None, "cannot be loaded"),
    "none": ("def get_config(): return 3", "must define get_config"),
    "fault": ("raise ValueError('oh no')", "cannot be loaded: .*oh no"),
    "field": (
        "from vaegan_jax.config import default_config\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.gan.stepz = 3\n"
        "    return config",
        "cannot be loaded: The config has no field stepz: did you mean .*steps",
    ),
    "removed field": (
        "from vaegan_jax.config import default_config\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.transfer.generator_rate_decay = 0.5\n"
        "    return config",
        "cannot be loaded: .*generator_rate_decay.* set gan.generator_learning_rate",
    ),
}


def test_a_config_file_that_is_none(tmp_path):
    for name, (text, _) in NO_CONFIGS.items():
        if text:
            (tmp_path / f"{name}.py").write_text(text)
    commands = [
        command(tmp_path / "run", config=str(tmp_path / f"{name}.py")) for name in NO_CONFIGS
    ]
    results = launch_each(tmp_path / "said", commands)
    for (_, pattern), result in zip(NO_CONFIGS.values(), results, strict=True):
        message = refused(result)
        assert re.search(pattern, message), message
    assert not (tmp_path / "run").exists()


def test_a_config_has_to_be_named(tmp_path):
    result = subprocess.run(
        [sys.executable, ROOT / "launch.py", "--workdir=run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "--config is missing" in refused(result)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_named_is_named_like_the_config(tmp_path):
    config = ROOT / "configs" / "smoke.py"
    result = subprocess.run(
        [
            *(sys.executable, ROOT / "launch.py", f"--config={config}"),
            *("--config.vae.steps=1", "--config.gan.steps=1", NOT_EVALUATED),
            *("--config.gan.discriminator_warmup_steps=0", "--config.training.log_every=1"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "The run's folder is runs/smoke" in result.stdout
    assert (tmp_path / "runs/smoke/checkpoints/gan/1").is_dir()


def test_a_workdir_of_another_run_is_left_alone(finished):
    workdir, _ = finished
    before = snapshot(workdir)
    message = refused(launch(workdir, "--config.vae.kl_weight=2.0"))
    rows = [line.split()[:3] for line in message.splitlines()]
    assert rows[1:] == [["field", "was", "is"], ["vae.kl_weight", "1.0", "2.0"]]
    assert snapshot(workdir) == before


def test_a_finished_run_may_be_given_more_steps(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)  # a run that is moved goes on where it is
    longer = launch(workdir, "--config.gan.steps=15")
    assert longer.returncode == 0, longer.stderr
    assert metrics(workdir)[: len(metrics(finished[0]))] == metrics(finished[0])
    whole = launch(tmp_path / "whole", "--config.gan.steps=15")
    assert whole.returncode == 0, whole.stderr
    assert_trees_equal(*(state(path, "gan", 15) for path in (workdir, tmp_path / "whole")))
    assert "config: gan.steps 12 -> 15" in (workdir / "events.jsonl").read_text()
    assert "the GAN has grown" in refused(launch(workdir, "--config.vae.steps=13"))


def test_a_damaged_checkpoint_costs_its_steps_and_nothing_else(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    newest = workdir / "checkpoints/gan/12/state"
    victim = max(newest.rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    data = bytearray(victim.read_bytes())
    data[len(data) // 3] ^= 4
    victim.write_bytes(data)
    again = launch(workdir, evaluated=True)
    assert again.returncode == 0, again.stderr
    assert "Warning: The checkpoint of step 12 is damaged" in again.stderr
    assert_same_run(workdir, finished[0])


def test_a_sweep_goes_on_where_it_was_stopped(finished, tmp_path):
    flags = ("--config.seeds=(0, 3)", "--config.variants=('a: gan.steps=12',)")
    first = launch(tmp_path / "runs", *flags, "--stages=vae")
    assert first.returncode == 0, first.stderr
    second = launch(tmp_path / "runs", *flags)
    assert second.returncode == 0, second.stderr
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == ["a_seed_0", "a_seed_3"]
    alone = state(finished[0], "gan", 12)  # of seed 0
    assert_trees_equal(state(tmp_path / "runs/a_seed_0", "gan", 12), alone)
    other = state(tmp_path / "runs/a_seed_3", "gan", 12)
    kernels = [tree["generator"]["dense"]["kernel"] for tree in (alone, other)]
    assert not np.array_equal(*kernels)


def test_a_checkpoint_of_other_networks_is_left_alone(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    shutil.rmtree(workdir / "checkpoints/gan/12")
    # As if the config had been changed by hand to fit the command line.
    config = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps(config | {"model.latent_size": 9}))
    before = snapshot(workdir)
    message = refused(launch(workdir, "--config.model.latent_size=9"))
    assert "checkpoints/gan/6 does not fit the networks of this config" in message
    assert "dense.kernel is saved as float32[8,32] and expected as float32[9,32]" in message
    assert snapshot(workdir) == before


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(launch(tmp_path / "file" / "run"))


def test_a_loss_that_explodes_stops_the_run(tmp_path):
    flags = ("--config.vae.learning_rate=1e30", "--config.training.checkpoint_every=1")
    message = refused(launch(tmp_path / "run", *flags))
    assert "The vae stage stopped at step" in message
    assert "is not finite" in message
    folder = tmp_path / "run/checkpoints/vae"
    kept = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    for step in kept:
        leaves = jax.tree.leaves(state(tmp_path / "run", "vae", step))
        assert all(np.isfinite(leaf).all() for leaf in leaves)
