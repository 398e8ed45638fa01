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
    """Every image by Pillow's conversion, directly from the zip."""
    with zipfile.ZipFile(images.COMIC_FACES) as archive:
        return {
            name: np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
            for name in sorted(archive.namelist())
            if name.endswith(".png")
        }


def test_bundled_archive_has_documented_hash():
    digest = hashlib.sha256(images.COMIC_FACES.read_bytes()).hexdigest()
    assert digest in images.COMIC_FACES.with_name("README.md").read_text()


def test_pixels_equal_pillows_conversion(data, originals):
    held_out = [
        int.from_bytes(hashlib.sha256(pixels.tobytes()).digest()[:8], "big") % 8 == 0
        for pixels in originals.values()
    ]
    originals, held_out = np.stack(list(originals.values())), np.array(held_out)
    np.testing.assert_array_equal(data.train[:], originals[~held_out])
    np.testing.assert_array_equal(data.held_out[:], originals[held_out])


def test_one_eighth_is_held_out_without_overlap(data):
    assert data.shape == (64, 64, 3)
    assert len(data.train) + len(data.held_out) == 8300
    # Four standard deviations of a fair draw of one in eight.
    assert abs(len(data.held_out) - 8300 / 8) < 4 * np.sqrt(8300 * 7 / 64)
    held_out = {pixels.tobytes() for pixels in data.held_out[:]}
    assert not held_out & {pixels.tobytes() for pixels in data.train[:]}
    assert (data.skipped, data.duplicates) == (0, 0)


def test_split_supports_array_and_slice_indices(data):
    everything = data.train[:]
    assert everything.dtype == np.uint8
    assert everything.shape == data.train.shape
    assert everything.nbytes == data.train.nbytes
    indices = np.array([5, 3, 5, -1, 7000])
    np.testing.assert_array_equal(data.train[indices], everything[indices])
    np.testing.assert_array_equal(data.train[10:20:3], everything[10:20:3])


@pytest.mark.parametrize("one_in", [2, 3, 100])
def test_is_held_out_follows_the_digest(one_in):
    digests = np.random.default_rng(0).integers(0, 256, (20_000, 32)).astype(np.uint8)
    held_out = images.is_held_out(digests, one_in)
    share = 1 / one_in
    assert abs(held_out.mean() - share) < 4 * np.sqrt(share * (1 - share) / 20_000)
    expected = [int.from_bytes(row[:8].tobytes(), "big") % one_in == 0 for row in digests[:100]]
    np.testing.assert_array_equal(held_out[:100], expected)


def test_empty_split_is_refused():
    config = configuration.default_config()
    config.data.held_out_one_in = 10**18
    with pytest.raises(UserError, match=r"8300 images .*data\.held_out_one_in"):
        images.load(config.data)


def test_unwritable_data_directory_is_refused(tmp_path):
    config = configuration.default_config()
    (tmp_path / "file").write_text("not a folder")
    config.data.directory = str(tmp_path / "file" / "data")
    with pytest.raises(UserError, match=r"comic_faces .* data\.directory"):
        images.load(config.data)


def test_tensorflow_is_not_imported(data_directory):
    program = (
        "import sys; from vaegan_jax.config import default_config;"
        "from vaegan_jax.data import images; images.load(default_config().data).train[:10];"
        "sys.exit('tensorflow' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0
