import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from tests.conftest import ROOT
from vaegan_jax.runtime import environment


def test_facts_match_jax_interpreter_and_machine():
    facts = environment.facts()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["packages"]["jax"] == jax.__version__
    assert facts["packages"]["jaxlib"] == jax.lib.__version__
    assert facts["device"] == jax.devices()[0].device_kind
    assert facts["devices"] == jax.device_count()
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["cores"] == os.cpu_count()
    assert os.uname().release in facts["platform"]


X86 = """processor	: 0
vendor_id	: AuthenticAMD
model		: 17
model name	: AMD EPYC
flags		: fpu avx2

processor	: 1
model name	: Another
"""
ARM = "processor	: 0\nFeatures	: fp asimd\nCPU part	: 0xd0c\n"
AMD = {"vendor_id": "AuthenticAMD", "model": "17", "model name": "AMD EPYC"}


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (X86, AMD | {"flags": {"avx2": True, "fpu": True}}),
        (ARM, {"CPU part": "0xd0c", "flags": {"asimd": True, "fp": True}}),
        (None, {}),
    ],
)
def test_cpu_name_and_processor_fields_of_proc_cpuinfo(monkeypatch, text, fields):
    read = pathlib.Path.read_text

    def read_text(path, *args, **kwargs):
        if str(path) != "/proc/cpuinfo":
            return read(path, *args, **kwargs)
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(pathlib.Path, "read_text", read_text)
    facts = environment.facts()
    assert facts["processor"] == fields
    assert facts["cpu"] == fields.get("model name", facts["cpu"])
    assert facts["cpu"].strip()


PROGRAM = """
import json
import jax, jax.numpy as jnp
from vaegan_jax import randomness
from vaegan_jax.runtime import environment
environment.pin()
key = randomness.step_key(3, randomness.Stage.VAE, 5)
drawn = randomness.latents(key, (3, 5))
other = jax.random.normal(jax.random.PRNGKey(1), (2,)) + jnp.arange(2)
facts = environment.facts()
print(json.dumps({
    "bits": [drawn.tolist(), other.tolist(), str(other.dtype)],
    "facts": {name: facts[name] for name in ("settings", "variables")},
}))
"""


def launched(**variables):
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def plain():
    return launched()


def test_pinned_settings(plain):
    found = launched(
        JAX_ENABLE_X64="1",
        JAX_THREEFRY_PARTITIONABLE="0",
        JAX_DEFAULT_PRNG_IMPL="rbg",
        JAX_ENABLE_CUSTOM_PRNG="1",
        JAX_RANDOM_SEED_OFFSET="7",
        JAX_NUMPY_DTYPE_PROMOTION="strict",
        JAX_NUMPY_RANK_PROMOTION="warn",
        JAX_DISABLE_JIT="1",
        FLAX_FIX_RNG_SEPARATOR="1",
    )
    assert found == plain


def test_unpinned_settings_are_recorded(plain):
    recorded = {
        "NVIDIA_TF32_OVERRIDE": "0",
        "OMP_NUM_THREADS": "1",
        "NPROC": "1",
        "LIBTPU_INIT_ARGS": "--some=1",
        "FLAX_RETURN_FROZENDICT": "0",
    }
    secrets = {"NVIDIA_API_KEY": "secret", "JAX_COMPILATION_CACHE_DIR": "/nowhere"}
    found = launched(JAX_DEFAULT_MATMUL_PRECISION="highest", **recorded, **secrets)["facts"]
    expected = plain["facts"]["settings"] | {"jax_default_matmul_precision": "highest"}
    assert plain["facts"]["settings"]["jax_default_matmul_precision"] is None
    assert found["settings"] == expected
    assert found["variables"] == plain["facts"]["variables"] | recorded
