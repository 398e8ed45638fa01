"""The command line on images of every kind: folders, zips, TFDS, rectangles, streamed."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, assert_trees_equal
from tests.data.test_decoding import encode, picture
from tests.data.test_sources import fill, zipped
from tests.end_to_end.launched import (
    command,
    launch,
    launch_each,
    metrics,
    pictures,
    refused,
    snapshot,
    state,
)
from vaegan_jax.data import tfds_sets

COUNT = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs as a person has them: several formats and shapes, names, and a broken file."""
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
    return (
        f"--config.data.path={folder}",
        f"--config.data.directory={directory}",
        "--config.data.image_size=(16, 48)",
        # The settings of configs/smoke.py, which is for the comic faces.
        *(
            f"--config.{field}"
            for field in (
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
            )
        ),
    )


@pytest.fixture(scope="module")
def finished(folder, prepared_directory, tmp_path_factory):
    """A run on the folder, in rectangles; tests that use it leave it as it is."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    result = launch(workdir, *flags(folder, prepared_directory), config="configs/folder.py")
    assert result.returncode == 0, result.stderr
    return workdir, result


def test_a_folder_of_photographs_becomes_rectangles(finished, prepared_directory):
    workdir, result = finished
    facts = json.loads((workdir / "data.json").read_text())
    assert facts["train"] + facts["held_out"] == COUNT
    assert (facts["skipped"], facts["duplicates"], facts["shape"]) == (1, 0, [16, 48, 3])
    samples = np.asarray(Image.open(workdir / "images/gan/samples_000006.png"))
    assert samples.shape == (8 * 18 - 2, 8 * 50 - 2, 3)
    assert f"{facts['train']} training images and {facts['held_out']} held" in result.stdout
    listed = re.search(r"1 files skipped, see (.+\.csv)", result.stdout)[1]
    assert "broken.png,not an image" in pathlib.Path(listed).read_text()
    assert listed.startswith(str(prepared_directory))


def test_streamed_or_from_a_zip_the_run_is_the_same_to_the_last_bit(finished, folder, tmp_path):
    # Another form, another place, no memory for it, another number of threads.
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
    workdir, _ = finished
    for stage in ("vae", "gan"):
        assert_trees_equal(state(tmp_path / "run", stage, 6), state(workdir, stage, 6))
    assert metrics(tmp_path / "run") == metrics(workdir)
    assert pictures(tmp_path / "run") == pictures(workdir)


def test_a_run_whose_images_changed_is_left_alone(finished, folder, prepared_directory, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    fill(changed, "new.png", data=encode(picture(99), "png"))
    before = snapshot(workdir)
    message = refused(
        launch(workdir, *flags(changed, prepared_directory), config="configs/folder.py")
    )
    assert "The images have changed since the run" in message
    assert "put them back to go on with it" in message
    assert snapshot(workdir) == before


def test_a_run_goes_on_where_its_images_lie_elsewhere(
    finished, folder, prepared_directory, tmp_path
):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    shutil.copytree(folder, tmp_path / "elsewhere")  # times and all
    result = launch(
        workdir, *flags(tmp_path / "elsewhere", prepared_directory), config="configs/folder.py"
    )
    assert result.returncode == 0, result.stderr
    assert "already finished" in result.stdout


def test_a_prepared_tfds_set_in_grey(tmp_path):
    tfds_sets.prepare("tests.data.own_sets:OwnDigits", str(tmp_path / "tfds"))
    result = launch(
        tmp_path / "run",
        *flags("", tmp_path / "tfds"),
        "--config.data.name=own_digits",
        "--config.data.image_size=32",
        config="configs/mnist.py",
    )
    assert result.returncode == 0, result.stderr
    assert "32x32, grey" in result.stdout
    with Image.open(tmp_path / "run/images/gan/samples_000006.png") as samples:
        assert (samples.mode, samples.size) == ("L", (8 * 34 - 2, 8 * 34 - 2))


BAD = {
    "no path": (["--config.data.path="], r"data\.path is empty: name the folder or the zip"),
    "nothing there": (["--config.data.path=/gone"], r"data\.path is /gone"),
    "no zip": ([f"--config.data.path={__file__}"], r"cannot be read as a zip"),
    "no images": (
        [f"--config.data.path={ROOT / 'tests' / 'end_to_end'}"],
        r"no usable image .* \d+ \.py",
    ),
    "no set": (
        ["--config.data.name=cats_vs_dog", "--config.data.path="],
        r"did you mean .*cats_vs_dogs",
    ),
    "too few": (["--config.vae.batch_size=99"], r"batch_size \(99\) is larger than the training"),
}


@pytest.fixture(scope="module")
def bad(folder, prepared_directory, tmp_path_factory):
    """What became of each, and where."""
    base = tmp_path_factory.mktemp("bad")
    usual = flags(folder, prepared_directory)
    commands = [
        command(base / name, *usual, *changes, config="configs/folder.py")
        for name, (changes, _) in BAD.items()
    ]
    return base, dict(zip(BAD, launch_each(base / "said", commands), strict=True))


@pytest.mark.parametrize("name", BAD)
def test_a_source_that_does_not_serve_is_one_sentence_and_writes_nothing(name, bad):
    base, results = bad
    message = refused(results[name])
    assert re.search(BAD[name][1], message), message
    assert not (base / name).exists()
