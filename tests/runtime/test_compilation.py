import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from vaegan_jax.runtime import compilation, environment

# Prints a result and how many programs were loaded from the cache and added to it.
PROGRAM = """
import sys
import jax, jax.numpy as jnp
from vaegan_jax.runtime import compilation
seen = {"cache_hits": 0, "cache_misses": 0}
def count(event, **_):
    name = event.rpartition("/")[2]
    if name in seen:
        seen[name] += 1
jax.monitoring.register_event_listener(count)
compilation.enable_cache(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
x = jnp.linspace(0, 1, 999)
y = jax.jit(lambda x: jnp.cumsum(jnp.sin(x) @ jnp.outer(x, jnp.tanh(x))))(x)
print(y.tobytes().hex()[:4000], seen["cache_hits"], seen["cache_misses"])
"""


def run(choice):
    """Returns the bits of the result, the counts of hits and misses, and stderr."""
    command = [sys.executable, "-c", PROGRAM, str(choice)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Traceback" not in result.stderr
    bits, hits, misses = result.stdout.split()
    return bits, int(hits), int(misses), result.stderr


def programs(root):
    return sorted(root.rglob("*-cache"))


@pytest.fixture(scope="module")
def plain():
    bits, hits, misses, _ = run("off")
    assert (hits, misses) == (0, 0)
    return bits


@pytest.fixture(scope="module")
def filled(tmp_path_factory, plain):
    """A cache that one process has filled; tests copy it."""
    root = tmp_path_factory.mktemp("filled")
    bits, hits, misses, errors = run(root)
    assert (bits, hits, errors) == (plain, 0, "")
    assert len(programs(root)) == misses >= 2
    return root


@pytest.fixture
def root(filled, tmp_path):
    return shutil.copytree(filled, tmp_path / "cache")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_program_is_recompiled(root, plain, damage):
    for path in programs(root):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 16
        path.write_bytes({"flip": bytes(data), "cut": bytes(data[:-9]), "empty": b""}[damage])
    assert run(root)[:2] == (plain, 0)


def test_interrupted_write_is_removed(root, plain):
    count = len(programs(root))
    for path in programs(root)[:-1]:
        path.write_bytes(path.read_bytes()[:-9])
        path.with_name(path.name.removesuffix("cache") + "atime").unlink()
    assert run(root) == (plain, 1, count - 1, "")
    assert run(root) == (plain, count, 0, "")


@pytest.mark.parametrize("directory", ["not a folder", "writable by others"])
def test_unusable_directory_disables_the_cache(root, plain, directory):
    if directory == "not a folder":
        shutil.rmtree(root)
        root.write_text("")
    else:
        (folder,) = root.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        folder.chmod(0o777)
    bits, hits, misses, errors = run(root)
    assert (bits, hits, misses) == (plain, 0, 0)
    assert "--compilation_cache" in errors


def test_directory_of_another_user_is_not_used(tmp_path, monkeypatch):
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    with pytest.raises(PermissionError):
        compilation._prepare(tmp_path)


def test_environments_have_separate_directories(monkeypatch):
    facts = environment.facts()
    before = compilation._environment()
    assert compilation._environment() == before
    flags = facts["processor"] | {"flags": {"avx512_fp16": True}}
    for change in ({"threads": facts["threads"] + 1}, {"processor": flags}):
        monkeypatch.setattr(environment, "facts", lambda change=change: facts | change)
        assert compilation._environment() != before
