import hashlib
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
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


def expected_part(digest, one_in, count):
    """The documented rule, with Python's integers."""
    quotient, remainder = divmod(int.from_bytes(digest[:8], "big"), one_in)
    if remainder == 0:
        return "test"
    is_validation = count >= 1_500 and quotient % (2 * (one_in - 1)) == 0
    return "validation" if is_validation else "train"


def test_pixels_equal_pillows_conversion(data, originals):
    digests = [hashlib.sha256(pixels.tobytes()).digest() for pixels in originals.values()]
    parts = np.array([expected_part(digest, 8, 8300) for digest in digests])
    for name in ("train", "validation", "test"):
        expected = np.stack(list(originals.values()))[parts == name]
        np.testing.assert_array_equal(getattr(data, name)[:], expected)
    assert data.shape == (64, 64, 3)
    assert data.is_test_unseen
    assert (data.skipped, data.duplicates) == (0, 0)


def test_facts_and_description_state_all_counts(data):
    counts = {name: len(getattr(data, name)) for name in ("train", "validation", "test")}
    assert sum(counts.values()) == 8300
    facts = images.facts(data)
    assert facts | counts == facts
    assert facts["is_test_unseen"]
    assert all(str(count) in images.describe(data) for count in counts.values())


def test_split_supports_array_and_slice_indices(data):
    everything = data.train[:]
    assert everything.dtype == np.uint8
    assert everything.shape == data.train.shape
    assert everything.nbytes == data.train.nbytes
    indices = np.array([5, 3, 5, -1, 6000])
    np.testing.assert_array_equal(data.train[indices], everything[indices])
    np.testing.assert_array_equal(data.train[10:20:3], everything[10:20:3])


def random_digests(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32)).astype(np.uint8)


@pytest.mark.parametrize("one_in", [2, 3, 8, 100])
@pytest.mark.parametrize("count", [1_499, 1_500, 20_000])
def test_parts_follow_the_documented_rule(one_in, count):
    digests = random_digests(count)
    parts = images.split(digests, one_in)
    expected = np.array([expected_part(row.tobytes(), one_in, count) for row in digests])
    is_two = count < images.MIN_IMAGES_FOR_TEST
    for name, positions in zip(("train", "validation", "test"), parts, strict=True):
        name = "test" if is_two and name == "validation" else name
        np.testing.assert_array_equal(positions, np.flatnonzero(expected == name))


def members(digests, one_in):
    """The digests in each part."""
    return [{bytes(row) for row in digests[part]} for part in images.split(digests, one_in)]


@given(
    one_in=st.integers(2, 40),
    count=st.sampled_from([20, 1_400, 1_500, 2_000]),  # added images do not reach 1,500
    added=st.integers(1, 99),
    seed=st.integers(0, 99),
)
def test_split_is_a_partition_by_content_that_added_images_do_not_change(
    one_in, count, added, seed
):
    digests = random_digests(count + added, seed)
    train, validation, test = images.split(digests[:count], one_in)
    parts = [train, test] if count < 1_500 else [train, validation, test]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(count))
    before = members(digests[:count], one_in)
    order = np.random.default_rng(seed).permutation(count + added)
    assert members(digests[order % count], one_in) == before  # with duplicates
    after = members(digests[order], one_in)
    assert all(x <= y for x, y in zip(before, after, strict=True))


def test_empty_split_is_refused():
    config = configuration.default_config()
    config.data.held_out_one_in = 10**18
    with pytest.raises(UserError, match=r"8300 images .*data\.held_out_one_in"):
        images.load(config.data)
