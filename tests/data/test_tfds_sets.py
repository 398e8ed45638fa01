"""TFDS data sets, prepared by small local builders instead of downloads."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.data import own_sets
from tests.data.own_sets import COUNT, pixels
from vaegan_jax import config as configuration
from vaegan_jax.data import images, tfds_sets
from vaegan_jax.errors import UserError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a prepared set, as copied from another machine."""
    directory = tmp_path_factory.mktemp("tfds")
    own_sets.prepare(own_sets.OwnDigits, directory)
    return directory


def data(directory, name="own_digits", **fields):
    config = configuration.default_config()
    config.data.update({"name": name, "directory": str(directory), "image_size": 32} | fields)
    configuration.check(config)
    return config.data


def everything(loaded):
    return {image.tobytes() for split in loaded[:3] for image in split[:]}


def expected(numbers, channels):
    """The pictures, resized to 32x32 by Pillow."""
    resized = (
        Image.fromarray(pixels(number)).resize((32, 32), Image.Resampling.BILINEAR)
        for number in numbers
    )
    return {
        np.repeat(np.asarray(image)[..., None], channels, axis=-1).tobytes() for image in resized
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images_are_resized_and_converted(prepared, channels):
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
def test_split_in_tfds_notation(prepared, split, numbers):
    loaded = images.load(data(prepared, split=split))
    assert everything(loaded) == expected(numbers, 3)
    assert len(images.open_source(data(prepared, split="train[:7]")).names) == 7


def test_prepared_set_is_read_without_its_code_tensorflow_or_torch(prepared):
    program = (
        "import sys; from vaegan_jax import config; from vaegan_jax.data import images\n"
        "data = config.default_config().data\n"
        "data.update({'name': 'own_digits', 'directory': sys.argv[1]})\n"
        "assert len(images.load(data).train[:10]) == 10\n"
        "assert not {'tensorflow', 'torch', 'tests.data.own_sets'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", program, str(prepared)]
    assert subprocess.run(command, cwd=ROOT, timeout=120).returncode == 0


@pytest.fixture
def copied(prepared, tmp_path):
    """A copy of the prepared set that a test may change."""
    shutil.copytree(prepared / "own_digits", tmp_path / "own_digits")
    return tmp_path


def test_identity_depends_on_the_files_of_the_split(prepared, copied):
    def identity(directory, split="train"):
        return images.open_source(data(directory, split=split)).identity

    before = identity(prepared)
    assert identity(copied) == before
    (shard,) = copied.rglob("*-train.array_record*")
    os.utime(shard, ns=(10**18, 10**18))  # as if it had been written again
    assert identity(copied) != before
    assert identity(copied, "test") == identity(prepared, "test")


def refused(directory, name, **fields):
    with pytest.raises(UserError) as caught:
        images.load(data(directory, name, **fields))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("mnistt", "mnist"),  # the closest name
        ("qqqqqq", "data.path"),
        ("mnist:9.9.9", "9.9.9"),
        ("lsun/nothing", "nothing"),
    ],
)
def test_unknown_data_set_is_refused(tmp_path, name, part):
    message = refused(tmp_path, name)
    assert message.startswith(f"data.name is {name}, ")
    assert part in message.removeprefix(f"data.name is {name}, ")


def test_failed_preparation_names_the_remedies(tmp_path):
    # The other process does not know this builder.
    message = refused(tmp_path, "own_texts")
    for part in (str(tmp_path), "vaegan-jax[prepare]", "downloads/manual"):
        assert part in message


def test_set_is_prepared_in_another_process(tmp_path, monkeypatch):
    program = f"import tests.data.own_sets\n{tfds_sets._PROGRAM}"
    monkeypatch.setattr(tfds_sets, "_PROGRAM", program)
    loaded = images.load(data(tmp_path))
    assert everything(loaded) == expected(range(COUNT), 3)


def test_unknown_split_or_feature_is_refused_with_the_available_ones(prepared):
    assert "test, train" in refused(prepared, "own_digits", split="dev")
    assert refused(prepared, "own_digits", feature="label").endswith("own_digits: picture.")


def test_ambiguous_or_missing_image_feature_is_refused(tmp_path):
    for builder in (own_sets.OwnPairs, own_sets.OwnTexts):
        own_sets.prepare(builder, tmp_path)
    assert "feature" in refused(tmp_path, "own_texts")
    assert "left or right" in refused(tmp_path, "own_pairs")
    loaded = images.load(data(tmp_path, "own_pairs", feature="right"))
    assert {image[0, 0, 2] for image in loaded.train[:]} == {2}


def test_set_stored_as_tfrecord_is_refused(copied):
    for path in list(copied.rglob("*array_record*")):
        path.rename(path.with_name(path.name.replace("array_record", "tfrecord")))
    for path in copied.rglob("dataset_info.json"):
        path.write_text(path.read_text().replace("array_record", "tfrecord"))
    message = refused(copied, "own_digits")
    for part in (str(copied / "own_digits" / "1.0.0"), "tfrecord", "data.directory"):
        assert part in message
