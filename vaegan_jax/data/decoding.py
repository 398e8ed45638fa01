"""Decodes image files, or gives the reason why a file cannot be used."""

import io
import re

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from vaegan_jax.errors import one_line

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp"),
    *(".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
)
"""File name suffixes of images, in any case."""

UNSUPPORTED = (
    *(".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".jxr", ".psd", ".svg"),
    *(".ico", ".tga", ".pcx", ".pbm", ".pgm", ".ppm", ".pnm", ".exr", ".hdr", ".eps", ".xcf"),
    *(".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".srf", ".sr2", ".orf", ".raf"),
    *(".rw2", ".pef", ".srw", ".3fr", ".x3f", ".iiq", ".erf", ".kdc", ".dcr", ".mrw", ".rwl"),
    *(".raw", ".mef", ".mos", ".fff", ".cap"),
)
"""Suffixes of image formats that are not supported."""

MAX_BYTES = 512 * 1024**2
"""Maximum size of a file, after decompression."""

MAX_PIXELS = 178_956_970
"""Maximum number of pixels of an image: Pillow's limit, half a gigabyte of RGB."""

MAX_SAMPLE = "vaegan_jax.max_sample"
"""Key of `Image.info` for the maximum sample value that the file declares; 0 for none."""

_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE = 258, 281  # TIFF tags
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF")


class BadImage(Exception):  # noqa: N818 - does not stop a run
    """A file that is not a usable image; the message is the reason."""


class Unreadable(BadImage):
    """A file that cannot be read, or that changed after it was listed."""


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes the first frame of an image file.

    Of 16-bit colours, the high 8 bits are kept; 16-bit grey is kept. The checksums of PNG files
    are verified; the other formats have none.

    Args:
      data: content of the file.
      max_pixels: maximum number of pixels, at most `MAX_PIXELS`.

    Raises:
      BadImage: if the data is empty, damaged, truncated, too large or not an image.
    """
    if not data:
        raise BadImage("empty")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise BadImage(f"too large: {image.width}x{image.height} pixels")
            if image.format == "PNG":
                image.verify()  # afterwards the image cannot be loaded
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            layout = _layout(image)
            image.load()
            if image.format in ("PNG", "TIFF"):
                image.info[MAX_SAMPLE] = _declared_maximum(image, data)
                if layout in ("R", "C") and _tag(image, _BITS_PER_SAMPLE) == 16:
                    # Pillow would read each byte as a sample.
                    raise BadImage("16-bit colours in separate planes without compression")
                if ";16" in layout and not image.mode.startswith("I"):
                    _require_high_bytes(image)
            return image
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage("not an image of a supported format") from None
    except Image.DecompressionBombError:
        raise BadImage(f"too large: more than {MAX_PIXELS} pixels") from None
    except Exception as error:  # Pillow's decoders raise many types on damaged files
        raise BadImage(f"damaged: {one_line(error) or type(error).__name__}") from None


def to_eight_bits(samples: np.ndarray, declared: int = 0) -> np.ndarray:
    """Returns the high 8 bits of the bits that 16-bit samples use.

    Sensors of 10, 12 or 14 bits are often stored in the low bits of 16-bit files, most of which
    do not declare it. The number of bits is the smallest of 8, 10, 12, 14 and 16 that holds the
    largest sample and the declared maximum.

    Args:
      samples: uint16, of one image.
      declared: maximum sample value that the file declares; 0 for none.

    Returns:
      uint8, of the same shape.
    """
    largest = max(int(samples.max()), min(declared, 0xFFFF))
    bits = next(bits for bits in (8, 10, 12, 14, 16) if largest < 2**bits)
    return (samples >> (bits - 8)).astype(np.uint8)


def _declared_maximum(image: Image.Image, data: bytes) -> int:
    """Returns the maximum sample by the file's header (PNG's sBIT, TIFF's tags); 0 for none."""
    if image.format == "PNG":
        chunk = re.search(rb"\0{3}[\1-\4]sBIT([\1-\x10])", data[: data.find(b"IDAT")])
        return 2 ** chunk[1][0] - 1 if chunk else 0
    bits = _tag(image, _BITS_PER_SAMPLE)
    return max(_tag(image, _MAX_SAMPLE_VALUE), 2**bits - 1 if bits < 16 else 0)


def _tag(image: Image.Image, tag: int) -> int:
    """Returns the (first) number in a TIFF tag; 0 if the tag is missing."""
    value = getattr(image, "tag_v2", {}).get(tag)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) and value > 0 else 0


def _layout(image: ImageFile.ImageFile) -> str:
    """Returns Pillow's raw mode of a PNG or TIFF, such as RGB;16B."""
    args = image.tile[0][3] if image.tile else None
    return str(args[0] if isinstance(args, tuple) else args)


def _require_high_bytes(image: Image.Image) -> None:
    """Checks that the high bytes of 16-bit colours, which Pillow keeps, are 8 bits of the image.

    Raises:
      BadImage: if the colours use fewer than 15 bits, and the file does not declare more.
    """
    colours = np.asarray(image)[..., :3]
    if colours.max() < 64 and image.info[MAX_SAMPLE] < 2**14:
        raise BadImage("16-bit colours of fewer than 15 bits: convert it to 8 bits per channel")
