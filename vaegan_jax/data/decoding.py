"""Decodes image files, or gives the reason why a file cannot be used."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

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
            image.load()
            return image
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage("not an image of a supported format") from None
    except Image.DecompressionBombError:
        raise BadImage(f"too large: more than {MAX_PIXELS} pixels") from None
    except Exception as error:  # Pillow's decoders raise many types on damaged files
        raise BadImage(f"damaged: {one_line(error) or type(error).__name__}") from None


def to_eight_bits(samples: np.ndarray) -> np.ndarray:
    """Returns the high 8 bits of the bits that 16-bit samples use: uint16 -> uint8.

    Sensors of 10, 12 or 14 bits are often stored in the low bits of 16-bit files. The number of
    bits is the smallest of 8, 10, 12, 14 and 16 that holds the largest sample.
    """
    bits = next(bits for bits in (8, 10, 12, 14, 16) if samples.max() < 2**bits)
    return (samples >> (bits - 8)).astype(np.uint8)
