import json
import shutil

import numpy as np
import pytest

from tests.conftest import assert_trees_equal
from tests.end_to_end.launched import state
from vaegan_jax import networks, randomness, trained, workdir
from vaegan_jax.data import images
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation import embeddings, evaluate
from vaegan_jax.evaluation.number import evaluation_key
from vaegan_jax.pipeline import best, run
from vaegan_jax.randomness import Purpose
from vaegan_jax.report import page

DISTANCES = {2: 5.0, 4: 3.0, 6: 4.0, 7: 3.5}


@pytest.fixture
def swinging(config, monkeypatch):
    """A config of a GAN without VAE, whose distances are those above."""
    values = iter(DISTANCES.values())
    measure = lambda params, noise: {"fd_n40_pixels": next(values)}  # noqa: E731
    monkeypatch.setattr(run, "make_measure", lambda *_: measure)
    config.transfer.generator = "scratch"
    config.training.checkpoint_every = 2
    config.evaluation.update(embeddings="pixels", curve_every=2, curve_samples=40)
    return config


def test_generator_with_the_smallest_distance_is_kept(swinging, tmp_path, monkeypatch):
    compared = []

    def compare(config, data, embedding, last, smallest):
        compared.append((last, smallest))
        return 1.0, error

    monkeypatch.setattr(evaluate, "compare_generators", compare)
    swinging.training.max_checkpoints, error = 9, 0.4
    run.train_and_evaluate(swinging, tmp_path, ("gan",))
    saved = {step: state(tmp_path, "gan", step) for step in (4, 7)}
    assert_trees_equal(compared[0], tuple(saved[step]["ema"] for step in (7, 4)))
    for step in (2, 4, 6):
        shutil.rmtree(tmp_path / f"checkpoints/gan/{step}")
    model = trained.load(tmp_path, step="best")
    assert model.step == 4
    assert_trees_equal(model.params, saved[4]["ema"])
    assert_trees_equal(trained.load(tmp_path, step=4).params, saved[4]["ema"])
    facts = json.loads((tmp_path / "best.json").read_text())
    assert (facts["step"], facts["smallest_step"], facts["last_step"]) == (4, 4, 7)
    folder = workdir.Workdir(tmp_path)
    assert page.best(folder)[1:] in (tmp_path / "report.html").read_text()

    # A difference within two errors does not make the earlier one the best.
    error = 0.6
    (tmp_path / "best.json").unlink()
    with pytest.raises(UserError, match="curve"):
        trained.load(tmp_path, step="best")
    data = images.load(swinging.data)
    best.choose(swinging, data, folder, embeddings.make("pixels"))
    assert trained.load(tmp_path, step="best").step == 7
    best.choose(swinging, data, folder, embeddings.make("pixels"))
    assert len(compared) == 2


@pytest.mark.parametrize(
    ("values", "step"),
    [({3: 2.0, 6: 1.0}, 6), ({3: 1.0, 6: 2.0}, 3), ({3: 1.0, 6: 1.0}, 6), ({}, None)],
)
def test_smallest_distance_of_the_curve(tmp_path, values, step):
    lines = [
        {"stage": "vae", "step": 9, "fd_n40_a": 0.1},
        {"stage": "gan", "step": 0, "fd_n40_a": 0},
    ]
    for at, value in values.items():
        lines += [{"stage": "gan", "step": at, "seconds": -1, "fd_n40_a": value, "fd_n40_b": -at}]
    lines += [{"stage": "gan", "step": 99, "seconds": 1}]
    (tmp_path / "curve.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    name, smallest = workdir.Reader(tmp_path).smallest_distance("gan")
    assert (name, smallest) == ("fd_n40_a" if values else "", step)


def test_difference_of_generators_at_the_same_latents(config):
    config.evaluation.curve_samples = 60
    data, embedding = images.load(config.data), embeddings.make("pixels")
    decoder = networks.make_decoder(config.model, data.shape)
    z = randomness.latents(evaluation_key(0, 6, Purpose.LATENT), (60, 5))
    a, b = (decoder.init(randomness.step_key(seed, 0, 0), z)["params"] for seed in (1, 2))

    def frechet(fake):
        real = embeddings.extract(embedding, data.validation.take(np.arange(120)))
        centred = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (real.astype("f8"), fake)]
        # The trace of the root of a product of covariances is a nuclear norm.
        root = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
        means = np.sum((real.mean(0) - fake.mean(0)) ** 2)
        return means + sum(np.sum(x * x) for x in centred) - 2 * root

    def features(params):
        logits = np.asarray(decoder.apply({"params": params}, z))
        pictures = np.round((np.tanh(logits) + 1) * 127.5).astype(np.uint8)
        return embeddings.extract(embedding, pictures)

    expected = frechet(features(a)) - frechet(features(b))
    difference, error = evaluate.compare_generators(config, data, embedding, a, b)
    np.testing.assert_allclose(difference, expected, rtol=1e-3)
    assert error > 0
    swapped, same_error = evaluate.compare_generators(config, data, embedding, b, a)
    np.testing.assert_allclose([-swapped, same_error], [difference, error], rtol=1e-6)
    assert evaluate.compare_generators(config, data, embedding, a, a) == (0.0, 0.0)
