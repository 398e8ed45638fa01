"""From the bytes of an image file to its pixels, or to the reason why it has none."""

import io

from PIL import Image, UnidentifiedImageError

from vaegan_jax.errors import one_line

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Names that end so, in any case, are taken for images."""

NOT_READ = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".svg", ".dng", ".nef", ".cr2")
"""Images, too, but of formats that are not read."""

MOST_BYTES = 512 * 1024**2
"""No file, packed or not, may be larger."""

MOST_PIXELS = 178_956_970
"""No image may have more: Pillow's limit, half a gigabyte of RGB."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF")


class BadImage(Exception):  # noqa: N818 - a finding about a file, on which a run goes on
    """A file that is no usable image; the message is the reason."""


def decode(data: bytes, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Reads an image file, whatever its name: the first frame, all of its pixels.

    What a file's own checksums find is refused (PNG has them; a changed byte that JPEG, WebP,
    GIF, BMP or TIFF can still decode cannot be told from a picture).

    Args:
      data: the file.
      most_pixels: that it may have, up to `MOST_PIXELS`.

    Raises:
      BadImage: where the data is empty, damaged, cut off, too large or no image.
    """
    if not data:
        raise BadImage("empty")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > most_pixels:
                raise BadImage(f"too large: {image.width}x{image.height} pixels")
            if image.format == "PNG":
                image.verify()  # reads the checksums, and uses up the image
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            image.load()
            return image
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage("not an image of a format that is read") from None
    except Image.DecompressionBombError:
        raise BadImage(f"too large: more than {MOST_PIXELS} pixels") from None
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged files
        raise BadImage(f"damaged: {one_line(error) or type(error).__name__}") from None
