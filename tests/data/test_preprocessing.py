import jax
import numpy as np
import pytest
from PIL import Image

from vaegan_jax.data import preprocessing
from vaegan_jax.data.preprocessing import Settings


def gradient(width, height):
    """An RGB image with a unique colour per position."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x, y, (x + y) % 256], axis=-1).astype(np.uint8))


# Computed by hand; for a square, from torchvision's rule: the shorter side becomes `to`, the longer
# one int(to * long / short).
@pytest.mark.parametrize(
    ("size", "to", "covering", "fitting"),
    [
        ((64, 64), (64, 64), (64, 64), (64, 64)),
        ((178, 218), (64, 64), (64, 78), (52, 64)),  # 64 * 218 / 178 = 78.38, 52.26
        ((218, 178), (64, 64), (78, 64), (64, 52)),
        ((101, 67), (64, 64), (96, 64), (64, 42)),  # 96.48, 42.46
        ((67, 101), (64, 64), (64, 96), (42, 64)),
        ((65, 64), (64, 64), (65, 64), (64, 63)),
        ((5, 3), (16, 16), (26, 16), (16, 9)),  # 26.67, 9.6
        ((1000, 7), (16, 16), (2285, 16), (16, 1)),  # no less than a pixel
        ((100, 100), (96, 64), (96, 96), (64, 64)),  # too high
        ((300, 100), (96, 64), (192, 64), (96, 32)),  # too wide
        ((150, 100), (96, 64), (96, 64), (96, 64)),  # the same shape
        ((47, 31), (32, 16), (32, 21), (24, 16)),  # 32 * 31 / 47 = 21.1, 24.3
    ],
)
def test_sizes_before_cropping_and_padding(size, to, covering, fitting):
    assert preprocessing.resized(*size, *to, "crop") == covering
    assert preprocessing.resized(*size, *to, "pad") == fitting


# torchvision's offset is int(round((length - size) / 2)), halves going to the even number.
@pytest.mark.parametrize(
    ("width", "height", "left", "top"),
    [
        (17, 16, 0, 0),
        (19, 16, 2, 0),
        (21, 16, 2, 0),
        (23, 16, 4, 0),
        (16, 19, 0, 2),
        (26, 16, 5, 0),
    ],
)
def test_crop_is_centred_as_in_torchvision(width, height, left, top):
    image = gradient(width, height)
    expected = np.asarray(image)[top : top + 16, left : left + 16]
    np.testing.assert_array_equal(preprocessing.prepare(image, Settings(16, 16)), expected)


def test_resize_matches_hand_computed_triangle_filter():
    # Pillow's bilinear is a triangle of radius 2 when halving: of four columns, the two of a pair
    # weigh 3/8 each and their neighbours 1/8, renormalised at the border.
    row = np.array([[0, 80, 160, 240]] * 4, np.uint8)
    image = Image.fromarray(np.stack([row] * 3, axis=-1))
    left = (3 * 0 + 3 * 80 + 1 * 160) / 7
    right = (1 * 80 + 3 * 160 + 3 * 240) / 7
    expected = np.round([left, right])
    np.testing.assert_array_equal(preprocessing.prepare(image, Settings(2, 2))[0, :, 0], expected)


def test_palette_is_looked_up():
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    image.putpalette([200, 10, 20, 30, 220, 40])
    expected = [[[200, 10, 20], [30, 220, 40]], [[30, 220, 40], [200, 10, 20]]]
    np.testing.assert_array_equal(preprocessing.prepare(image, Settings(2, 2)), expected)


def test_padding_centres_the_image():
    image = gradient(4, 2)
    padded = preprocessing.prepare(image, Settings(6, 4, fit="pad", background="#010203"))
    np.testing.assert_array_equal(padded[2:4], np.asarray(image))
    np.testing.assert_array_equal(padded[:2], np.full((2, 4, 3), (1, 2, 3)))
    np.testing.assert_array_equal(padded[4:], np.full((2, 4, 3), (1, 2, 3)))


def test_stretch_equals_pillows_resize():
    image = gradient(30, 10)
    expected = np.asarray(image.resize((16, 32), Image.Resampling.BILINEAR))
    stretched = preprocessing.prepare(image, Settings(32, 16, fit="stretch"))
    np.testing.assert_array_equal(stretched, expected)


@pytest.mark.parametrize("size", [(1, 101), (101, 1), (30_000, 2)])
def test_extreme_aspect_ratio_is_refused(size):
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]}"):
        preprocessing.prepare(Image.new("RGB", size), Settings(16, 16))
    preprocessing.prepare(Image.new("RGB", (1, 100)), Settings(16, 16))


def test_one_channel_is_luma():
    image = Image.new("RGB", (2, 1))
    image.putdata([(255, 0, 0), (0, 0, 255)])
    # ITU-R 601-2: 0.299 red and 0.114 blue of 255, rounded.
    grey = preprocessing.prepare(image, Settings(1, 2, channels=1))
    np.testing.assert_array_equal(grey, [[[76], [29]]])


def test_transparency_is_composited_over_background():
    image = Image.new("RGBA", (3, 1))
    image.putdata([(10, 20, 30, 255), (200, 100, 50, 0), (250, 0, 100, 51)])
    # The last is a fifth opaque: 0.2 * (250, 0, 100) + 0.8 * (0, 100, 200).
    shown = preprocessing.to_rgb(image, "#0064c8")
    np.testing.assert_array_equal(np.asarray(shown), [[[10, 20, 30], [0, 100, 200], [50, 80, 180]]])


def test_transparency_of_grey_palette_and_colour_key():
    grey = Image.new("LA", (2, 1))
    grey.putdata([(7, 255), (7, 0)])
    assert np.asarray(preprocessing.to_rgb(grey, "white")).tolist() == [[[7] * 3, [255] * 3]]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([1, 2, 3, 4, 5, 6])
    for transparency in (1, b"\xff\x00"):  # an index, or an alpha for each entry
        palette.info["transparency"] = transparency
        shown = np.asarray(preprocessing.to_rgb(palette, "black"))
        assert shown.tolist() == [[[1, 2, 3], [0, 0, 0]]]
    keyed = Image.new("RGB", (2, 1))
    keyed.putdata([(9, 9, 9), (8, 8, 8)])
    keyed.info["transparency"] = (9, 9, 9)  # a transparent colour
    assert np.asarray(preprocessing.to_rgb(keyed, "red")).tolist() == [[[255, 0, 0], [8, 8, 8]]]


def test_cmyk_matches_formula():
    image = Image.new("CMYK", (3, 1))
    image.putdata([(0, 0, 0, 0), (255, 0, 51, 0), (51, 102, 153, 51)])
    # 255 (1 - C) (1 - K): with K a fifth, 204 times 0.8, 0.6 and 0.4.
    expected = [[[255, 255, 255], [0, 255, 204], [163, 122, 82]]]
    np.testing.assert_array_equal(np.asarray(preprocessing.to_rgb(image, "white")), expected)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_range_are_refused(mode):
    with pytest.raises(ValueError, match=f"mode {mode}"):
        preprocessing.to_rgb(Image.new(mode, (2, 2)), "white")


def test_flips_are_fair_and_depend_on_key_and_index_only():
    images = np.arange(400 * 2 * 3, dtype=np.int32).reshape(400, 2, 3, 1)
    indices = np.random.default_rng(0).permutation(10_000)[:400].astype(np.int32)
    key = jax.random.key(3)
    flipped = np.asarray(preprocessing.random_flip(images, indices, key))
    mirrored = np.array([(a == b[:, ::-1]).all() for a, b in zip(flipped, images, strict=True)])
    same = np.array([(a == b).all() for a, b in zip(flipped, images, strict=True)])
    assert (mirrored != same).all()
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(400)
    # The same images are flipped in another order and another batch.
    part = np.asarray(preprocessing.random_flip(images[::-2], indices[::-2], key))
    np.testing.assert_array_equal(part, flipped[::-2])
    other = np.asarray(preprocessing.random_flip(images, indices, jax.random.key(4)))
    assert (other != flipped).any()


def test_network_range_is_bit_identical_to_torchvisions_and_inverted_exactly():
    pixels = np.arange(256, dtype=np.uint8)
    expected = (pixels.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    scaled = np.asarray(preprocessing.to_network(pixels))
    np.testing.assert_array_equal(scaled, expected)
    assert scaled.dtype == np.float32
    assert (scaled[0], scaled[-1]) == (-1, 1)
    np.testing.assert_array_equal(preprocessing.to_uint8(scaled), pixels)


def test_values_out_of_range_are_clipped():
    values = np.array([-np.inf, -7, -1, 0, 1, 3, np.inf], np.float32)
    np.testing.assert_array_equal(preprocessing.to_uint8(values), [0, 0, 0, 128, 255, 255, 255])
