"""Hashes of files are correct, and unchanged files are not read again."""

import hashlib
import os
import pathlib
import shutil
import time

import pytest

from tests.data.test_sources import refuse
from vaegan_jax.data import hashing

NAMES = ["a.png", "b.png", "c.png"]


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / name for name in NAMES]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)
        os.utime(path, ns=(10**18, 10**18))
    return paths


@pytest.fixture
def read(files, monkeypatch):
    """Names of the files opened; no file counts as recently changed."""
    names, real = [], pathlib.Path.open

    def opened(path, *arguments, **options):
        if path.name in NAMES:
            names.append(path.name)
        return real(path, *arguments, **options)

    monkeypatch.setattr(pathlib.Path, "open", opened)
    monkeypatch.setattr(hashing, "_RECENT_NS", 0)
    return names


def expected(*contents):
    return [hashlib.sha256(content).hexdigest() for content in contents]


HASHES = expected(*(name.encode() * 1000 for name in NAMES))


def edit(path):
    """Changes a file in place and restores its mtime."""
    time.sleep(0.02)  # one tick of the file system clock
    before = path.stat()
    with open(path, "r+b") as file:  # noqa: PTH123 - not counted
        file.write(b"B" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path):
    """Replaces a file by another one of the same size and mtime."""
    other = path.with_name("other")
    shutil.copy2(path, other)
    edit(other)
    other.replace(path)


def test_each_file_is_read_once(tmp_path, files, read):
    cache = tmp_path / "made" / "cache.json"
    assert hashing.hash_files(files, cache) == HASHES
    assert sorted(read) == NAMES
    assert hashing.hash_files(files[::-1], cache) == HASHES[::-1]
    assert sorted(read) == NAMES
    assert hashing.hash_files(files) == HASHES
    assert sorted(read) == sorted(NAMES * 2)


@pytest.mark.parametrize("change", [edit, replace])
def test_changed_file_of_same_name_size_and_mtime_is_read_again(change, tmp_path, files, read):
    cache = tmp_path / "cache.json"
    hashing.hash_files(files, cache)
    before = files[1].stat()
    change(files[1])
    after = files[1].stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    read.clear()
    content = b"B" * before.st_size
    assert hashing.hash_files(files, cache) == [HASHES[0], *expected(content), HASHES[2]]
    assert read == ["b.png"]


def test_read_error_is_returned_and_not_cached(tmp_path, files, monkeypatch):
    monkeypatch.setattr(hashing, "_RECENT_NS", 0)
    cache = tmp_path / "cache.json"
    with monkeypatch.context() as patch:
        refuse(patch, "open", "b.png")
        first, failed, last = hashing.hash_files(files, cache)
    assert isinstance(failed, PermissionError)
    assert [first, last] == [HASHES[0], HASHES[2]]
    assert hashing.hash_files(files, cache) == HASHES
    assert isinstance(hashing.hash_files([tmp_path / "gone"], cache)[0], FileNotFoundError)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_broken_cache_is_replaced(content, tmp_path, files, read):
    cache = tmp_path / "cache.json"
    cache.write_bytes(content)
    assert hashing.hash_files(files, cache) == HASHES
    assert hashing.hash_files(files, cache) == HASHES
    assert sorted(read) == NAMES


@pytest.mark.parametrize(
    ("recent_ns", "place"),
    [(10**18, "cache.json"), (0, "a.png/cache.json")],  # just written; cannot be written
)
def test_files_are_read_again_if_recent_or_without_cache(
    recent_ns, place, tmp_path, files, read, monkeypatch
):
    monkeypatch.setattr(hashing, "_RECENT_NS", recent_ns)
    for _ in range(2):
        assert hashing.hash_files(files, tmp_path / place) == HASHES
    assert sorted(read) == sorted(NAMES * 2)
