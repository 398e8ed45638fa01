"""Resuming with changed sources of user functions; nothing is trained."""

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
from vaegan_jax.runtime import sources

STEPS = {"vae": 7, "gan": 5}
LOSS = """
import jax.numpy as jnp
def loss(images, logits):
    return jnp.sum(jnp.abs(images - logits), axis=(1, 2, 3))
"""


class LoadError(Exception):
    """Raised when a run loads its images, after the check of its sources."""


@pytest.fixture
def finished(tmp_path, monkeypatch, config):
    """The config and the folder of a finished run with a loss in the module `loss_of_run`."""

    def load(_):
        raise LoadError

    monkeypatch.setattr(images, "load", load)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "loss_of_run.py").write_text(LOSS)
    config.vae.reconstruction = config.evaluation.embeddings = "loss_of_run:loss"
    config.vae.steps, config.gan.steps = STEPS.values()
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(configuration.to_json(config))
    digests = registry.source_digests(configuration.flatten(config))
    assert digests.keys() == {"vae.reconstruction", "evaluation.embeddings"}
    (run / "run.json").write_text(json.dumps({"sources": digests}))
    for stage, step in STEPS.items():
        saved = Checkpoints(run / "checkpoints" / stage, keep=9)
        saved.save(step, {"w": jnp.zeros(2)}, {})
    yield config, run
    sources.digests.cache_clear()


def edit(run):
    (run.parent / "loss_of_run.py").write_text(f"{LOSS}# changed\n")
    sources.digests.cache_clear()


def test_training_with_a_changed_loss_is_refused_and_nothing_is_written(finished):
    config, run = finished
    config.gan.steps = STEPS["gan"] + 1
    with pytest.raises(LoadError):
        train_and_evaluate(config, run)
    edit(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"vae\.reconstruction=loss_of_run:loss"):
        train_and_evaluate(config, run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_finished_run_may_be_evaluated_with_a_changed_loss(finished):
    config, run = finished
    edit(run)
    for stages in (STAGES, ("evaluate",)):
        with pytest.raises(LoadError):
            train_and_evaluate(config, run, stages)


def test_training_continues_with_a_changed_embedding(finished):
    config, run = finished
    recorded = json.loads((run / "run.json").read_text())
    recorded["sources"]["evaluation.embeddings"] = {"loss_of_run": "another"}
    (run / "run.json").write_text(json.dumps(recorded))
    config.gan.steps = STEPS["gan"] + 1
    with pytest.raises(LoadError):
        train_and_evaluate(config, run)


def test_user_module_cannot_change_pinned_options(finished):
    config, run = finished
    text = "import jax\njax.config.update('jax_enable_x64', True)\n"
    (run.parent / "loss_with_x64.py").write_text(text + LOSS)
    config.vae.reconstruction = "loss_with_x64:loss"
    with pytest.raises(LoadError):
        train_and_evaluate(config, run.parent / "new")
    assert not jax.config.jax_enable_x64


def test_evaluate_alone_requires_an_embedding(tmp_path, config):
    config.evaluation.embeddings = "none"
    with pytest.raises(UserError, match=r"evaluation\.embeddings"):
        train_and_evaluate(config, tmp_path / "run", ("evaluate",))
