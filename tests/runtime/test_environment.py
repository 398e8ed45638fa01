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
cpu family	: 25
model		: 17
model name	: AMD EPYC
stepping	: 1
flags		: fpu avx2 avx512f

processor	: 1
vendor_id	: Other
model name	: Another
stepping	: 2
"""
ARM = """processor	: 0
Features	: fp asimd
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x3
CPU part	: 0xd0c
CPU revision	: 1
"""


@pytest.mark.parametrize(
    ("text", "cpu", "fields"),
    [
        (
            X86,
            "AMD EPYC",
            {"vendor": "AuthenticAMD", "family": "25", "model": "17", "name": "AMD EPYC",
             "stepping": "1", "flags": {"avx2": True, "avx512f": True, "fpu": True}},
        ),
        (
            ARM,
            None,
            {"implementer": "0x41", "architecture": "8", "variant": "0x3", "part": "0xd0c",
             "revision": "1", "flags": {"asimd": True, "fp": True}},
        ),
        (None, None, {}),
    ],
)  # fmt: skip
def test_cpu_name_and_processor_fields_of_proc_cpuinfo(monkeypatch, text, cpu, fields):
    read = pathlib.Path.read_text

    def read_text(path, *args, **kwargs):
        if str(path) != "/proc/cpuinfo":
            return read(path, *args, **kwargs)
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(pathlib.Path, "read_text", read_text)
    facts = environment.facts()
    assert facts["cpu"].strip()
    assert cpu in (None, facts["cpu"])
    assert facts["processor"].pop("machine")
    assert facts["processor"] == fields


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
    "facts": {name: facts[name] for name in ("settings", "variables", "xla_flags")},
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
