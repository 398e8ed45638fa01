"""The evaluation and the report of configs/smoke.py."""

import re

import pytest

from tests.end_to_end.launched import lines, numbers


def test_numbers_have_errors_and_floors(finished):
    evaluation = numbers(finished)
    assert evaluation["checkpoints"] == {"vae": 12, "gan": 12}
    assert [embedding["name"] for embedding in evaluation["embeddings"]] == ["pixels"]
    assert evaluation["seed"] == 0
    assert evaluation["settings"]["evaluation.samples"] == 100
    assert evaluation["environment"]["packages"]["jax"]
    assert evaluation["data"]["test"] > 900
    by_key = {
        (n["subject"], n["against"], n["embedding"], n["metric"]): n for n in evaluation["numbers"]
    }
    assert len(by_key) == len(evaluation["numbers"])
    samples = ("vae_samples", "matched_samples", "gan_raw_samples", "gan_samples")
    for subject in (*samples, "vae_reconstructions"):
        for metric in ("fd_n100", "precision", "recall", "density", "coverage"):
            number = by_key[subject, "test", "pixels", metric]
            assert None not in (number["value"], number["floor"])
            assert (number["error"] is None) == (subject == "vae_reconstructions")
            assert (number["count"], number["reference_count"]) == (100, 200)
        for metric in ("sharpness", "lattice"):
            assert by_key[subject, "", "", metric]["floor"] is not None
        assert by_key[subject, "", "pixels", "vendi"]["floor"] > 1
    for subject in samples:
        for metric in ("authenticity", "data_copying"):
            assert by_key[subject, "train", "pixels", metric]["error"] is not None
    for metric in ("calibrated_elbo_bits_per_dim", "calibrated_iwae_2_bits_per_dim", "kl_nats",
                   "active_units"):  # fmt: skip
        assert by_key["vae", "", "", metric]["error"] is not None
    # After a few steps, samples are far from real images.
    distance = by_key["gan_samples", "test", "pixels", "fd_n100"]
    assert distance["value"] > 4 * distance["floor"]
    stdout = (finished.parent / "stdout.txt").read_text()
    assert "fd_n100" in stdout
    assert f"{distance['floor']:.3g}" in stdout


def test_the_curve_has_a_line_every_few_steps_and_the_matched_decoder(finished):
    curve = lines(finished, "curve.jsonl")
    assert [(line["stage"], line["step"], line["images"]) for line in curve] == [
        (stage, step, 16 * step)
        for stage, step in (("vae", 6), ("vae", 12), ("gan", 0), ("gan", 6), ("gan", 12))
    ]
    assert all(0 < line["fd_n50_pixels_floor"] < line["fd_n50_pixels"] for line in curve)


REFUSED = {
    "unknown stage": (["--stages=vae,evaluation"], "evaluation"),
    "no stage": (["--stages="], "--stages"),
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
