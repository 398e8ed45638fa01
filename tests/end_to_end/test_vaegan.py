"""The command vaegan as a person types it, on one run of its own."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from vaegan_jax import trained, weights
from vaegan_jax.cli import main

SMALL = {
    "vae.steps": 4, "gan.steps": 4, "gan.discriminator_warmup_steps": 1, "training.log_every": 2,
    "training.checkpoint_every": 2, "training.picture_every": 4,
    "evaluation.embedding": "none", "evaluation.curve_every": 0,
}  # fmt: skip


def vaegan(*arguments, cwd=ROOT):
    return subprocess.run(
        [pathlib.Path(sys.executable).with_name("vaegan"), *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    fields = [f"--config.{name}={value}" for name, value in SMALL.items()]
    result = vaegan("train", "--config", "configs/smoke.py", "--workdir", path, *fields)
    assert result.returncode == 0, result.stderr
    return path


def test_from_training_to_a_picture(run, tmp_path):
    result = vaegan("sample", run, "--count", 64, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "result: sample.png\n"
    # With the run's own seed they are the run's own pictures.
    with (
        Image.open(tmp_path / "sample.png") as made,
        Image.open(run / "images/gan/samples_000004.png") as drawn,
    ):
        difference = np.asarray(made).astype(int) - np.asarray(drawn)
    assert np.abs(difference).max() <= 1


def test_a_run_is_judged_and_its_page_made_anew(run):
    page = run / "report.html"
    page.unlink()
    assert vaegan("report", run).returncode == 0
    assert page.exists()
    settings = ("embedding=pixels", "samples=60", "max_reference_images=60", "paths=4",
                "max_likelihood_images=4", "iwae_samples=2")  # fmt: skip
    sets = [word for setting in settings for word in ("--set", f"evaluation.{setting}")]
    result = vaegan("evaluate", run, *sets)
    assert result.returncode == 0, result.stderr
    numbers = json.loads((run / "evaluation/numbers.json").read_text())
    assert numbers["settings"]["evaluation.samples"] == 60
    export = run.parent / "model"
    assert vaegan("export", run, "--out", export).returncode == 0
    card = weights.read_card(export.with_suffix(".safetensors"))
    assert card["evaluation"]["numbers"] == numbers["numbers"]
    assert card["data_licence"].startswith("Apache-2.0")


def test_what_cannot_be_is_one_sentence(run, capsys):
    result = vaegan("train")
    assert result.returncode == 1
    assert "--config is missing" in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    for arguments, said in (
        (("evaluate", run, "--set", "gan.steps=9"), "--set takes evaluation."),
        (("evaluate", run, "--set", "evaluation.sample=9"), "did you mean"),
        (("evaluate", run, "--set", "evaluation.curve_every=9"), "evaluation.curve_every"),
        (("evaluate", run, "--set", "evaluation.samples=many"), "must be"),
        (("report", run / "images"), "no run"),
        (("compare", run), "RUN"),
    ):
        assert main.main([str(argument) for argument in arguments]) != 0
        errors = capsys.readouterr().err
        assert said in errors
        assert errors.count("\n") == 1, errors


def test_the_pretrained_model_is_there_at_once(tmp_path):
    result = vaegan("sample", "pretrained", "--count", 2, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "sample.png").exists()
    card = weights.read_card(trained.PRETRAINED_FILE)
    assert "configs/pretrained.py" in card["made_by"]
    assert card["data_licence"].startswith("Apache-2.0")
    beside = json.loads(trained.PRETRAINED_FILE.with_suffix(".json").read_text())
    assert beside["sha256"] == card["sha256"] == trained.load("pretrained").facts["sha256"]
