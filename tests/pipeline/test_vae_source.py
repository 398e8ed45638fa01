import json
import shutil

import jax
import numpy as np
import pytest

from tests import made_runs
from tests.conftest import assert_trees_equal
from tests.end_to_end.launched import metrics, state
from vaegan_jax import config as configuration
from vaegan_jax import trained, workdir
from vaegan_jax.errors import UserError
from vaegan_jax.experiments.compare import records
from vaegan_jax.pipeline import vae_source
from vaegan_jax.pipeline.run import train_and_evaluate
from vaegan_jax.trained import weights


def made(path, config, **options):
    made_runs.write(path, config, vae_steps=(7,), gan_steps=(), **options)
    for name in ("data.json", "latent.json"):
        (path / name).unlink()
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run with a finished VAE that nobody trained, with another loss than the default."""
    config = made_runs.tiny()
    config.vae.update(steps=7, batch_size=4, kl_weight=0.3)
    return made(tmp_path_factory.mktemp("source") / "run", config)


@pytest.fixture
def grown(config, source):
    config.transfer.vae = str(source)
    config.evaluation.embeddings = "none"
    config.gan.steps, config.vae.steps = 4, 0
    return config


def test_gan_grows_from_the_source_as_from_a_vae_of_its_own(grown, source, tmp_path, capsys):
    train_and_evaluate(grown, tmp_path / "run")
    changed = f"transfer.vae={source} sets vae.kl_weight=0.3, vae.steps=7."
    assert changed in capsys.readouterr().out.splitlines()
    own = grown.copy_and_resolve_references()
    own.transfer.vae, own.vae.steps, own.vae.kl_weight = "", 7, 0.3
    train_and_evaluate(own, made(tmp_path / "own", own))

    run = tmp_path / "run"
    assert {line["stage"] for line in metrics(run)} == {"gan"}
    assert_trees_equal(state(run, "gan", 4), state(tmp_path / "own", "gan", 4))
    saved = state(source, "vae", 7)["params"]
    assert_trees_equal(state(run, "vae", 7)["params"], saved)
    recorded = json.loads((run / "run.json").read_text())["vae"]
    assert recorded == {
        "source": str(source), "step": 7, "sha256": weights.digest(saved), "same_images": False,
    }  # fmt: skip
    assert recorded["sha256"][:16] in (run / "report.html").read_text()
    assert json.loads((run / "config.json").read_text())["vae.kl_weight"] == 0.3
    assert json.loads((run / "latent.json").read_text())["step"] == 7
    assert trained.load(run).has_encoder
    runs = [records.read(path) for path in (run, tmp_path / "own")]
    assert not np.isnan(runs[0].seconds)
    causes = {fact.name for fact in records.differing_facts(runs) if fact.is_cause}
    assert causes == {"vae.sha256"}

    # A finished run is complete without the source, and only the same VAE can be trained further.
    grown.transfer.vae = str(tmp_path / "gone")
    train_and_evaluate(grown, run)
    grown.gan.steps = 5
    with pytest.raises(UserError, match="gone"):
        train_and_evaluate(grown, run)
    own.vae.steps = 8
    made_runs.write(tmp_path / "other", own, vae_steps=(8,), gan_steps=())
    for name in (str(tmp_path / "other"), ""):
        grown.transfer.vae, grown.vae.steps, grown.vae.kl_weight = name, 7, 0.3
        with pytest.raises(UserError, match=r"transfer\.vae"):
            train_and_evaluate(grown, run)
    grown.transfer.vae = str(source)
    vae_source.require_same(run, vae_source.load(grown))


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"model.latent_size": 6}, r"decoder\.dense\.kernel.*float32\[5,256\].*float32\[6,256\]"),
        ({"model.base_width": 8}, r"decoder\.up_1\.kernel.*encoder\.trunk"),
        ({"data.image_size": (32, 16)}, r"\(16, 32, 3\) there and \(32, 16, 3\)"),
        ({"model.norm": "none"}, r"model\.norm"),
    ],
)
def test_source_that_does_not_fit_is_refused(grown, change, phrase):
    grown.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=phrase):
        vae_source.with_fields(grown, {}, vae_source.load(grown))


def test_unfinished_or_missing_source_is_refused(grown, source, tmp_path):
    path = tmp_path / "unfinished"
    shutil.copytree(source, path)
    flat = json.loads((path / "config.json").read_text()) | {"vae.steps": 9}
    (path / "config.json").write_text(json.dumps(flat))
    for name, phrase in ((path, "7 of 9"), (tmp_path, "no run")):
        grown.transfer.vae = str(name)
        with pytest.raises(UserError, match=phrase):
            vae_source.load(grown)
    grown.transfer.generator = "scratch"
    with pytest.raises(UserError, match=r"transfer\.generator"):
        configuration.check(grown)


def test_export_and_pretrained_model_are_sources(source, grown, tmp_path):
    model = trained.load(source, "vae")
    card = {"config": configuration.flatten(model.config), "steps": {"vae": 7}, "dtype": "float32"}
    file = tmp_path / "vae.safetensors"
    file.write_bytes(
        weights.pack({"decoder": model.params, "encoder": model.parts["encoder"]}, card)
    )
    grown.transfer.vae = str(file)
    assert_trees_equal(vae_source.load(grown).parts["encoder"], model.parts["encoder"])
    assert vae_source.with_fields(grown, {}, vae_source.load(grown)).vae.steps == 7
    config = trained.load("pretrained", "vae").config
    config.transfer.vae = "pretrained"
    assert vae_source.load(config).has_encoder
    file.write_bytes(weights.pack({"decoder": model.params}, card))
    with pytest.raises(UserError, match=r"encoder\.head\.bias is saved as nothing"):
        vae_source.with_fields(grown, {}, vae_source.load(grown))


def test_learned_likelihood_belongs_to_the_vae(grown, tmp_path):
    config = made_runs.tiny()
    config.vae.update(steps=7, batch_size=4, reconstruction="gaussian", decoder_variance="learned")
    grown.transfer.vae = str(made(tmp_path / "learned", config))
    model = vae_source.load(grown)
    taken = vae_source.with_fields(grown, {}, model)
    folder = workdir.Workdir(tmp_path / "run")
    (tmp_path / "run").mkdir()
    vae_source.copy_to(folder, model)
    steps = {"vae": 7}
    parts = trained.read_parts(taken, made_runs.SHAPE, folder, steps, ("likelihood",))
    assert jax.tree.leaves(parts["likelihood"])
