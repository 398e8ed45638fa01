import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vaegan_jax.data import preprocessing


def gradient(width, height):
    """An RGB image whose every pixel tells its place."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x, y, (x + y) % 256], axis=-1).astype(np.uint8))


# Worked by hand from torchvision's rule: the shorter side becomes `size`, the longer one
# int(size * long / short).
@pytest.mark.parametrize(
    ("size", "to", "expected"),
    [
        ((64, 64), 64, (64, 64)),
        ((178, 218), 64, (64, 78)),  # 64 * 218 / 178 = 78.38
        ((218, 178), 64, (78, 64)),
        ((101, 67), 64, (96, 64)),  # 96.48
        ((67, 101), 64, (64, 96)),
        ((65, 64), 64, (65, 64)),
        ((33, 50), 16, (16, 24)),  # 24.24
        ((5, 3), 16, (26, 16)),  # 26.67
        ((1000, 7), 16, (2285, 16)),  # 2285.7
    ],
)
def test_the_shorter_side_becomes_the_size(size, to, expected):
    assert preprocessing.resized_size(*size, to, to) == expected


@pytest.mark.parametrize(
    ("size", "to", "expected"),
    [
        ((100, 100), (96, 64), (96, 96)),  # as wide as wanted, too high
        ((300, 100), (96, 64), (192, 64)),  # as high as wanted, too wide
        ((150, 100), (96, 64), (96, 64)),  # the same shape
        ((47, 31), (32, 16), (32, 21)),  # 32 * 31 / 47 = 21.1
    ],
)
def test_a_rectangle_is_covered(size, to, expected):
    assert preprocessing.resized_size(*size, *to) == expected


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
def test_the_crop_is_about_the_centre(width, height, left, top):
    image = gradient(width, height)
    expected = np.asarray(image)[top : top + 16, left : left + 16]
    np.testing.assert_array_equal(preprocessing.prepare(image, 16, 16), expected)


def test_the_resize_is_pillows_bilinear():
    image = gradient(101, 67)
    resized = np.asarray(image.resize((96, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(preprocessing.prepare(image, 64, 64), resized[:, 16:80])


def test_halving_two_colours_gives_hand_worked_pixels():
    # Pillow's bilinear is a triangle of radius 2 when halving: of four columns, the two of a pair
    # weigh 3/8 each and their neighbours 1/8, renormalised at the border.
    row = np.array([[0, 80, 160, 240]] * 4, np.uint8)
    image = Image.fromarray(np.stack([row] * 3, axis=-1))
    left = (3 * 0 + 3 * 80 + 1 * 160) / 7
    right = (1 * 80 + 3 * 160 + 3 * 240) / 7
    expected = np.round([left, right])
    np.testing.assert_array_equal(preprocessing.prepare(image, 2, 2)[0, :, 0], expected)


def test_a_palette_image_gives_colours_not_indices():
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    image.putpalette([200, 10, 20, 30, 220, 40])
    expected = [[[200, 10, 20], [30, 220, 40]], [[30, 220, 40], [200, 10, 20]]]
    np.testing.assert_array_equal(preprocessing.prepare(image, 2, 2), expected)


def test_a_grey_image_is_repeated():
    image = Image.fromarray(np.array([[3, 250]], np.uint8))
    np.testing.assert_array_equal(preprocessing.prepare(image, 1, 2), [[[3] * 3, [250] * 3]])


def test_the_range_is_torchvisions_bit_for_bit():
    pixels = np.arange(256, dtype=np.uint8)
    expected = (pixels.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    scaled = np.asarray(preprocessing.to_network(pixels))
    np.testing.assert_array_equal(scaled, expected)
    assert scaled.dtype == np.float32
    assert (scaled[0], scaled[-1]) == (-1, 1)


def test_every_pixel_survives_the_way_there_and_back():
    pixels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(preprocessing.to_uint8(preprocessing.to_network(pixels)), pixels)


def test_values_beyond_the_range_are_clipped():
    values = np.array([-np.inf, -7, -1, 0, 1, 3, np.inf], np.float32)
    np.testing.assert_array_equal(preprocessing.to_uint8(values), [0, 0, 0, 128, 255, 255, 255])


sizes = st.integers(1, 90)


@given(width=sizes, height=sizes, to_width=st.integers(1, 40), to_height=st.integers(1, 40))
def test_any_image_becomes_the_size_asked_for(width, height, to_width, to_height):
    resized = preprocessing.resized_size(width, height, to_width, to_height)
    # It covers the target, touches it on one side, and keeps the shape to within a pixel.
    assert resized[0] >= to_width
    assert resized[1] >= to_height
    assert resized[0] == to_width or resized[1] == to_height
    assert abs(resized[0] * height - resized[1] * width) <= max(width, height)
    prepared = preprocessing.prepare(gradient(width, height), to_height, to_width)
    assert prepared.shape == (to_height, to_width, 3)
    assert prepared.dtype == np.uint8


@given(colour=st.tuples(*[st.integers(0, 255)] * 3), width=sizes, height=sizes)
def test_one_colour_stays_one_colour(colour, width, height):
    prepared = preprocessing.prepare(Image.new("RGB", (width, height), colour), 8, 6)
    assert (prepared == np.array(colour)).all()
