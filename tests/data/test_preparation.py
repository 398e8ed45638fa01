"""Sources are prepared once, found again, and never used half-prepared."""

import csv
import errno
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.data.test_decoding import encode, picture
from tests.data.test_sources import fill, zipped
from vaegan_jax import config as configuration
from vaegan_jax.data import decoding, images, preparation, preprocessing
from vaegan_jax.errors import UserError


@pytest.fixture
def data(tmp_path):
    """A config's data section for 40 small pictures."""
    config = configuration.default_config()
    config.data.name, config.data.path = "folder", str(tmp_path / "pictures")
    config.data.directory, config.data.image_size = str(tmp_path / "prepared"), (16, 32)
    config.data.held_out_one_in, config.data.workers = 3, 2
    for number in range(40):
        fill(tmp_path / "pictures", f"{number:02}.png", data=encode(picture(number), "png"))
    return config.data


@pytest.fixture
def decoded(monkeypatch):
    """Counts how many files are decoded."""
    count, real = [], decoding.decode

    def decode(data):
        count.append(len(data))
        return real(data)

    monkeypatch.setattr(decoding, "decode", decode)
    return count


def contents(split):
    return {image.tobytes() for image in split[:]}


def everything(loaded):
    return set().union(*map(contents, loaded[:3]))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"fit": "pad", "background": "red"},
        {"fit": "stretch"},
        {"channels": 1},
        {"image_size": 48},
    ],
)
def test_images_are_prepared_by_the_settings(data, change):
    images.load(data)
    data.update(change)
    size = data.image_size
    height, width = (size, size) if isinstance(size, int) else size
    settings = preprocessing.Settings(height, width, data.channels, data.fit, data.background)
    loaded = images.load(data)
    assert loaded.shape == (height, width, data.channels)
    assert everything(loaded) == {
        preprocessing.prepare(picture(number), settings).tobytes() for number in range(40)
    }


@pytest.mark.parametrize(("workers", "shard_size", "shards"), [(7, 40, 1), (2, 7, 6)])
def test_result_depends_on_neither_workers_nor_shards(
    data, monkeypatch, tmp_path, workers, shard_size, shards
):
    before = images.load(data)
    monkeypatch.setattr(preparation, "_SHARD_BYTES", shard_size * 16 * 32 * 3)
    monkeypatch.setattr(preparation, "_BATCH", 5)
    data.workers, data.directory = workers, str(tmp_path / "again")
    after = images.load(data)
    assert len(list(pathlib.Path(data.directory).rglob("*array_record*"))) == shards
    assert after.digest == before.digest
    for one, other in zip(before[:3], after[:3], strict=True):
        np.testing.assert_array_equal(one[:], other[:])


def test_changed_folder_is_prepared_again(data, decoded):
    first = images.load(data)
    fill(pathlib.Path(data.path), "new.png", data=encode(picture(99), "png"))
    second = images.load(data)
    assert len(decoded) == 81
    assert len(everything(second) - everything(first)) == 1
    for before, after in zip(first[:3], second[:3], strict=True):
        assert contents(after) >= contents(before)
    assert second.digest != first.digest
    (pathlib.Path(data.path) / "new.png").unlink()
    again = images.load(data)
    assert len(decoded) == 81  # the first preparation was kept
    assert again.digest == first.digest
    np.testing.assert_array_equal(again.train[:], first.train[:])


def test_copied_folder_is_not_prepared_again_and_zip_has_same_digest(data, decoded, tmp_path):
    first = images.load(data)
    copy = tmp_path / "copy" / "pictures"
    shutil.copytree(data.path, copy)  # with its times
    data.path = str(copy)
    assert images.load(data).digest == first.digest
    assert len(decoded) == 40
    files = {path.name: path.read_bytes() for path in copy.iterdir()}
    data.path = str(zipped(tmp_path / "pictures.zip", files))
    assert images.load(data).digest == first.digest


@pytest.mark.parametrize("place", ["PIL.__version__", "vaegan_jax.data.preparation.VERSION"])
def test_other_version_is_prepared_again(place, data, decoded, monkeypatch):
    images.load(data)
    monkeypatch.setattr(place, "0.0.1")
    images.load(data)
    assert len(decoded) == 80


def test_file_that_cannot_be_read_is_refused_and_used_later(data, monkeypatch):
    def read_bytes(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "read_bytes", read_bytes)
        with pytest.raises(UserError, match=r"\d\d\.png of .* cannot be read .*Input/output"):
            images.load(data)
    assert len(everything(images.load(data))) == 40


def test_bad_files_are_skipped_counted_and_listed(data):
    folder = pathlib.Path(data.path)
    complete = images.load(data)
    fill(folder, "empty.png", data=b"")
    fill(folder, "cut, or not.jpg", data=encode(picture(), "jpeg")[:-100])
    fill(folder, "text\n.gif", data=b"no image")
    loaded = images.load(data)
    assert loaded.digest == complete.digest
    assert loaded.skipped == 3
    with loaded.skipped_list.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["name", "reason"]
    assert [name for name, _ in rows[1:]] == ["cut, or not.jpg", "empty.png", "text\n.gif"]
    assert "truncated" in rows[1][1]
    assert "not an image" in rows[2][1]
    assert str(loaded.skipped_list) in images.describe(loaded)


def test_too_many_bad_files_are_refused(data):
    folder = pathlib.Path(data.path)
    for number in range(5):  # five of 45 are more than a tenth
        fill(folder, f"bad{number}.png", data=b"bad")
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"5 of the 45 .*skipped\.csv.*data\.max_bad_fraction \(0\.1\)"
        ):
            images.load(data)
    data.max_bad_fraction = 0.12
    loaded = images.load(data)
    assert (loaded.skipped, len(everything(loaded))) == (5, 40)


def test_source_without_usable_file_is_refused(data, tmp_path):
    data.path = str(tmp_path / "bad")
    fill(tmp_path / "bad", "a.png", "b.heic", data=b"bad")
    for _ in range(2):
        with pytest.raises(UserError, match=r"2 of the 2 images of .*bad .*skipped\.csv"):
            images.load(data)


def test_duplicates_are_counted_and_in_one_split(data):
    folder = pathlib.Path(data.path)
    before = images.load(data)
    for number in range(40):  # the same pixels in another format
        fill(folder, f"copy of {number}.bmp", data=encode(picture(number), "bmp"))
    loaded = images.load(data)
    assert loaded.duplicates == 40
    assert before.duplicates == 0
    assert contents(loaded.train) == contents(before.train)
    assert not contents(loaded.train) & contents(loaded.test)
    assert len(loaded.train) == 2 * len(before.train)
    assert "40 duplicates" in images.describe(loaded)


def test_name_that_is_not_utf8_is_prepared_and_listed(data):
    folder = os.fsencode(data.path)
    for name, content in ((b"caf\xe9.png", encode(picture(77), "png")), (b"th\xe9.png", b"bad")):
        with open(folder + b"/" + name, "wb") as file:  # noqa: PTH123 - a name of bytes
            file.write(content)
    loaded = images.load(data)
    assert len(everything(loaded)) == 41
    assert "th\\udce9.png" in loaded.skipped_list.read_text()


LOAD = """
import resource, sys, time
from vaegan_jax import config as configuration
from vaegan_jax.data import images, preprocessing
from vaegan_jax.errors import UserError
config = configuration.default_config()
config.data.name, config.data.path, config.data.directory = "folder", sys.argv[1], sys.argv[2]
config.data.image_size, config.data.workers = (16, 32), 2
real = preprocessing.prepare
def slowly(image, settings):
    time.sleep(0.2)
    print('decoded')
    return real(image, settings)
if sys.argv[3] == "slowly":
    preprocessing.prepare = slowly
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # no file may become larger
try:
    images.load(config.data)
except UserError as error:
    sys.exit(str(error))
"""


def start(data, how):
    """Loads the images in another process."""
    command = [sys.executable, "-c", LOAD, data.path, data.directory, how]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_killed_preparation_is_not_used_and_is_removed(data):
    process = start(data, "slowly")
    folder = pathlib.Path(data.directory)
    for _ in range(600):
        if list(folder.rglob("incomplete.*")):
            break
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(folder.rglob("incomplete.*"))
    assert len(everything(images.load(data))) == 40
    assert not list(folder.rglob("incomplete.*"))


def test_full_disk_is_reported(data):
    process = start(data, "without space")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "data.directory" in errors.splitlines()[-1]
    assert not list(pathlib.Path(data.directory).rglob("*array_record*"))


def test_two_processes_prepare_once(data):
    processes = [start(data, "slowly") for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(output.count("decoded") for output in outputs) == [0, 40]


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_damaged_shards_are_reported(data, damage):
    images.load(data)
    (shard,) = pathlib.Path(data.directory).rglob("*array_record*")
    content = bytearray(shard.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    else:
        for place in range(len(content) // 4, len(content), 500):
            content[place] ^= 0xFF
    shard.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        everything(images.load(data))
