"""Hashes of files: right whatever names, sizes and times say, and read as seldom as can be."""

import hashlib
import os
import pathlib
import shutil
import time

import pytest

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
    """Names the files that are opened; no file counts as changed a moment ago."""
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


WHOLE = expected(*(name.encode() * 1000 for name in NAMES))


def edit(path):
    """Changes a file in place and puts its time back."""
    time.sleep(0.02)  # a tick of the clock, which a user's files have behind them
    before = path.stat()
    with open(path, "r+b") as file:  # noqa: PTH123 - not counted
        file.write(b"B" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchange(path):
    """Puts another file of the same size and time in a file's place."""
    other = path.with_name("other")
    shutil.copy2(path, other)
    edit(other)
    other.replace(path)


def redirect(path):
    """Lets a link lead to another file of the same size and time."""
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)
    assert hashing.hash_files([path]) == expected(target.read_bytes())
    other = path.with_name("other")
    shutil.copy2(target, other)
    edit(other)
    path.unlink()
    path.symlink_to(other)


def test_each_file_is_read_once(tmp_path, files, read):
    cache = tmp_path / "made" / "cache.json"
    assert hashing.hash_files(files, cache) == WHOLE
    assert sorted(read) == NAMES
    assert hashing.hash_files(files[::-1], cache) == WHOLE[::-1]
    assert sorted(read) == NAMES
    assert hashing.hash_files(files) == WHOLE
    assert sorted(read) == sorted(NAMES * 2)


@pytest.mark.parametrize("change", [edit, exchange, redirect])
def test_a_file_of_the_same_name_size_and_time_is_read_again(change, tmp_path, files, read):
    cache = tmp_path / "cache.json"
    hashing.hash_files(files, cache)
    before = files[1].stat()
    change(files[1])
    after = files[1].stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    read.clear()
    content = b"B" * before.st_size
    assert hashing.hash_files(files, cache) == [WHOLE[0], *expected(content), WHOLE[2]]
    assert read == ["b.png"]


@pytest.mark.parametrize(("name", "value"), [("_COARSE_NS", 1), ("_RECENT_NS", 10**18)])
def test_where_the_time_of_change_may_not_tell_files_are_read_again(
    name, value, tmp_path, files, read, monkeypatch
):
    monkeypatch.setattr(hashing, name, value)  # as on FAT, or a moment after the file was written
    for _ in range(2):
        assert hashing.hash_files(files, tmp_path / "cache.json") == WHOLE
    assert sorted(read) == sorted(NAMES * 2)


def test_a_file_that_cannot_be_read_is_an_error_that_is_not_kept(tmp_path, files, monkeypatch):
    monkeypatch.setattr(hashing, "_RECENT_NS", 0)
    cache, real = tmp_path / "cache.json", pathlib.Path.open

    def refused(path, *arguments, **options):
        if path.name == "b.png":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "open", refused)
        first, failed, last = hashing.hash_files(files, cache)
    assert isinstance(failed, PermissionError)
    assert [first, last] == [WHOLE[0], WHOLE[2]]
    assert hashing.hash_files(files, cache) == WHOLE
    assert isinstance(hashing.hash_files([tmp_path / "gone"], cache)[0], FileNotFoundError)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"PATH": 3}', b'{"PATH": []}'])
def test_a_broken_cache_is_replaced(content, tmp_path, files, read):
    cache = tmp_path / "cache.json"
    cache.write_bytes(content.replace(b"PATH", os.fsencode(files[0])))
    assert hashing.hash_files(files, cache) == WHOLE
    assert hashing.hash_files(files, cache) == WHOLE
    assert sorted(read) == NAMES


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path, files, read):
    for _ in range(2):
        assert hashing.hash_files(files, files[0] / "cache.json") == WHOLE
    assert sorted(read) == sorted(NAMES * 2)
