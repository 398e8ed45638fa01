"""Shared by all tests: JAX settings, a prepared data set, a tiny config."""

import importlib.metadata
import os
import pathlib

import hypothesis
import jax
import pytest

from vaegan_jax import config as configuration
from vaegan_jax.data import images

# Most programs run once in tests, so they are compiled quickly. Subprocesses inherit this flag.
_QUICK = os.environ.get("XLA_FLAGS", "--xla_backend_optimization_level=0")
# Subprocesses do not inherit this flag, which keeps the sums of two programs of one process equal.
if importlib.metadata.version("jaxlib").startswith("0.10."):  # unknown flags are fatal
    os.environ["XLA_FLAGS"] = f"{_QUICK} --xla_cpu_use_fusion_emitters=false"
else:
    os.environ["XLA_FLAGS"] = _QUICK
jax.devices()  # reads the flags
os.environ["XLA_FLAGS"] = _QUICK

ROOT = pathlib.Path(__file__).resolve().parent.parent

jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile(
    "project",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("project")


@pytest.fixture(scope="session", autouse=True)
def data_directory(tmp_path_factory):
    """One prepared data set for all workers."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    directory = base / "tensorflow_datasets"
    directory.mkdir(exist_ok=True)
    os.environ["TFDS_DATA_DIR"] = str(directory)
    os.environ["XDG_CACHE_HOME"] = str(base / "cache")  # shared by subprocesses
    images.load(configuration.default_config().data)  # the first worker prepares, the others wait
    # A directory per worker needs no locks and no size limit.
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.getbasetemp() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return directory


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Frees the programs of a module's tests, which add up to gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture
def config():
    """A config with networks that compile in a second."""
    config = configuration.default_config()
    config.data.image_size = (16, 32)
    config.model.base_width = 4
    config.model.latent_size = 5
    config.vae.batch_size = config.gan.batch_size = 4
    config.vae.steps = config.gan.steps = 7
    config.gan.penalties, config.gan.augmentations = "r1(weight=0.5)", ""
    config.gan.ema_half_life_images = 10_000.0
    config.gan.generator_learning_rate = config.gan.discriminator_learning_rate = 2e-4
    config.gan.b2 = 0.999
    config.gan.discriminator_warmup_steps = 2
    config.training.log_every = 4
    config.training.checkpoint_every = 3
    config.training.picture_every = 5
    return config


def assert_trees_equal(a, b):
    """Asserts that two trees have the same names and bit-identical arrays."""
    import numpy as np

    a, b = (jax.tree_util.tree_leaves_with_path(tree) for tree in (a, b))
    assert [path for path, _ in a] == [path for path, _ in b]
    for (path, x), (_, y) in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))
