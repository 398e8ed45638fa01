"""Prepared once, found again, and never trusted half-made."""

import csv
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.conftest import ROOT
from tests.data.test_decoding import encode, picture
from tests.data.test_sources import fill, zipped
from vaegan_jax import config as configuration
from vaegan_jax.data import decoding, hashing, images, preparation, preprocessing
from vaegan_jax.errors import UserError


@pytest.fixture
def data(tmp_path):
    """A config's data section for forty small pictures."""
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


def everything(loaded):
    return {image.tobytes() for split in (loaded.train, loaded.held_out) for image in split[:]}


def test_every_image_is_prepared_as_the_settings_want(data):
    loaded = images.load(data)
    expected = {
        preprocessing.prepare(picture(number), preprocessing.Settings(16, 32)).tobytes()
        for number in range(40)
    }
    assert everything(loaded) == expected
    assert loaded.shape == (16, 32, 3)


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
def test_each_setting_is_a_preparation_of_its_own(data, change):
    images.load(data)
    data.update(change)
    size = data.image_size
    height, width = (size, size) if isinstance(size, int) else size
    wanted = preprocessing.Settings(height, width, data.channels, data.fit, data.background)
    loaded = images.load(data)
    assert everything(loaded) == {
        preprocessing.prepare(picture(number), wanted).tobytes() for number in range(40)
    }


def test_several_shards_keep_the_order(data, monkeypatch, tmp_path):
    one = images.load(data)
    monkeypatch.setattr(preparation, "_SHARD_BYTES", 7 * 16 * 32 * 3)
    monkeypatch.setattr(preparation, "_BATCH", 5)
    data.directory = str(tmp_path / "again")
    several = images.load(data)
    assert len(list(pathlib.Path(data.directory).rglob("*array_record*"))) == 6  # of 7 images each
    np.testing.assert_array_equal(several.train[:], one.train[:])
    np.testing.assert_array_equal(several.held_out[:], one.held_out[:])


def test_a_second_start_decodes_nothing(data, decoded):
    first = images.load(data)
    assert len(decoded) == 40
    second = images.load(data)
    assert len(decoded) == 40
    assert second.digest == first.digest
    np.testing.assert_array_equal(second.train[:], first.train[:])


def test_a_changed_folder_is_noticed(data, decoded):
    first = images.load(data)
    fill(pathlib.Path(data.path), "new.png", data=encode(picture(99), "png"))
    second = images.load(data)
    assert len(decoded) == 81
    assert len(everything(second) - everything(first)) == 1
    assert second.digest != first.digest
    (pathlib.Path(data.path) / "new.png").unlink()
    assert images.load(data).digest == first.digest
    assert len(decoded) == 81  # what was prepared before is still there


def test_a_folder_moved_elsewhere_is_the_same(data, decoded):
    first = images.load(data)
    moved = pathlib.Path(data.path).with_name("elsewhere") / "pictures"
    moved.parent.mkdir()
    pathlib.Path(data.path).rename(moved)
    data.path = str(moved)
    assert images.load(data).digest == first.digest
    assert len(decoded) == 40


def test_folders_of_the_same_names_sizes_and_times_are_not_confused(data, tmp_path):
    def write(number):
        folder = tmp_path / str(number) / "pictures"
        for name in range(40):
            fill(folder, f"{name:02}.bmp", data=encode(picture(100 * number + name), "bmp"))
            os.utime(folder / f"{name:02}.bmp", ns=(10**18, 10**18))
        return folder

    for number in (1, 2):
        data.path = str(write(number))
        expected = {
            preprocessing.prepare(picture(100 * number + name), images.settings(data)).tobytes()
            for name in range(40)
        }
        assert everything(images.load(data)) == expected


def test_a_file_edited_in_place_with_its_time_put_back_is_noticed(data):
    path = pathlib.Path(data.path) / "07.png"
    path.write_bytes(encode(picture(7), "bmp"))
    first, before = images.load(data), path.stat()
    path.write_bytes(encode(picture(99), "bmp"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    new = preprocessing.prepare(picture(99), images.settings(data)).tobytes()
    assert everything(images.load(data)) - everything(first) == {new}


def test_a_copy_of_other_times_and_inodes_is_the_same(data, decoded):
    first = images.load(data)
    shutil.copytree(data.path, data.path + ".new", copy_function=shutil.copyfile)
    shutil.rmtree(data.path)
    pathlib.Path(data.path + ".new").rename(data.path)
    assert images.load(data).digest == first.digest
    assert len(decoded) == 40


def test_a_zip_replaced_in_place_is_noticed(data, tmp_path):
    path, digests = tmp_path / "pictures.zip", []
    for number in (1, 2):
        contents = {f"{i}.bmp": encode(picture(number * 50 + i), "bmp") for i in range(40)}
        zipped(path, contents)
        os.utime(path, ns=(10**18, 10**18))
        data.path = str(path)
        digests.append(images.load(data).digest)
    assert digests[0] != digests[1]


@pytest.mark.parametrize("place", ["PIL.__version__", "preparation.PreparedImages.VERSION"])
def test_what_another_version_prepared_is_not_used(place, data, decoded, monkeypatch):
    images.load(data)
    target = f"vaegan_jax.data.{place}" if place.startswith("prep") else place
    monkeypatch.setattr(target, tfds.core.Version("0.0.1") if "VERSION" in place else "0")
    images.load(data)
    assert len(decoded) == 80


def refuse(monkeypatch, method, name, times=10**9):
    """Lets a method of paths fail for one name, so many times."""
    real, left = getattr(pathlib.Path, method), iter(range(times))

    def failing(path, *arguments, **options):
        if path.name == name and next(left, None) is not None:
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(pathlib.Path, method, failing)


def test_a_file_that_could_not_be_read_once_is_used_when_it_can_be(data, monkeypatch, decoded):
    for _ in range(2):
        with monkeypatch.context() as patch:
            refuse(patch, "open", "07.png")
            loaded = images.load(data)
        assert (loaded.skipped, len(everything(loaded)), len(decoded)) == (1, 39, 39)
        assert "07.png,cannot be read" in loaded.skipped_list.read_text()
    loaded = images.load(data)
    assert (loaded.skipped, len(everything(loaded))) == (0, 40)


@pytest.mark.parametrize("times", [1, 2])
def test_a_file_that_fails_while_it_is_prepared_is_tried_again(data, monkeypatch, times):
    refuse(monkeypatch, "read_bytes", "07.png", times)
    loaded = images.load(data)
    assert (loaded.skipped, len(everything(loaded))) == (0, 40)


def test_a_file_that_fails_only_while_it_is_prepared_is_named(data, monkeypatch):
    with monkeypatch.context() as patch:
        refuse(patch, "read_bytes", "07.png")
        with pytest.raises(UserError, match=r"pictures.*07\.png"):
            images.load(data)
    assert not list(pathlib.Path(data.directory).rglob("dataset_info.json"))
    assert len(everything(images.load(data))) == 40


def test_a_file_that_fails_after_it_was_hashed_in_an_earlier_run_is_skipped(data, monkeypatch):
    monkeypatch.setattr(hashing, "_RECENT_NS", 0)
    images.load(data)
    data.update({"image_size": 48})  # so that all are read again
    refuse(monkeypatch, "open", "07.png")
    loaded = images.load(data)
    assert (loaded.skipped, len(everything(loaded))) == (1, 39)


def test_the_number_of_workers_changes_no_bit(data, tmp_path):
    one = images.load(data)
    data.workers, data.directory = 7, str(tmp_path / "again")
    seven = images.load(data)
    assert one.digest == seven.digest
    np.testing.assert_array_equal(one.train[:], seven.train[:])


def test_a_folder_and_its_zip_give_the_same_images(data, tmp_path):
    loaded = images.load(data)
    contents = {path.name: path.read_bytes() for path in pathlib.Path(data.path).iterdir()}
    data.path = str(zipped(tmp_path / "pictures.zip", contents))
    assert images.load(data).digest == loaded.digest


def test_bad_files_are_skipped_counted_and_listed(data):
    folder = pathlib.Path(data.path)
    whole = images.load(data)
    fill(folder, "empty.png", data=b"")
    fill(folder, "cut, or not.jpg", data=encode(picture(), "jpeg")[:-100])
    fill(folder, "text\n.gif", data=b"no image")
    loaded = images.load(data)
    assert loaded.digest == whole.digest
    assert loaded.skipped == 3
    with loaded.skipped_list.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["name", "reason"]
    assert [name for name, _ in rows[1:]] == ["cut, or not.jpg", "empty.png", "text\n.gif"]
    assert rows[2][1] == "empty"
    assert "truncated" in rows[1][1]
    assert str(loaded.skipped_list) in images.describe(loaded)
    assert "; skipped 3, which" in images.describe(loaded)


def test_too_many_bad_files_stop_the_run_and_are_listed(data):
    folder = pathlib.Path(data.path)
    for number in range(5):  # five of 45 are more than a tenth
        fill(folder, f"bad{number}.png", data=b"bad")
    for _ in range(2):
        with pytest.raises(UserError, match=r"5 of the 45 images .*skipped\.csv .*which is 0\.1"):
            images.load(data)
    data.max_bad_fraction = 0.12
    loaded = images.load(data)
    assert (loaded.skipped, len(everything(loaded))) == (5, 40)


def test_no_usable_file_at_all_stops_the_run(data, tmp_path):
    data.path = str(tmp_path / "bad")
    fill(tmp_path / "bad", "a.png", "b.jpg", data=b"bad")
    with pytest.raises(UserError, match=r"None of the 2 images of .*bad .*skipped\.csv") as caught:
        images.load(data)
    listed = str(caught.value).rpartition(" ")[2].removesuffix(".")
    assert pathlib.Path(listed).read_text().count("not an image") == 2


def test_duplicates_are_counted_and_stand_on_one_side(data):
    folder = pathlib.Path(data.path)
    before = images.load(data)
    for number in range(40):  # the same pixels in another format
        fill(folder, f"copy of {number}.bmp", data=encode(picture(number), "bmp"))
    loaded = images.load(data)
    assert loaded.duplicates == 40
    assert before.duplicates == 0
    train = {image.tobytes() for image in loaded.train[:]}
    assert not train & {image.tobytes() for image in loaded.held_out[:]}
    assert len(loaded.train) == 2 * len(before.train)
    assert "40 of them equal to another" in images.describe(loaded)


def test_an_added_file_moves_no_other_across(data):
    before = images.load(data)
    train = {image.tobytes() for image in before.train[:]}
    held_out = {image.tobytes() for image in before.held_out[:]}
    for number in range(40, 60):
        fill(pathlib.Path(data.path), f"0{number}.png", data=encode(picture(number), "png"))
    after = images.load(data)
    assert train < {image.tobytes() for image in after.train[:]}
    assert held_out < {image.tobytes() for image in after.held_out[:]}


def test_a_name_that_is_no_utf_8_is_prepared_and_listed(data):
    folder = os.fsencode(data.path)
    for name, content in ((b"caf\xe9.png", encode(picture(77), "png")), (b"th\xe9.png", b"bad")):
        with open(folder + b"/" + name, "wb") as file:  # noqa: PTH123 - a name of bytes
            file.write(content)
    loaded = images.load(data)
    assert len(everything(loaded)) == 41
    assert "th\\udce9.png" in loaded.skipped_list.read_text()


def test_an_interrupted_preparation_leaves_nothing_that_is_trusted(data, monkeypatch):
    real = preprocessing.prepare
    calls = iter(range(100))

    def fail(image, settings):
        if next(calls) > 20:
            raise KeyboardInterrupt
        return real(image, settings)

    with monkeypatch.context() as patch:
        patch.setattr(preprocessing, "prepare", fail)
        with pytest.raises(KeyboardInterrupt):
            images.load(data)
    assert not list(pathlib.Path(data.directory).rglob("dataset_info.json"))
    assert len(everything(images.load(data))) == 40


SLOWLY = """
import sys, time
from vaegan_jax import config as configuration
from vaegan_jax.data import images, preprocessing
config = configuration.default_config()
config.data.name, config.data.path, config.data.directory = "folder", sys.argv[1], sys.argv[2]
config.data.image_size, config.data.workers = (16, 32), 2
real = preprocessing.prepare
def slowly(image, settings):
    time.sleep(0.2)
    return real(image, settings)
preprocessing.prepare = slowly
images.load(config.data)
"""


def test_a_killed_preparation_leaves_nothing_that_is_trusted_or_stays(data):
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, data.path, data.directory], cwd=ROOT)
    folder = pathlib.Path(data.directory)
    for _ in range(600):
        if list(folder.rglob("incomplete.*")):
            break
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(folder.rglob("incomplete.*"))
    assert len(everything(images.load(data))) == 40
    assert not list(folder.rglob("incomplete.*"))


WITHOUT_SPACE = """
import resource, sys
from vaegan_jax import config as configuration
from vaegan_jax.data import images
from vaegan_jax.errors import UserError
config = configuration.default_config()
config.data.name, config.data.path, config.data.directory = "folder", sys.argv[1], sys.argv[2]
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # no file may become larger
try:
    images.load(config.data)
except UserError as error:
    sys.exit(str(error))
"""


def test_a_full_disk_is_named_and_leaves_nothing(data):
    arguments = [sys.executable, "-c", WITHOUT_SPACE, data.path, data.directory]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    message = result.stderr.splitlines()[-1]
    assert "pictures cannot be prepared" in message
    assert "set data.directory to a folder that can be written and has space" in message
    assert not list(pathlib.Path(data.directory).rglob("*array_record*"))


def test_two_processes_prepare_once(data):
    arguments = [sys.executable, "-c", SLOWLY, data.path, data.directory]
    processes = [
        subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum("Prepared in" in output for output in outputs) == 1
    assert sum("Waiting for another process" in output for output in outputs) == 1


def test_prepared_data_may_be_read_only(data, decoded):
    images.load(data)
    for path in [pathlib.Path(data.directory), *pathlib.Path(data.directory).rglob("*")]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        assert len(everything(images.load(data))) == 40
    finally:
        for path in [pathlib.Path(data.directory), *pathlib.Path(data.directory).rglob("*")]:
            path.chmod(0o700)
    assert len(decoded) == 40


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_shards_are_named(data, damage):
    images.load(data)
    (shard,) = pathlib.Path(data.directory).rglob("*array_record*")
    content = bytearray(shard.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        for place in range(len(content) // 4, len(content), 500):
            content[place] ^= 0xFF
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"prepared images in .* cannot be read .*: remove that"):
        everything(images.load(data))


def test_progress_is_shown_in_a_terminal_only(data, capfd):
    images.load(data)
    out, err = capfd.readouterr()
    assert "Preparing 40 images" in out
    assert "images/s" in out
    assert "\r" not in out + err


def test_the_digest_follows_pixels_and_order():
    digests = np.arange(3 * 32, dtype=np.uint8).reshape(3, 32)
    assert preparation.digest(digests) == preparation.digest(digests.copy())
    assert preparation.digest(digests) != preparation.digest(digests[::-1])
