"""Decodes image files, or gives the reason why a file cannot be used."""

import io
import math

import numpy as np
from PIL import Image, UnidentifiedImageError

from vaegan_jax.errors import one_line

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF")


class BadImage(Exception):  # noqa: N818 - does not stop a run
    """A file that is not a usable image; the message is the reason."""


def decode(data: bytes, max_pixels: float = math.inf) -> Image.Image:
    """Decodes the first frame of an image file.

    Of 16-bit colours, the high 8 bits are kept; 16-bit grey is kept. The checksums of PNG files
    are verified; the other formats have none.

    Args:
      data: content of the file.
      max_pixels: maximum number of pixels; Pillow's limit of 178,956,970 applies as well.

    Raises:
      BadImage: if the data is damaged, truncated, too large or not an image.
    """
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
        raise BadImage("not an image of a supported format: use PNG or JPEG") from None
    except Exception as error:  # Pillow's decoders raise many types on damaged files
        raise BadImage(f"damaged: {one_line(error) or type(error).__name__}") from None


def to_eight_bits(samples: np.ndarray) -> np.ndarray:
    """Returns the high 8 bits of the bits that 16-bit samples use: uint16 -> uint8.

    Sensors of 10, 12 or 14 bits are often stored in the low bits of 16-bit files. The number of
    bits is the smallest of 8, 10, 12, 14 and 16 that holds the largest sample.
    """
    bits = next(bits for bits in (8, 10, 12, 14, 16) if samples.max() < 2**bits)
    return (samples >> (bits - 8)).astype(np.uint8)
