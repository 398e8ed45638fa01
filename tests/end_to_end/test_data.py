"""Runs on folders, zips, TFDS data sets, rectangles and streamed images."""

import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, assert_trees_equal
from tests.data import own_sets
from tests.data.test_decoding import encode, picture
from tests.data.test_sources import fill, zipped
from tests.end_to_end.launched import launch, metrics, pictures, state

COUNT = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs of several formats and shapes, and a broken file."""
    folder = tmp_path_factory.mktemp("my pictures (2026)")
    for number in range(COUNT):
        form, suffix = [("png", ".png"), ("jpeg", ".JPG"), ("webp", ".webp")][number % 3]
        image = picture(number, size=(40 + number, 30))
        fill(folder, f"trip {number % 2}/{number:03}_({number}){suffix}", data=encode(image, form))
    fill(folder, "broken.png", data=b"not a picture")
    return folder


@pytest.fixture(scope="module")
def prepared_directory(tmp_path_factory):
    return tmp_path_factory.mktemp("prepared")


def flags(folder, directory):
    fields = [f"data.path={folder}", f"data.directory={directory}", "data.image_size=(16, 48)"]
    fields += [
        "model.base_width=4",
        "model.latent_size=8",
        "vae.steps=6",
        "vae.batch_size=8",
        "gan.steps=6",
        "gan.batch_size=8",
        "gan.discriminator_warmup_steps=2",
        "training.log_every=3",
        "training.picture_every=6",
        "training.checkpoint_every=3",
    ]
    return tuple(f"--config.{field}" for field in fields)


@pytest.fixture(scope="module")
def folder_run(folder, prepared_directory, tmp_path_factory):
    """A run on the folder, in rectangles, which tests do not change."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    result = launch(workdir, *flags(folder, prepared_directory), config="configs/folder.py")
    assert result.returncode == 0, result.stderr
    return workdir, result


def test_run_on_a_folder_of_photographs(folder_run, prepared_directory):
    workdir, result = folder_run
    facts = json.loads((workdir / "data.json").read_text())
    assert facts["train"] + facts["test"] == COUNT
    assert (facts["skipped"], facts["duplicates"], facts["shape"]) == (1, 0, [16, 48, 3])
    samples = np.asarray(Image.open(workdir / "images/gan/samples_000006.png"))
    assert samples.shape == (8 * 18 - 2, 8 * 50 - 2, 3)
    (listed,) = re.findall(rf"{re.escape(str(prepared_directory))}.+?\.csv", result.stdout)
    assert "broken.png," in pathlib.Path(listed).read_text()


def test_a_streamed_run_on_a_zip_is_bit_identical(folder_run, folder, tmp_path):
    contents = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.is_file()
    }
    archive = zipped(tmp_path / "archive.zip", contents)
    result = launch(
        tmp_path / "run",
        *flags(archive, tmp_path / "prepared"),
        "--config.data.max_resident_mb=0.0",
        "--config.data.workers=3",
        config="configs/folder.py",
    )
    assert result.returncode == 0, result.stderr
    workdir, _ = folder_run
    for stage in ("vae", "gan"):
        assert_trees_equal(state(tmp_path / "run", stage, 6), state(workdir, stage, 6))
    assert metrics(tmp_path / "run") == metrics(workdir)
    assert pictures(tmp_path / "run") == pictures(workdir)


def test_run_on_a_grey_tfds_data_set(tmp_path):
    own_sets.prepare(own_sets.OwnDigits, tmp_path / "tfds")
    result = launch(
        tmp_path / "run",
        *flags("", tmp_path / "tfds"),
        "--config.data.name=own_digits",
        "--config.data.image_size=32",
        config="configs/mnist.py",
    )
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "run/images/gan/samples_000006.png") as samples:
        assert (samples.mode, samples.size) == ("L", (8 * 34 - 2, 8 * 34 - 2))


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        (["--config.data.path="], "data.path"),
        (["--config.data.path=/gone"], "/gone"),
        ([f"--config.data.path={__file__}"], "zip"),
        ([f"--config.data.path={ROOT / 'tests' / 'end_to_end'}"], "no usable image"),
        (["--config.data.name=cats_vs_dog", "--config.data.path="], "cats_vs_dogs"),
        (["--config.vae.batch_size=99"], r"batch_size \(99\)"),
    ],
)
def test_unusable_data_is_refused(folder, prepared_directory, tmp_path, refused, changes, pattern):
    arguments = (*flags(folder, prepared_directory), *changes)
    message = refused(tmp_path / "run", *arguments, config="configs/folder.py")
    assert re.search(pattern, message), message
    assert not (tmp_path / "run").exists()
