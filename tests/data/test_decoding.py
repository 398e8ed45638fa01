"""Decoding of every format, and refusal of damaged files."""

import io
import re
import struct
import warnings
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from vaegan_jax.data import decoding, preprocessing
from vaegan_jax.data.decoding import BadImage

SETTINGS = preprocessing.Settings(16, 16)
FORMATS = ("png", "jpeg", "webp", "bmp", "gif", "tiff")


def picture(seed=0, size=(23, 17)):
    """Smooth colours with some noise, so that no compression is trivial."""
    x, y = np.meshgrid(np.linspace(0, 200, size[0]), np.linspace(0, 200, size[1]))
    noise = np.random.default_rng(seed).integers(0, 50, (size[1], size[0], 3))
    pixels = np.stack([x, y, (x + y) / 2], axis=-1) + noise
    return Image.fromarray(pixels.astype(np.uint8))


def encode(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


ENCODED = {form: encode(picture(), form) for form in FORMATS}


def prepared(data):
    """The preprocessed pixels of a file, or the reason why it is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as preparation does
        try:
            return preprocessing.prepare(decoding.decode(data), SETTINGS)
        except (BadImage, ValueError) as reason:
            return str(reason)


@pytest.mark.parametrize("form", ["png", "bmp", "tiff"])
def test_lossless_formats_decode_exactly(form):
    np.testing.assert_array_equal(decoding.decode(ENCODED[form]), picture())


def test_first_frame_of_animation_is_decoded():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    for form in ("gif", "webp", "tiff", "png"):
        options = {"lossless": True} if form == "webp" else {}
        data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
        rgb = preprocessing.to_rgb(decoding.decode(data), "white")
        np.testing.assert_array_equal(rgb, np.full((4, 4, 3), (255, 0, 0)))


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff"])
def test_exif_orientation_is_applied(form):
    image = Image.new("RGB", (16, 32))
    image.paste("white", (0, 0, 16, 16))  # bright above, dark below
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    pixels = prepared(encode(image, form, exif=exif))
    assert pixels[:, 8:].mean() > 250  # what was above is now at the right
    assert pixels[:, :8].mean() < 5


def test_damaged_exif_is_ignored():
    data = encode(picture(), "png", exif=b"Exif\0\0damaged")
    np.testing.assert_array_equal(prepared(data), prepared(ENCODED["png"]))


def eight_bits(samples, bits):
    """16-bit samples that use so many bits, by the plain formula."""
    return np.floor(samples / 2.0 ** (bits - 8)).astype(np.uint8)


@given(
    hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)),
    st.sampled_from([8, 10, 12, 14, 16]),
    st.sampled_from(["png", "tiff"]),
)
def test_sixteen_bit_grey_is_scaled_by_used_bits(samples, bits, form):
    samples = (samples >> (16 - bits))[..., None]
    samples[0, 0] = 2**bits - 1
    data = encode(Image.fromarray(samples[..., 0]), form)
    decoded = preprocessing.to_rgb(decoding.decode(data), "white")
    np.testing.assert_array_equal(decoded, eight_bits(samples, bits)[..., [0, 0, 0]])


@pytest.mark.parametrize("bands", [2, 3, 4])
def test_sixteen_bit_colours_are_their_high_bytes(bands):
    samples = np.random.default_rng(0).integers(0, 2**16, (5, 7, bands)).astype(np.uint16)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in samples)
    data = png((7, 5, 16, {2: 4, 3: 2, 4: 6}[bands], 0, 0, 0), lines)
    expected = samples[..., [0, 0, 0, 1] if bands == 2 else range(bands)] >> 8
    np.testing.assert_array_equal(np.asarray(decoding.decode(data)), expected)


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(header, lines):
    start = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", *header))
    return start + png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b"")


BAD = {
    "empty": (b"", "not an image"),
    "text": (b"I am no image at all, whatever my name says.", "not an image"),
    "truncated jpeg": (ENCODED["jpeg"][: -len(ENCODED["jpeg"]) // 8], "damaged"),
    # A few bytes that claim ten billion pixels.
    "bomb": (png((100_000, 100_000, 8, 2, 0, 0, 0), bytes(100)), "damaged: .* pixels"),
    "no pixels": (png((0, 5, 8, 2, 0, 0, 0), b""), "damaged|not an image"),
    # A comment that unpacks to far more than it says.
    "text bomb": (
        ENCODED["png"][:33] + png_chunk(b"zTXt", b"abc\0\0" + zlib.compress(bytes(2**27))),
        "damaged",
    ),
    "another format": (encode(picture(), "ppm"), "not an image of a supported format"),
    "a strip": (encode(Image.new("RGB", (3000, 2)), "png"), "aspect ratio"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused_with_reason(name):
    data, reason = BAD[name]
    result = prepared(data)
    assert isinstance(result, str), result
    assert re.search(reason, result), result
    assert "\n" not in result


# A changed byte may be undetectable, but a missing end is not.
@pytest.mark.parametrize("form", FORMATS)
def test_truncated_file_is_refused_or_decodes_equally(form):
    complete, data = prepared(ENCODED[form]), ENCODED[form]
    refused = 0
    for end in range(0, len(data), 3):
        result = prepared(data[:end])
        if isinstance(result, str):
            refused += 1
        else:
            np.testing.assert_array_equal(result, complete, err_msg=f"{form} cut at {end}")
    assert refused > 0.3 * len(data)


@hypothesis.settings(max_examples=200)
@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_changed_byte_of_png_is_refused_or_has_no_effect(place, change):
    data = bytearray(ENCODED["png"])
    data[int(place * len(data))] ^= change
    result = prepared(bytes(data))
    if not isinstance(result, str):
        np.testing.assert_array_equal(result, prepared(ENCODED["png"]))
