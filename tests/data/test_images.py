import hashlib
import io
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from vaegan_jax import config as configuration
from vaegan_jax.data import images
from vaegan_jax.errors import UserError


@pytest.fixture(scope="module")
def data():
    return images.load(configuration.default_config().data)


@pytest.fixture(scope="module")
def originals():
    """Every image by Pillow's own conversion, straight from the zip."""
    with zipfile.ZipFile(images.COMIC_FACES) as archive:
        return {
            name: np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
            for name in sorted(archive.namelist())
            if name.endswith(".png")
        }


def test_the_archive_is_the_one_described():
    digest = hashlib.sha256(images.COMIC_FACES.read_bytes()).hexdigest()
    assert digest in images.COMIC_FACES.with_name("README.md").read_text()


def test_the_licence_and_the_notice_lie_beside_it():
    with zipfile.ZipFile(images.COMIC_FACES) as archive:
        for name in ("LICENSE.txt", "NOTICE.txt"):
            assert archive.read(name) == images.COMIC_FACES.with_name(name).read_bytes()


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
        np.testing.assert_array_equal(split[:], np.stack(expected))


def test_an_eighth_is_held_out_and_no_image_stands_on_both_sides(data):
    assert data.shape == (64, 64, 3)
    assert len(data.train) + len(data.held_out) == 8300
    # Four standard deviations of a fair draw of one in eight.
    assert abs(len(data.held_out) - 8300 / 8) < 4 * np.sqrt(8300 * 7 / 64)
    held_out = {pixels.tobytes() for pixels in data.held_out[:]}
    assert not held_out & {pixels.tobytes() for pixels in data.train[:]}
    assert (data.skipped, data.duplicates) == (0, 0)


def test_images_are_read_by_any_indices(data):
    everything = data.train[:]
    assert everything.dtype == np.uint8
    assert everything.shape == data.train.shape
    assert everything.nbytes == data.train.nbytes
    indices = np.array([5, 3, 5, -1, 7000])
    np.testing.assert_array_equal(data.train[indices], everything[indices])
    np.testing.assert_array_equal(data.train[10:20:3], everything[10:20:3])


@pytest.mark.parametrize("one_in", [2, 3, 100])
def test_one_in_so_many_is_held_out_by_content(one_in):
    digests = np.random.default_rng(0).integers(0, 256, (20_000, 32)).astype(np.uint8)
    held_out = images.is_held_out(digests, one_in)
    share = 1 / one_in
    assert abs(held_out.mean() - share) < 4 * np.sqrt(share * (1 - share) / 20_000)
    expected = [int.from_bytes(row[:8].tobytes(), "big") % one_in == 0 for row in digests[:100]]
    np.testing.assert_array_equal(held_out[:100], expected)


@pytest.mark.parametrize(("size", "expected"), [(16, (16, 16)), ((32, 48), (32, 48))])
def test_the_image_size_may_be_one_number_or_two(size, expected):
    config = configuration.default_config()
    config.data.image_size = size
    assert images.settings(config.data)[:2] == expected


def test_a_split_with_an_empty_side_is_refused():
    config = configuration.default_config()
    config.data.image_size, config.data.held_out_one_in = 16, 10**18
    with pytest.raises(UserError, match=r"All 8300 images .* one side .*data\.held_out_one_in"):
        images.load(config.data)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    config = configuration.default_config()
    (tmp_path / "file").write_text("not a folder")
    config.data.directory = str(tmp_path / "file" / "data")
    with pytest.raises(UserError, match=r"comic_faces cannot be prepared .* data\.directory"):
        images.load(config.data)


def test_tensorflow_is_not_imported(data_directory):
    program = (
        "import sys; from vaegan_jax.config import default_config;"
        "from vaegan_jax.data import images; images.load(default_config().data).train[:10];"
        "sys.exit('tensorflow' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0
