import os
import shutil
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest

from tests.conftest import ROOT
from vaegan_jax import compilation

# A program that says what came of it, and whence its compiled parts came.
PROGRAM = """
import pathlib, sys, warnings
import jax, jax.numpy as jnp
from vaegan_jax import compilation
if len(sys.argv) > 2:
    compilation._environment = lambda: sys.argv[2]
seen = {"cache_hits": 0, "cache_misses": 0}
def count(event, **_):
    name = event.rpartition("/")[2]
    if name in seen:
        seen[name] += 1
jax.monitoring.register_event_listener(count)
with compilation.cache(sys.argv[1]):
    x = jnp.linspace(0, 1, 999)
    y = jax.jit(lambda x: jnp.cumsum(jnp.sin(x) @ jnp.outer(x, jnp.tanh(x))))(x)
print(y.tobytes().hex()[:4000], seen["cache_hits"], seen["cache_misses"])
"""


def run(choice, *more, **env):
    """The bits of the result, how many programs came from the cache, how many went, and stderr."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(choice), *more],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    bits, hits, misses = result.stdout.split()
    return bits, int(hits), int(misses), result.stderr


def entries(root):
    return sorted(path for path in root.rglob("*-cache.*") if path.is_file())


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
    assert bits == plain
    assert hits == 0
    assert misses >= 2
    assert len(entries(root)) == misses
    assert "Warning" not in errors
    return root


@pytest.fixture
def root(filled, tmp_path):
    return shutil.copytree(filled, tmp_path / "cache")


def test_the_next_process_reads_what_was_kept_and_computes_the_same_bits(root, plain):
    before = entries(root)
    bits, hits, misses, _ = run(root)
    assert (bits, hits, misses) == (plain, len(before), 0)
    assert entries(root) == before
    assert not list(root.rglob(".session-*"))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_what_is_damaged_is_compiled_again_and_kept_again(root, plain, damage):
    for path in entries(root):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 16
        path.write_bytes({"flip": bytes(data), "cut": bytes(data[:-9]), "empty": b""}[damage])
    count = len(entries(root))
    bits, hits, misses, errors = run(root)
    assert (bits, hits, misses) == (plain, 0, count)
    assert "Traceback" not in errors
    assert run(root)[:2] == (plain, count)


def test_another_environment_shares_nothing(root, plain):
    bits, hits, misses, _ = run(root, "another")
    assert (bits, hits) == (plain, 0)
    assert misses == len(entries(root)) // 2


def test_a_folder_that_cannot_be_written_costs_the_cache_alone(tmp_path, plain):
    (tmp_path / "file").write_text("")
    bits, hits, misses, errors = run(tmp_path / "file")
    assert (bits, hits, misses) == (plain, 0, 0)
    assert "Warning: compiled programs cannot be kept in" in errors
    assert "Traceback" not in errors


def test_a_folder_that_others_can_write_is_not_trusted(root, plain):
    (folder,) = root.iterdir()
    folder.chmod(0o777)
    bits, hits, _, errors = run(root)
    assert (bits, hits) == (plain, 0)
    assert "others can write there" in errors


def test_two_processes_at_once(tmp_path, plain):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "cache")]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [process.communicate(timeout=120)[0].split()[0] for process in both] == [plain] * 2
    _, hits, misses, _ = run(tmp_path / "cache")
    assert hits > 0
    assert misses == 0


def test_what_a_killed_process_left_is_never_read_and_goes(root, plain):
    (folder,) = root.iterdir()
    left = folder / ".session-1-abc"
    left.mkdir()
    (left / "jit_f-0-cache").write_bytes(b"half a progr")
    long_ago = time.time() - 3600
    os.utime(left, (long_ago, long_ago))
    assert run(root)[:1] == (plain,)
    assert not left.exists()


def test_a_full_disk_leaves_nothing_that_is_cut_off(tmp_path):
    session, folder = tmp_path / "session", tmp_path / "folder"
    session.mkdir()
    folder.mkdir()
    whole = zlib.compress(np.random.default_rng(0).bytes(9999))
    (session / "a-cache").write_bytes(whole)
    (session / "b-cache").write_bytes(whole[:5000])
    (session / "c-cache").write_bytes(b"")
    compilation._keep(session, folder)
    assert [path.name.partition(".")[0] for path in folder.iterdir()] == ["a-cache"]


def test_no_more_is_kept_than_is_allowed(tmp_path):
    digest = "0" * 64
    for number in range(5):
        path = tmp_path / f"jit_{number}-cache.{digest}"
        path.write_bytes(b"x" * 10)
        os.utime(path, (number, number))
    (tmp_path / "else").write_bytes(b"x" * 100)
    compilation._shrink(tmp_path, 25)
    assert sorted(path.name.partition("-")[0] for path in tmp_path.iterdir()) == [
        "else", "jit_3", "jit_4",
    ]  # fmt: skip


def test_by_default_it_lies_in_the_persons_cache_on_linux_alone(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    assert str(compilation.default_root()) == "/x/vaegan_jax/compiled"
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert compilation.default_root() is None
