"""Data sets of TFDS: built by its own machinery, with small builders in place of downloads."""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.data.own_sets import COUNT, pixels
from vaegan_jax import config as configuration
from vaegan_jax.data import images, tfds_sets
from vaegan_jax.errors import UserError

OWN = "tests.data.own_sets"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder in which a set was prepared, as on another machine."""
    directory = tmp_path_factory.mktemp("tfds")
    tfds_sets.prepare(f"{OWN}:OwnDigits", str(directory))
    return directory


def data(directory, name="own_digits", **fields):
    config = configuration.default_config()
    config.data.update({"name": name, "directory": str(directory), "image_size": 32} | fields)
    configuration.check(config)
    return config.data


def everything(loaded):
    return {image.tobytes() for split in (loaded.train, loaded.held_out) for image in split[:]}


def expected(numbers, channels):
    """The pictures by Pillow alone: a bilinear resize to 32x32."""
    resized = (
        Image.fromarray(pixels(number)).resize((32, 32), Image.Resampling.BILINEAR)
        for number in numbers
    )
    return {
        np.repeat(np.asarray(image)[..., None], channels, axis=-1).tobytes() for image in resized
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images_of_another_size_come_out_right(prepared, channels):
    loaded = images.load(data(prepared, channels=channels))
    assert loaded.shape == (32, 32, channels)
    assert everything(loaded) == expected(range(COUNT), channels)


@pytest.mark.parametrize(
    ("split", "numbers"),
    [
        ("test", range(COUNT, 2 * COUNT)),
        ("train+test", range(2 * COUNT)),
        ("all", range(2 * COUNT)),
    ],
)
def test_a_split_is_named_in_tfds_notation(prepared, split, numbers):
    loaded = images.load(data(prepared, split=split))
    assert everything(loaded) == expected(numbers, 3)
    assert len(images.open_source(data(prepared, split="train[:7]")).names) == 7


def test_a_builder_of_ones_own_is_prepared_in_another_process(tmp_path):
    loaded = images.load(data(tmp_path, f"{OWN}:OwnDigits"))
    assert everything(loaded) == expected(range(COUNT), 3)
    # What TFDS wrote is an ordinary prepared set, which needs no code any more.
    assert images.load(data(tmp_path, "own_digits")).digest == loaded.digest


def test_a_prepared_set_is_read_without_its_code_and_without_tensorflow(prepared):
    program = (
        "import sys; from vaegan_jax.data import tfds_sets\n"
        "source = tfds_sets.open_set('own_digits', 'train', '', sys.argv[1])\n"
        "assert source.read(0).startswith(b'\\x89PNG')\n"
        "assert not {'tensorflow', 'tests.data.own_sets'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", program, str(prepared)]
    assert subprocess.run(command, cwd=ROOT, timeout=120).returncode == 0


def test_a_set_prepared_anew_is_noticed(prepared, tmp_path):
    before = images.open_source(data(prepared)).identity
    shutil.copytree(prepared / "own_digits", tmp_path / "own_digits")
    assert images.open_source(data(tmp_path)).identity == before
    info = next((tmp_path / "own_digits").rglob("dataset_info.json"))
    info.write_text(json.dumps(json.loads(info.read_text()) | {"description": "other"}))
    assert images.open_source(data(tmp_path)).identity != before


def test_a_set_of_the_same_name_and_sizes_with_other_images_is_noticed(prepared, tmp_path):
    before = images.open_source(data(prepared)).identity
    shutil.copytree(prepared / "own_digits", tmp_path / "own_digits")
    (shard,) = (tmp_path / "own_digits").rglob("*-train.array_record*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    status = shard.stat()
    shard.write_bytes(content)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert images.open_source(data(tmp_path)).identity != before
    # The other split is as it was.
    test = data(tmp_path, split="test"), data(prepared, split="test")
    assert len({images.open_source(each).identity for each in test}) == 1


def refused(directory, name, **fields):
    with pytest.raises(UserError) as caught:
        images.load(data(directory, name, **fields))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_name_is_refused_with_the_nearest(tmp_path):
    message = refused(tmp_path, "mnistt")
    assert message.startswith("data.name is mnistt, which TFDS does not know")
    assert "did you mean" in message
    assert "mnist" in message.partition("did you mean")[2]
    assert "folder (with data.path)" in refused(tmp_path, "qqqqqq")


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("mnist:9.9.9", "cannot be loaded at version 9.9.9"),
        ("lsun/nothing", "BuilderConfig nothing not found"),
        ("no_such_module.at_all:Builder", "No module named 'no_such_module'"),
        (f"{OWN}:Missing", "no attribute 'Missing'"),
    ],
)
def test_an_unknown_version_variant_or_builder_is_refused(tmp_path, name, pattern):
    message = refused(tmp_path, name)
    assert message.startswith(f"data.name is {name}, and ")
    assert pattern in message


def test_an_unknown_split_or_feature_is_refused_with_those_there_are(prepared):
    assert "own_digits has the splits test, train" in refused(prepared, "own_digits", split="dev")
    message = refused(prepared, "own_digits", feature="label")
    assert "data.feature is 'label': set it to one of the image features" in message
    assert message.endswith("own_digits, picture.")


def test_of_two_image_features_one_has_to_be_named(tmp_path):
    name = f"{OWN}:TwoImages"
    assert "left or right" in refused(tmp_path, name)
    loaded = images.load(data(tmp_path, name, feature="right"))
    assert {image[0, 0, 2] for image in loaded.train[:]} == {2}


def test_a_set_without_images_is_refused(tmp_path):
    assert "has no images" in refused(tmp_path, f"{OWN}:NoImages")


def test_a_set_that_cannot_be_downloaded_says_how_to_go_on(tmp_path):
    message = refused(tmp_path, f"{OWN}:NoNetwork")
    assert "cannot be downloaded" in message
    assert f"copy {tmp_path}/no_network from there" in message


def test_a_set_to_be_downloaded_by_hand_says_where_to(tmp_path):
    message = refused(tmp_path, f"{OWN}:ByHand")
    assert f"by hand into {tmp_path}/downloads/manual: Register at example.org" in message


def test_a_broken_builder_is_named(tmp_path):
    message = refused(tmp_path, f"{OWN}:Broken")
    assert "tests.data.own_sets:Broken could not be prepared (ZeroDivisionError" in message


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed"
)
def test_where_tensorflow_is_missing_the_message_says_what_to_install(tmp_path):
    message = refused(tmp_path, f"{OWN}:NeedsTensorflow")
    assert "needs tensorflow while it is prepared, and only then" in message
    assert "pip install -e '.[prepare]'" in message


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow, an extra"
)
def test_with_tensorflow_it_is_prepared_and_not_imported_here(tmp_path):
    loaded = images.load(data(tmp_path, f"{OWN}:NeedsTensorflow"))
    assert everything(loaded) == expected(range(COUNT), 3)
    assert "tensorflow" not in sys.modules


def test_a_set_prepared_as_tfrecord_says_what_to_do(prepared, tmp_path):
    shutil.copytree(prepared / "own_digits", tmp_path / "own_digits")
    for path in list(tmp_path.rglob("*array_record*")):
        path.rename(path.with_name(path.name.replace("array_record", "tfrecord")))
    for path in tmp_path.rglob("dataset_info.json"):
        path.write_text(path.read_text().replace("array_record", "tfrecord"))
    message = refused(tmp_path, "own_digits")
    folder = pathlib.Path(tmp_path, "own_digits", "1.0.0")
    assert f"was prepared in {folder} as tfrecord, which only TensorFlow reads" in message
    assert "set data.directory to another" in message
