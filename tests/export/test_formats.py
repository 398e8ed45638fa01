import dataclasses
import json

import jax
import jax.export
import numpy as np
import pytest

from tests import made_runs
from vaegan_jax import trained
from vaegan_jax.errors import UserError
from vaegan_jax.export import formats
from vaegan_jax.trained import weights


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    config = made_runs.tiny()
    config.data.path, config.data.name = "/home/me/secret", "folder"
    made_runs.write(path, config)
    return path


@pytest.fixture(scope="module")
def model(run):
    return formats.with_decoder(trained.load(run))


def latents(count, seed=5):
    return np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)


def test_safetensors_of_gan_include_its_vae(model, run, tmp_path):
    card = formats.card(model, licence="CC0", made_by="a test")
    export = formats.to_safetensors(model, card, "float32", tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()
    path = tmp_path / "a.safetensors"
    path.write_bytes(export.data)
    for name in ("vae", "gan"):
        exported, original = trained.load(path, name), trained.load(run, name)
        images = original.decode(latents(3))
        np.testing.assert_array_equal(exported.decode(latents(3)), images)
        np.testing.assert_array_equal(exported.encode(images)[0], original.encode(images)[0])
        assert exported.facts["sha256"] == original.facts["sha256"]
    again = formats.card(trained.load(path))
    assert (again["data_licence"], again["made_by"]) == ("CC0", "a test")
    assert again["latent"]["active_units"] == 3


def test_bfloat16_export_is_the_rounded_model(model, tmp_path):
    card, path = formats.card(model), tmp_path / "a.safetensors"
    path.write_bytes(formats.to_safetensors(model, card, "bfloat16", tmp_path / "s").data)
    full = formats.to_safetensors(model, card, "float32", tmp_path / "s").data
    assert path.stat().st_size < 0.7 * len(full)
    rounded = trained.load(path)
    assert rounded.facts["sha256"] == weights.read_card(path)["sha256"] != model.facts["sha256"]
    difference = np.abs(rounded.decode(latents(9)) - model.decode(latents(9)))
    assert 0 < difference.max() < 0.1


def test_card_is_complete_and_without_private_paths(model):
    card = formats.card(model)
    assert card["data"]["digest"] == "d" * 64
    assert card["data_licence"] == "not stated"
    assert card["steps"] == {"gan": 5, "vae": 7}
    assert card["parameters"]["generator"] == sum(map(np.size, jax.tree.leaves(model.params)))
    assert "secret" not in json.dumps(card)


def test_stablehlo_supports_three_platforms_and_any_batch_size(model):
    loaded = jax.export.deserialize(bytearray(formats.to_stablehlo(model).data))
    assert loaded.platforms == ("cpu", "cuda", "tpu")
    for count in (2, 11):
        images = np.asarray(loaded.call(latents(count)))
        np.testing.assert_allclose(images, model.decode(latents(count)), atol=1e-5)


def test_export_with_different_results_is_refused(model, tmp_path, monkeypatch):
    pack = weights.pack

    def faulty(tree, card, dtype="float32"):
        moved = jax.tree.map(lambda leaf: leaf + np.float32(1e-6), dict(tree))
        return pack(moved, card, dtype)

    monkeypatch.setattr(weights, "pack", faulty)
    with pytest.raises(UserError, match="safetensors"):
        formats.to_safetensors(model, formats.card(model), "float32", tmp_path / "scratch")
    other = jax.tree.map(lambda leaf: leaf * np.float32(1.001), model.params)
    changed = dataclasses.replace(model, parts=model.parts | {"generator": other})
    deserialize = jax.export.deserialize
    data = bytearray(formats.to_stablehlo(changed).data)
    monkeypatch.setattr(jax.export, "deserialize", lambda _: deserialize(data))
    with pytest.raises(UserError, match="StableHLO"):
        formats.to_stablehlo(model)
