"""Which sources of the user's functions a run goes on with; nothing here trains."""

import json

import jax
import jax.numpy as jnp
import pytest

from vaegan_jax import config as configuration
from vaegan_jax import registry
from vaegan_jax.checkpoints import Checkpoints
from vaegan_jax.data import images
from vaegan_jax.errors import UserError
from vaegan_jax.pipeline import STAGES
from vaegan_jax.pipeline.run import train_and_evaluate

STEPS = {"vae": 7, "gan": 5}


class LoadError(Exception):
    """Raised where a run loads its images, by when its sources have been checked."""


@pytest.fixture
def begun(tmp_path, monkeypatch, config):
    """The config and the folder of a finished run of a loss in `loss_of_run`."""

    def load(_):
        raise LoadError

    monkeypatch.setattr(images, "load", load)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "loss_of_run.py").write_text("loss = print\n")
    config.vae.reconstruction = config.evaluation.embedding = "loss_of_run:loss"
    config.vae.steps, config.gan.steps = STEPS.values()
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(configuration.to_json(config))
    sources = registry.sources(configuration.flatten(config))
    assert sources.keys() == {"vae.reconstruction", "evaluation.embedding"}
    (run / "run.json").write_text(json.dumps({"sources": sources}))
    for stage, step in STEPS.items():
        saved = Checkpoints(run / "checkpoints" / stage, keep=9)
        saved.save(step, {"w": jnp.zeros(2)}, {})
        saved.finish()
        saved.close()
    yield config, run
    registry._digests.cache_clear()


def edit(run):
    (run.parent / "loss_of_run.py").write_text("loss = repr\n")
    registry._digests.cache_clear()


def test_a_changed_loss_is_refused_where_training_is_left_and_nothing_is_written(begun):
    config, run = begun
    config.gan.steps = STEPS["gan"] + 1
    with pytest.raises(LoadError):
        train_and_evaluate(config, run)
    edit(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"vae\.reconstruction=loss_of_run:loss .*\(loss_of_run\)"):
        train_and_evaluate(config, run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_finished_run_is_evaluated_with_a_changed_loss(begun):
    config, run = begun
    edit(run)
    for stages in (STAGES, ("evaluate",)):
        with pytest.raises(LoadError):
            train_and_evaluate(config, run, stages)


def test_a_changed_embedding_stops_no_training(begun):
    config, run = begun
    noted = json.loads((run / "run.json").read_text())
    noted["sources"]["evaluation.embedding"] = {"loss_of_run": "another"}
    (run / "run.json").write_text(json.dumps(noted))
    config.gan.steps = STEPS["gan"] + 1
    with pytest.raises(LoadError):
        train_and_evaluate(config, run)


def test_a_users_module_cannot_change_what_is_pinned(begun):
    config, run = begun
    text = "import jax\njax.config.update('jax_enable_x64', True)\nloss = print\n"
    (run.parent / "loss_with_x64.py").write_text(text)
    config.vae.reconstruction = "loss_with_x64:loss"
    with pytest.raises(LoadError):
        train_and_evaluate(config, run.parent / "new")
    assert not jax.config.jax_enable_x64
