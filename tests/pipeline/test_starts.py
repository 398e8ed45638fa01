import functools
import json

import jax
import numpy as np
import pytest

from tests import made_runs
from tests.conftest import assert_trees_equal
from tests.end_to_end.launched import state
from vaegan_jax import config as configuration
from vaegan_jax import gan, trained
from vaegan_jax.errors import UserError
from vaegan_jax.pipeline import starts
from vaegan_jax.pipeline.run import train_and_evaluate
from vaegan_jax.trained import weights

EVERY_STAGE = ["vae", "gan"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "run"
    made_runs.write(path, made_runs.tiny(), vae_steps=(7,), gan_steps=(2, 5))
    return path


@pytest.fixture
def started(config, source):
    """A short run, not resumed from a checkpoint at step 0, that begins with the source's GAN."""
    config.evaluation.embeddings, config.transfer.generator = "none", "scratch"
    config.gan.steps, config.gan.start = 3, str(source)
    return config


def exported(path, source, model):
    saved = trained.load(source, model, encoder=model == "vae")
    card = {"config": configuration.flatten(saved.config), "steps": {model: 7}, "dtype": "float32"}
    path.write_bytes(weights.pack(saved.parts, card))
    return path


def test_gan_begins_with_the_generator_of_a_run_or_an_export(started, source, tmp_path):
    ema = state(source, "gan", 5)
    for name in (source, exported(tmp_path / "gan.safetensors", source, "gan")):
        started.gan.start = str(name)
        initial = starts.gan_init(starts.load(started, tmp_path, EVERY_STAGE)["gan"])
        assert_trees_equal(initial.generator, ema["ema"])
        assert_trees_equal(initial.latent_mean, ema["latent_mean"])
        assert_trees_equal(initial.latent_factor, ema["latent_factor"])
        assert initial.discriminator == {}
    begun = gan.init(started, made_runs.SHAPE, initial)
    scratch = gan.init(started, made_runs.SHAPE, gan.random_init(started, made_runs.SHAPE))
    assert_trees_equal(begun.ema, ema["ema"])
    started_with = ("generator", "ema", "latent_mean", "latent_factor")
    given = {name: getattr(begun, name) for name in started_with}
    assert_trees_equal(scratch.replace(**given), begun)


def test_gan_begins_with_the_discriminator_only_of_a_run(started, source, tmp_path):
    started.transfer.discriminator = "start"
    initial = starts.gan_init(starts.load(started, tmp_path, EVERY_STAGE)["gan"])
    begun = gan.init(started, made_runs.SHAPE, initial)
    assert_trees_equal(begun.discriminator, state(source, "gan", 5)["discriminator"])
    started.gan.start = str(exported(tmp_path / "gan.safetensors", source, "gan"))
    with pytest.raises(UserError, match=r"transfer\.discriminator=start"):
        starts.load(started, tmp_path, EVERY_STAGE)


def test_run_records_its_start_and_needs_it_only_at_first(started, source, tmp_path):
    run = tmp_path / "run"
    train_and_evaluate(started, run)
    parts = trained.load(source, "gan", encoder=False).parts
    recorded = {"gan.start": {str(source): weights.digest(parts)}}
    environment = json.loads((run / "run.json").read_text())
    assert environment["sources"] == recorded
    with pytest.MonkeyPatch.context() as patch:  # more steps do not read the source
        patch.setattr(trained, "load", None)
        started.gan.steps = 4
        train_and_evaluate(started, run)
    assert "resumed_with" not in json.loads((run / "run.json").read_text())


def test_run_that_has_not_begun_refuses_another_start(started, source, tmp_path):
    train_and_evaluate(started, tmp_path)
    environment = json.loads((tmp_path / "run.json").read_text())
    environment["sources"]["gan.start"][str(source)] = "0" * 64
    (tmp_path / "run.json").write_text(json.dumps(environment))
    for path in (tmp_path / "checkpoints/gan").iterdir():
        path.rename(tmp_path / f"gone_{path.name}")
    with pytest.raises(UserError, match=r"gan\.start"):
        train_and_evaluate(started, tmp_path)


def test_vae_begins_with_that_of_another_run(config, source, tmp_path):
    config.evaluation.embeddings = "none"
    config.vae.steps, config.vae.start, config.vae.learning_rate = 1, str(source), 1e-9
    train_and_evaluate(config, tmp_path, ("vae",))
    begun, saved = state(tmp_path, "vae", 1)["params"], state(source, "vae", 7)["params"]
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-7), begun, saved)
    assert set(json.loads((tmp_path / "run.json").read_text())["sources"]) == {"vae.start"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model.latent_size": 6}, r"generator\.dense\.kernel"),
        ({"data.image_size": (32, 16)}, r"\(16, 32, 3\)"),
        ({"model.norm": "none"}, r"model\.norm"),
        ({"gan.start": "nowhere"}, "nowhere"),
    ],
)
def test_start_that_does_not_fit_is_refused(started, change, field, tmp_path):
    started.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=field):
        starts.load(started, tmp_path, EVERY_STAGE)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"transfer.generator": "vae"}, r"transfer\.generator"),
        ({"gan.start": "", "transfer.discriminator": "start"}, r"gan\.start"),
    ],
)
def test_inconsistent_start_is_refused(started, change, field):
    started.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=field):
        configuration.check(started)
