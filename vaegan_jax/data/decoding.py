"""Decodes image files, or gives the reason why a file cannot be used."""

import enum
import io
import mimetypes
import pathlib
import re
import sys
from collections.abc import Callable

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
    # Raw formats. Most of them begin like a TIFF, so `kind` must know their suffixes.
    *(".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".srf", ".sr2", ".orf", ".raf"),
    *(".rw2", ".pef", ".srw", ".3fr", ".x3f", ".iiq", ".erf", ".kdc", ".dcr", ".mrw", ".rwl"),
    *(".raw", ".mef", ".mos", ".fff", ".cap"),
)
"""Suffixes of image formats that are not supported."""

HEAD_BYTES = 32
"""Number of leading bytes of a file that `kind` needs."""

# Suffixes of backups and of incomplete downloads.
_TEMPORARY = (".bak", ".orig", ".old", ".tmp", ".temp", ".part", ".partial", ".crdownload")
_MIME_TYPES = mimetypes.MimeTypes().types_map[True]  # independent of system files
_HEAD = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP|II[*+]\0|MM\0[*+]"
    rb"|BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}",
    re.DOTALL,
)
_HEAD_UNSUPPORTED = re.compile(
    rb".{4}ftyp(hei|hev|mif1|msf1|avi[fs])|\0{3}\x0c(JXL |jP  )|\xff\x4f\xff\x51|8BPS", re.DOTALL
)

MAX_BYTES = 512 * 1024**2
"""Maximum size of a file, after decompression."""

MAX_PIXELS = 178_956_970
"""Maximum number of pixels of an image: Pillow's limit, half a gigabyte of RGB."""

MAX_SAMPLE = "vaegan_jax.max_sample"
"""Key of `Image.info` for the maximum sample value that the file declares; 0 for none."""

_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE, _PLANAR_CONFIGURATION = 258, 281, 284  # TIFF tags
_LOW_BYTES = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF")


class Kind(enum.Enum):
    """Type of a file by its name, or by its first bytes if the name does not determine it."""

    IMAGE = enum.auto()
    UNSUPPORTED = enum.auto()
    OTHER = enum.auto()


def kind(name: str, head: Callable[[], bytes]) -> Kind:
    """Returns the type of a file.

    Args:
      name: of the file.
      head: returns its first `HEAD_BYTES` bytes; called if the suffix is missing or unknown.
    """
    suffix = pathlib.PurePath(name).suffix.lower()
    if suffix in SUFFIXES:
        return Kind.IMAGE
    if suffix in UNSUPPORTED:
        return Kind.UNSUPPORTED
    temporary = suffix in _TEMPORARY or suffix.endswith("_original") or name.endswith("~")
    if temporary or not _MIME_TYPES.get(suffix, "image/").startswith("image/"):
        return Kind.OTHER
    start = head()
    if _HEAD.match(start):
        return Kind.IMAGE
    return Kind.UNSUPPORTED if _HEAD_UNSUPPORTED.match(start) else Kind.OTHER


class BadImage(Exception):  # noqa: N818 - does not stop a run
    """A file that is not a usable image; the message is the reason."""


class Unreadable(BadImage):
    """A file that cannot be read, or that changed after it was listed."""


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes the first frame of an image file.

    16-bit colours become 8-bit by `to_eight_bits`; 16-bit grey is kept. The checksums of PNG files
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
                    _scale_colours(image, layout, data)
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


def _scale_colours(image: Image.Image, layout: str, data: bytes) -> None:
    """Applies `to_eight_bits` to 16-bit colours, of which Pillow keeps only the high bytes.

    If the high bytes show that fewer than 15 bits are used, the low bytes are decoded by reading
    the samples in the opposite byte order.

    Raises:
      BadImage: if Pillow cannot read this layout in the opposite byte order.
    """
    high = np.asarray(image)
    colours, alpha = (high[..., :3], high[..., 3:]) if image.mode == "RGBA" else (high, high[:0])
    if min(part.max() for part in (colours, alpha) if part.size) >= 64:
        return  # more than 14 bits
    bands, _, form = layout.partition(";")
    if layout == "LA;16B":  # Pillow converts it to RGBA
        low = _decode_as("RGBA", data)[..., [1, 1, 1, 3]]
    elif (
        bands in ("RGB", "RGBA", "RGBX", "CMYK")
        and form in _LOW_BYTES
        and _tag(image, _PLANAR_CONFIGURATION) != 2  # libtiff reads planes in native order only
    ):
        low = _decode_as(f"{bands};{_LOW_BYTES[form]}", data)
    else:
        raise BadImage(f"16-bit colours of fewer than 15 bits in an unsupported layout: {layout}")
    samples = high.astype(np.uint16) << 8 | low
    colours, alpha = samples[..., : colours.shape[-1]], samples[..., colours.shape[-1] :]
    parts = [to_eight_bits(colours, image.info[MAX_SAMPLE])]
    if alpha.size:  # an opaque pixel may have the largest colour value, or 65535
        parts.append(to_eight_bits(alpha))
    pixels = np.concatenate(parts, axis=-1)
    image.paste(Image.frombytes(image.mode, image.size, pixels.tobytes()))


def _decode_as(layout: str, data: bytes) -> np.ndarray:
    """Decodes a PNG or TIFF with another raw mode of the same number of bits."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        image.tile = [
            tile._replace(args=(layout, *tile[3][1:]) if isinstance(tile[3], tuple) else layout)
            for tile in image.tile
        ]
        return np.asarray(image)
