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


def sixteen_bit_png(samples):
    """A PNG of uint16 samples [H, W, 1 to 4]."""
    height, width, bands = samples.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in samples)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[bands]
    return png((width, height, 16, colour, 0, 0, 0), lines)


def sixteen_bit_tiff(samples, order="<", planes=False):
    """A TIFF of uint16 samples [H, W, 1, 3 or 4]."""
    height, width, bands = samples.shape
    data = (samples.transpose(2, 0, 1) if planes else samples).astype(f"{order}u2").tobytes()
    tags = {
        256: width, 257: height, 258: [16] * bands, 259: 1,
        262: 1 if bands == 1 else 2, 273: 8, 277: bands, 278: height, 279: len(data),
        284: 2 if planes else 1, 338: 2 if bands == 4 else None,
    }  # fmt: skip
    if planes:
        size = len(data) // bands
        tags |= {273: [8 + band * size for band in range(bands)], 279: [size] * bands}
    tags = {tag: np.atleast_1d(value) for tag, value in tags.items() if value is not None}
    start, extra = 8 + len(data), b""
    after = start + 2 + 12 * len(tags) + 4
    entries = b""
    for tag, values in sorted(tags.items()):
        field = values.astype(f"{order}u4").tobytes()
        if len(field) > 4:
            field, extra = struct.pack(f"{order}I", after + len(extra)), extra + field
        entries += struct.pack(f"{order}HHI", tag, 4, len(values)) + field
    head = b"II*\0" if order == "<" else b"MM\0*"
    count = struct.pack(f"{order}H", len(tags))
    return head + struct.pack(f"{order}I", start) + data + count + entries + bytes(4) + extra


def eight_bits(samples, bits):
    """16-bit samples that use so many bits, by the plain formula."""
    return np.floor(samples / 2.0 ** (bits - 8)).astype(np.uint8)


@given(
    hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)),
    st.sampled_from([8, 10, 12, 14, 16]),
    st.sampled_from(["png", "<", ">"]),
)
def test_sixteen_bit_grey_is_scaled_by_used_bits(samples, bits, form):
    samples = (samples >> (16 - bits))[..., None]
    samples[0, 0] = 2**bits - 1
    data = sixteen_bit_png(samples) if form == "png" else sixteen_bit_tiff(samples, form)
    decoded = preprocessing.to_rgb(decoding.decode(data), "white")
    np.testing.assert_array_equal(decoded, eight_bits(samples, bits)[..., [0, 0, 0]])


@pytest.mark.parametrize("bands", [2, 3, 4])
def test_sixteen_bit_colours_are_their_high_bytes_or_refused(bands):
    samples = np.random.default_rng(0).integers(0, 2**16, (5, 7, bands)).astype(np.uint16)
    decoded = np.asarray(decoding.decode(sixteen_bit_png(samples)))
    expected = samples[..., [0, 0, 0, 1] if bands == 2 else range(bands)] >> 8
    np.testing.assert_array_equal(decoded, expected)
    if bands > 2:
        decoded = np.asarray(decoding.decode(sixteen_bit_tiff(samples, ">")))
        np.testing.assert_array_equal(decoded, expected)
    dark = samples >> 4
    dark[..., 3:] = 2**16 - 1  # opaque
    with pytest.raises(BadImage, match="15 bits"):
        decoding.decode(sixteen_bit_png(dark))


def test_sixteen_bit_planes_are_refused():
    samples = np.random.default_rng(0).integers(0, 65536, (5, 7, 3)).astype(np.uint16)
    for bits in (16, 12):
        with pytest.raises(BadImage):  # Pillow reads them wrongly
            decoding.decode(sixteen_bit_tiff(samples >> (16 - bits), planes=True))


def test_cmyk_jpeg_matches_formula():
    image = Image.new("CMYK", (16, 16), (51, 102, 153, 51))
    decoded = decoding.decode(encode(image, "jpeg", quality=100))
    assert decoded.mode == "CMYK"
    rgb = np.asarray(preprocessing.to_rgb(decoded, "white")).astype(int)
    # 255 (1 - C) (1 - K) is 163, 122, 82; JPEG may be a little off.
    assert np.abs(rgb - (163, 122, 82)).max() <= 3


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(header, lines):
    start = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", *header))
    return start + png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b"")


BAD = {
    "empty": (b"", "empty"),
    "text": (b"I am no image at all, whatever my name says.", "not an image"),
    "zeros": (bytes(5000), "not an image"),
    "truncated jpeg": (ENCODED["jpeg"][: -len(ENCODED["jpeg"]) // 8], "damaged"),
    # A few bytes that claim ten billion pixels.
    "bomb": (png((100_000, 100_000, 8, 2, 0, 0, 0), bytes(100)), "too large: .* pixels"),
    "bomb beyond the warning": (png((12_000, 15_000, 8, 2, 0, 0, 0), b""), "too large"),
    "no pixels": (png((0, 5, 8, 2, 0, 0, 0), b""), "damaged|not an image"),
    "text bomb": (
        # A comment that unpacks to far more than it says.
        ENCODED["png"][:33]
        + struct.pack(">I", 5 + len(zlib.compress(bytes(2**27))))
        + b"zTXt"
        + b"abc\0\0"
        + zlib.compress(bytes(2**27)),
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


@st.composite
def mutated(draw):
    """A file with flipped bytes, a cut end, a wrong header, or a silly size."""
    data = bytearray(ENCODED[draw(st.sampled_from(FORMATS))])
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["flip", "cut", "header", "sizes", "insert"]))
        place = int(draw(st.floats(0, 1, exclude_max=True)) * len(data)) if data else 0
        if not data:
            break
        if kind == "flip":
            data[place] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del data[place:]
        elif kind == "header":
            other = ENCODED[draw(st.sampled_from(FORMATS))]
            length = draw(st.integers(1, 32))
            data[:length] = other[:length]
        elif kind == "sizes":  # where headers keep them, in either order of bytes
            number = draw(st.sampled_from([0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1]))
            first = draw(st.integers(0, 40))
            data[first : first + 4] = struct.pack(draw(st.sampled_from("<>")) + "I", number)
        else:
            data[place:place] = draw(st.binary(min_size=1, max_size=20))
    return bytes(data)


@hypothesis.settings(max_examples=300)
@given(mutated())
def test_mutated_file_is_refused_or_decodes_as_by_pillow(data):
    result = prepared(data)
    if isinstance(result, str):
        assert result
        assert "\n" not in result
    else:
        assert result.shape == (16, 16, 3)
        assert result.dtype == np.uint8
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
            image.load()
            np.testing.assert_array_equal(preprocessing.prepare(image, SETTINGS), result)
