import json
import shutil

import pytest

from tests.conftest import assert_trees_equal
from tests.end_to_end.launched import state
from vaegan_jax import trained, workdir
from vaegan_jax.errors import UserError
from vaegan_jax.pipeline import run

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


def test_generator_with_the_smallest_distance_is_kept(swinging, tmp_path):
    swinging.training.max_checkpoints = 9
    with pytest.raises(UserError, match="no run"):
        trained.load(tmp_path, step="best")
    run.train_and_evaluate(swinging, tmp_path, ("gan",))
    kept = state(tmp_path, "gan", 4)["ema"]
    shutil.rmtree(tmp_path / "checkpoints/gan/4")
    model = trained.load(tmp_path, step="best")
    assert model.step == 4
    assert not (tmp_path / "checkpoints/vae").exists()
    assert_trees_equal(model.params, kept)
    assert_trees_equal(trained.load(tmp_path, step=4).params, kept)
    assert "step 4, where fd_n40_pixels" in (tmp_path / "report.html").read_text()
    shutil.rmtree(tmp_path / "checkpoints/best")
    with pytest.raises(UserError, match="curve"):
        trained.load(tmp_path, step="best")


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
