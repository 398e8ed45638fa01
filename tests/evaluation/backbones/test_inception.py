"""The network of the FID against the original PyTorch network."""

import json
import zlib

import jax
import numpy as np
import pytest

from tests.evaluation.test_distances import HERE
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation.backbones import inception

# Names and shapes of the weights in the published file.
SHAPES = json.loads((HERE / "inception_names.json").read_text())


def weights(name):
    """Deterministic random weights with activations of a realistic size."""
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


def test_features_equal_pytorchs(params):
    with np.load(HERE / "inception.npz") as file:
        images, features = file["images"].astype(np.float32), file["features"]
    # The reference resizes as pytorch-fid does, bilinearly without antialiasing, to [-1, 1].
    shape = (len(images), inception.SIZE, inception.SIZE, 3)
    scaled = jax.image.resize(images, shape, "linear", antialias=False) * (2 / 255) - 1
    ours = jax.jit(inception.features)(params, scaled * 128 + 128)
    np.testing.assert_allclose(ours, features, atol=2e-5)


def test_missing_weights_name_the_url_and_the_path(tmp_path):
    with pytest.raises(UserError, match=rf"{inception.URL} .*inception\.pth.*evaluation\.weights"):
        inception.load(str(tmp_path / "inception.pth"))
