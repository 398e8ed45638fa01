"""The command `vaegan` from training to an export."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.end_to_end.launched import numbers, snapshot
from vaegan_jax import trained
from vaegan_jax.cli import main
from vaegan_jax.trained import weights


def test_an_unfinished_run_is_evaluated_and_reported(finished, tmp_path):
    missing = shutil.ignore_patterns("gan", "evaluation", "report.html")
    workdir = shutil.copytree(finished, tmp_path / "run", ignore=missing)
    assert main.main(["evaluate", str(workdir)]) == 0
    evaluation = numbers(workdir)
    assert evaluation["checkpoints"] == {"vae": 12, "gan": None}
    subjects = {number["subject"] for number in evaluation["numbers"]}
    assert subjects == {"vae", "vae_samples", "vae_reconstructions"}
    page = workdir / "report.html"
    before = page.read_text()
    assert "VAE: 12 of 12 steps" in before
    page.unlink()
    assert main.main(["report", str(workdir)]) == 0
    assert page.read_text() == before


def test_samples_with_the_seed_of_the_run_are_its_pictures(finished, tmp_path):
    program = pathlib.Path(sys.executable).with_name("vaegan")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    arguments = [program, "sample", finished, "--count", "64"]
    subprocess.run(arguments, cwd=tmp_path, env=environment, check=True, timeout=300)
    with (
        Image.open(tmp_path / "sample.png") as sampled,
        Image.open(finished / "images/gan/samples_000012.png") as drawn,
    ):
        difference = np.asarray(sampled).astype(int) - np.asarray(drawn)
    assert np.abs(difference).max() <= 1


def test_evaluate_with_other_settings_and_export(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    settings = ("iwae_samples=3", "max_likelihood_images=4")
    sets = [word for setting in settings for word in ("--set", f"evaluation.{setting}")]
    assert main.main(["evaluate", str(workdir), *sets]) == 0
    evaluation = numbers(workdir)
    assert evaluation["settings"]["evaluation.iwae_samples"] == 3
    export = tmp_path / "model"
    assert main.main(["export", str(workdir), "--out", str(export)]) == 0
    card = weights.read_card(export.with_suffix(".safetensors"))
    assert card["evaluation"]["numbers"] == evaluation["numbers"]
    assert card["data_licence"].startswith("Apache-2.0")


def test_evaluation_of_one_checkpoint_does_not_change_the_run(finished, tmp_path, capsys):
    before, out = snapshot(finished), tmp_path / "numbers.json"

    def evaluate(*more):
        code = main.main(["evaluate", str(finished), *more])
        return code, capsys.readouterr()

    code, output = evaluate("--model", "gan", "--out", str(out))
    assert code == 0, output.err
    result = json.loads(out.read_text())
    assert result["checkpoints"] == {"vae": None, "gan": 12}
    by_key = {(n["subject"], n["against"], n["metric"]): n for n in numbers(finished)["numbers"]}
    assert {n["subject"] for n in result["numbers"]} == {"gan_raw_samples", "gan_samples"}
    for number in result["numbers"]:
        key = number["subject"], number["against"], number["metric"]
        assert number["value"] == pytest.approx(by_key[key]["value"], rel=1e-3), key

    code, output = evaluate("--seed", "3", "--step", "6", "--out", str(out))
    assert (code, output.out) == (1, "")
    code, _ = evaluate("--model", "gan", "--seed", "3", "--step", "6", "--out", str(out), "--force")
    other = json.loads(out.read_text())
    assert (code, other["seed"], other["checkpoints"]["gan"]) == (0, 3, 6)
    assert other["numbers"][0]["value"] != result["numbers"][0]["value"]
    code, output = evaluate("--step", "5")
    assert (code, output.out) == (1, "")
    assert "[6, 12]" in output.err
    assert snapshot(finished) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("train",), "--config"),
        (("evaluate", "RUN", "--set", "gan.steps=9"), "gan.steps"),
        (("evaluate", "RUN", "--set", "evaluation.sample=9"), "evaluation.samples"),
        (("evaluate", "RUN", "--set", "evaluation.curve_every=9"), "evaluation.curve_every"),
        (("evaluate", "RUN", "--set", "evaluation.samples=many"), "evaluation.samples"),
        (("evaluate", "RUN", "--set", "evaluation.samples=-1"), "evaluation.samples"),
        (("report", "nowhere"), "nowhere"),
    ],
)
def test_invalid_commands_are_refused_in_one_line(finished, capsys, arguments, named):
    words = [str(finished) if word == "RUN" else word for word in arguments]
    assert main.main(words) == 1
    errors = capsys.readouterr().err
    assert named in errors
    assert errors.count("\n") == 1, errors


def test_the_bundled_model_can_be_sampled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main.main(["sample", "pretrained", "--count", "2"]) == 0
    assert (tmp_path / "sample.png").exists()
    card = weights.read_card(trained.PRETRAINED_FILE)
    assert "--config configs/" in card["made_by"]
    assert card["data_licence"].startswith("Apache-2.0")
    stored = json.loads(trained.PRETRAINED_FILE.with_suffix(".json").read_text())
    assert stored["sha256"] == card["sha256"] == trained.load("pretrained").facts["sha256"]
