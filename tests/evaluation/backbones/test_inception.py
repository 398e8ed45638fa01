"""The network of the FID: every name, every block against PyTorch's, every way of resizing."""

import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluation.test_distances import HERE
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation.backbones import inception

# Names and shapes of the file, from the published network that reads it.
SHAPES = json.loads((HERE / "inception_names.json").read_text())


def weights(name):
    """Numbers of a size that keeps activations alive, the same wherever NumPy makes them."""
    shape, rng = SHAPES[name], np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return (1 + 0.2 * rng.random(shape)).astype(np.float32)
    if name.endswith("running_mean"):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if ".bn.weight" in name:
        return (1 + 0.1 * rng.standard_normal(shape)).astype(np.float32)
    if name.endswith("bias"):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    return (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    return inception.convert({name: weights(name) for name in SHAPES})


def test_every_array_of_the_file_has_its_place(params):
    images = jax.ShapeDtypeStruct((1, inception.SIZE, inception.SIZE, 3), jnp.float32)
    template = jax.eval_shape(inception.Inception().init, jax.random.key(0), images)["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, template)


def test_the_features_and_logits_are_pytorchs(params):
    with np.load(HERE / "inception.npz") as file:
        images, features, logits = file["images"], file["features"], file["logits"]
    scaled = inception.resize_halfpixel(images)
    ours = jax.jit(inception.Inception().apply)({"params": params}, scaled)
    np.testing.assert_allclose(ours[0], features, atol=2e-5)
    np.testing.assert_allclose(ours[1], logits, atol=2e-5)


def test_an_array_too_many_or_too_few_is_named():
    state = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    with pytest.raises(ValueError, match=r"without a place in Inception: AuxLogits\.x"):
        inception.convert(state | {"AuxLogits.x": np.zeros(1)})
    del state["Mixed_7a.branch3x3_1.conv.weight"]
    with pytest.raises(ValueError, match=r"lack 'Mixed_7a\.branch3x3_1\.conv\.weight'"):
        inception.convert(state)


@pytest.mark.parametrize("mode", inception.RESIZES)
def test_each_mode_scales_black_and_white_as_its_library(mode):
    black_white = np.stack([np.zeros((8, 8, 1), np.uint8), np.full((8, 8, 1), 255, np.uint8)])
    # With the compiler's usual care, which the other tests do without.
    usual = {"xla_backend_optimization_level": 3}
    resize = jax.jit(inception.RESIZES[mode], compiler_options=usual)
    scaled = np.asarray(resize(black_white))
    assert scaled.shape == (2, 299, 299, 3)
    low, high = (-1, 1) if mode == "halfpixel" else (-1, 127 / 128)
    np.testing.assert_allclose(scaled[0], np.full_like(scaled[0], low), atol=1e-6)
    np.testing.assert_allclose(scaled[1], np.full_like(scaled[1], high), atol=1e-6)


def test_without_a_network_the_message_says_what_to_fetch(tmp_path, monkeypatch):
    monkeypatch.setattr(inception, "URL", "http://127.0.0.1:9/weights.pth")
    path = tmp_path / "weights" / "inception.pth"
    with pytest.raises(UserError, match=r"cannot be downloaded .* fetch http.* put it at .*pth"):
        inception.load(path)
    assert not list(path.parent.iterdir())


def test_what_is_downloaded_is_checked_by_its_hash(tmp_path, monkeypatch):
    (tmp_path / "served").write_bytes(b"another file")
    monkeypatch.setattr(inception, "URL", (tmp_path / "served").as_uri())
    with pytest.raises(UserError, match="is not the file of weights that is wanted"):
        inception.load(tmp_path / "inception.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["served"]
