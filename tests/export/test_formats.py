import dataclasses
import json

import jax
import jax.export
import numpy as np
import pytest

from tests import made_runs
from vaegan_jax import trained
from vaegan_jax.errors import UserError
from vaegan_jax.export import stablehlo, weights


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    config = made_runs.tiny()
    config.data.path, config.data.name = "/home/me/secret", "folder"
    made_runs.write(path, config)
    return path


@pytest.fixture(scope="module")
def model(run):
    return stablehlo.whole(trained.load(run))


def latents(count, seed=5):
    return np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)


def test_safetensors_hold_all_of_a_gan_and_its_vae(model, run, tmp_path):
    card = stablehlo.card(model, licence="CC0", made_by="a test")
    made = stablehlo.to_safetensors(model, card, "float32", tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()
    path = tmp_path / "a.safetensors"
    path.write_bytes(made.data)
    for name in ("vae", "gan"):
        one, other = trained.load(path, name), trained.load(run, name)
        np.testing.assert_array_equal(one.decode(latents(3)), other.decode(latents(3)))
        assert one.facts["sha256"] == other.facts["sha256"]
        pictures = other.decode(latents(2))
        np.testing.assert_array_equal(one.encode(pictures)[0], other.encode(pictures)[0])
    again = stablehlo.card(trained.load(path))
    assert (again["data_licence"], again["made_by"]) == ("CC0", "a test")
    assert again["latent"]["active_units"] == 3


def test_bfloat16_is_the_rounded_model_and_says_what_that_costs(model, tmp_path):
    card = stablehlo.card(model)
    made = stablehlo.to_safetensors(model, card, "bfloat16", tmp_path / "scratch")
    assert len(made.data) < 0.7 * len(
        stablehlo.to_safetensors(model, card, "float32", tmp_path / "s").data
    )
    path = tmp_path / "a.safetensors"
    path.write_bytes(made.data)
    assert trained.load(path).facts["sha256"] == weights.read_card(path)["sha256"]
    assert trained.load(path).facts["sha256"] != model.facts["sha256"]
    difference = np.abs(trained.load(path).decode(latents(9)) - model.decode(latents(9)))
    assert 0 < difference.max() < 0.1
    assert "grey values" in made.verified


def test_the_card_says_what_it_must_and_nothing_private(model):
    card = stablehlo.card(model)
    assert card["data"]["digest"] == "d" * 64
    assert card["data_licence"] == "not stated"
    assert card["steps"] == {"gan": 5, "vae": 7}
    leaves = jax.tree.leaves(model.parts["generator"])
    assert card["parameters"]["generator"] == sum(leaf.size for leaf in leaves)
    assert "secret" not in json.dumps(card)


def test_stablehlo_is_for_three_platforms_and_agrees_for_any_batch(model):
    made = stablehlo.to_stablehlo(model)
    again = jax.export.deserialize(bytearray(made.data))
    assert again.platforms == ("cpu", "cuda", "tpu")
    for count in (1, 2, 11):
        images = np.asarray(again.call(latents(count)))
        np.testing.assert_allclose(images, model.decode(latents(count)), atol=1e-5)


def test_an_export_that_differs_is_refused(model, tmp_path, monkeypatch):
    pack = weights.pack

    def faulty(tree, card, dtype="float32"):
        moved = jax.tree.map(lambda leaf: leaf + np.float32(1e-6), dict(tree))
        return pack(moved, card, dtype)

    monkeypatch.setattr(weights, "pack", faulty)
    with pytest.raises(UserError, match="not written, since its images differ"):
        stablehlo.to_safetensors(model, stablehlo.card(model), "float32", tmp_path / "scratch")
    other = jax.tree.map(lambda leaf: leaf * np.float32(1.001), model.params)
    changed = dataclasses.replace(model, parts=model.parts | {"generator": other})
    deserialize = jax.export.deserialize
    data = bytearray(stablehlo.to_stablehlo(changed).data)
    monkeypatch.setattr(jax.export, "deserialize", lambda _: deserialize(data))
    with pytest.raises(UserError, match="StableHLO export is not written"):
        stablehlo.to_stablehlo(model)
