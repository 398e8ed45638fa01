import hashlib
import io
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from vaegan_jax import config as configuration
from vaegan_jax.data import images
from vaegan_jax.data.comic_faces import comic_faces_dataset_builder as comic_faces
from vaegan_jax.errors import UserError


@pytest.fixture(scope="module")
def data():
    return images.load(configuration.default_config().data)


@pytest.fixture(scope="module")
def originals():
    """Every image by Pillow's own conversion, straight from the zip."""
    with zipfile.ZipFile(comic_faces.ARCHIVE) as archive:
        return {
            name: np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
            for name in sorted(archive.namelist())
            if name.endswith(".png")
        }


def test_the_archive_is_the_one_described():
    digest = hashlib.sha256(comic_faces.ARCHIVE.read_bytes()).hexdigest()
    assert digest in comic_faces.ARCHIVE.with_name("README.md").read_text()


def test_the_licence_and_the_notice_lie_beside_it():
    with zipfile.ZipFile(comic_faces.ARCHIVE) as archive:
        for name in ("LICENSE.txt", "NOTICE.txt"):
            assert archive.read(name) == comic_faces.ARCHIVE.with_name(name).read_bytes()


def test_every_pixel_is_pillows(data, originals):
    # The files hold palettes: indices in their place would have the same shape.
    held_out = [
        int.from_bytes(hashlib.sha256(pixels.tobytes()).digest()[:8], "big") % 8 == 0
        for pixels in originals.values()
    ]
    for split, wanted in ((data.train, False), (data.held_out, True)):
        expected = [
            pixels
            for pixels, out in zip(originals.values(), held_out, strict=True)
            if out == wanted
        ]
        np.testing.assert_array_equal(split, np.stack(expected))


def test_an_eighth_is_held_out_and_no_image_stands_on_both_sides(data):
    assert data.train.dtype == data.held_out.dtype == np.uint8
    assert data.shape == (64, 64, 3)
    assert len(data.train) + len(data.held_out) == 8300
    # Four standard deviations of a fair draw of one in eight.
    assert abs(len(data.held_out) - 8300 / 8) < 4 * np.sqrt(8300 * 7 / 64)
    held_out = {pixels.tobytes() for pixels in data.held_out}
    assert not held_out & {pixels.tobytes() for pixels in data.train}


@pytest.mark.parametrize(("size", "expected"), [(16, (16, 16)), ((32, 48), (32, 48))])
def test_the_image_size_may_be_one_number_or_two(size, expected):
    config = configuration.default_config()
    config.data.image_size = size
    assert images.image_size(config.data) == expected
    if size == 16:
        assert images.load(config.data).shape == (16, 16, 3)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    config = configuration.default_config()
    (tmp_path / "file").write_text("not a folder")
    config.data.directory = str(tmp_path / "file" / "data")
    with pytest.raises(UserError, match=r"comic_faces cannot be prepared .* data\.directory"):
        images.load(config.data)


def test_tensorflow_is_not_imported(data_directory):
    program = (
        "import sys; from vaegan_jax.config import default_config;"
        "from vaegan_jax.data import images; images.load(default_config().data);"
        "sys.exit('tensorflow' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0


def test_nothing_half_made_is_trusted(tmp_path, monkeypatch):
    config = configuration.default_config()
    config.data.directory = str(tmp_path)
    held_out = comic_faces.is_held_out
    calls = iter(range(10**6))

    def fail(image):
        if next(calls) > 100:
            raise KeyboardInterrupt
        return held_out(image)

    with monkeypatch.context() as patch:
        patch.setattr(comic_faces, "is_held_out", fail)
        with pytest.raises(KeyboardInterrupt):
            images.load(config.data)
    assert not list(pathlib.Path(tmp_path, "comic_faces").glob("1.0.0/*.json"))
    assert len(images.load(config.data).train) > 7000
