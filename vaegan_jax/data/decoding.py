"""From the bytes of an image file to its pixels, or to the reason why it has none."""

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
"""Names that end so, in any case, are taken for images."""

NOT_READ = (
    *(".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".jxr", ".psd", ".svg"),
    *(".ico", ".tga", ".pcx", ".pbm", ".pgm", ".ppm", ".pnm", ".exr", ".hdr", ".eps", ".xcf"),
    # Raw files of cameras.
    *(".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".srf", ".sr2", ".orf", ".raf"),
    *(".rw2", ".pef", ".srw", ".3fr", ".x3f", ".iiq", ".erf", ".kdc", ".dcr", ".mrw", ".rwl"),
    *(".raw", ".mef", ".mos", ".fff", ".cap"),
)
"""Images, too, but of formats that are not read."""

HEAD_BYTES = 32
"""`kind` needs so many bytes of a file."""

# Suffixes of copies that editors, cameras' tools and downloads leave beside a file.
_LEFTOVERS = (".bak", ".orig", ".old", ".tmp", ".temp", ".part", ".partial", ".crdownload")
_MIME_TYPES = mimetypes.MimeTypes().types_map[True]  # Python's own, the same on every machine
_HEAD = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP|II[*+]\0|MM\0[*+]"
    rb"|BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}",
    re.DOTALL,
)
_HEAD_NOT_READ = re.compile(
    rb".{4}ftyp(hei|hev|mif1|msf1|avi[fs])|\0{3}\x0c(JXL |jP  )|\xff\x4f\xff\x51|8BPS", re.DOTALL
)

MAX_BYTES = 512 * 1024**2
"""No file, packed or not, may be larger."""

MAX_PIXELS = 178_956_970
"""No image may have more: Pillow's limit, half a gigabyte of RGB."""

MAX_SAMPLE = "vaegan_jax.max_sample"
"""The entry of an image's `info` with the largest sample that its file declares; 0 for none."""

_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE, _PLANAR_CONFIGURATION = 258, 281, 284  # TIFF tags
_LOW_BYTES = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF")


class Kind(enum.Enum):
    """What a file is by its name, or by its first bytes where the name does not tell."""

    IMAGE = enum.auto()
    NOT_READ = enum.auto()
    OTHER = enum.auto()


def kind(name: str, head: Callable[[], bytes]) -> Kind:
    """Returns what a file is.

    Args:
      name: of the file.
      head: returns its first `HEAD_BYTES` bytes. It is called for names without a suffix, or with
        one that belongs to no known type.
    """
    suffix = pathlib.PurePath(name).suffix.lower()
    if suffix in SUFFIXES:
        return Kind.IMAGE
    if suffix in NOT_READ:
        return Kind.NOT_READ
    leftover = suffix in _LEFTOVERS or suffix.endswith("_original") or name.endswith("~")
    if leftover or not _MIME_TYPES.get(suffix, "image/").startswith("image/"):
        return Kind.OTHER
    start = head()
    if _HEAD.match(start):
        return Kind.IMAGE
    return Kind.NOT_READ if _HEAD_NOT_READ.match(start) else Kind.OTHER


class BadImage(Exception):  # noqa: N818 - a finding about a file, which does not stop a run
    """A file that is no usable image; the message is the reason."""


class Unreadable(BadImage):
    """A file that cannot be read now, or changed since it was listed; it may be a good image."""


def decode(data: bytes, most_pixels: int = MAX_PIXELS) -> Image.Image:
    """Reads an image file, whatever its name: the first frame, all of its pixels.

    16-bit colours become 8-bit ones by `to_eight_bits`; 16-bit grey stays as it is.

    What a file's own checksums find is refused (PNG has them; a changed byte that JPEG, WebP,
    GIF, BMP or TIFF can still decode cannot be told from a picture).

    Args:
      data: the file.
      most_pixels: that it may have, up to `MAX_PIXELS`.

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
            layout = _layout(image)
            image.load()
            if image.format in ("PNG", "TIFF"):
                image.info[MAX_SAMPLE] = _declared_maximum(image, data)
                if layout in ("R", "C") and _tag(image, _BITS_PER_SAMPLE) == 16:
                    # Pillow takes their bytes for samples.
                    raise BadImage("16-bit colours in separate planes without compression")
                if ";16" in layout and not image.mode.startswith("I"):
                    _scale_colours(image, layout, data)
            return image
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage("not an image of a format that is read") from None
    except Image.DecompressionBombError:
        raise BadImage(f"too large: more than {MAX_PIXELS} pixels") from None
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged files
        raise BadImage(f"damaged: {one_line(error) or type(error).__name__}") from None


def to_eight_bits(samples: np.ndarray, declared: int = 0) -> np.ndarray:
    """Returns the high 8 bits of 16-bit samples, of as many bits as they use.

    Sensors of 10, 12 or 14 bits are often stored in the low bits of 16-bit files, most of which
    do not say so. The number of bits is therefore the smallest usual one that holds both the
    largest sample and the largest one that the file declares.

    Args:
      samples: uint16, of one image.
      declared: the largest value that the file says samples can have; 0 if it says nothing.

    Returns:
      uint8, of the same shape.
    """
    largest = max(int(samples.max()), min(declared, 0xFFFF))
    bits = next(bits for bits in (8, 10, 12, 14, 16) if largest < 2**bits)
    return (samples >> (bits - 8)).astype(np.uint8)


def _declared_maximum(image: Image.Image, data: bytes) -> int:
    """Returns the largest sample by the file's header (PNG's sBIT, TIFF's tags); 0 for none."""
    if image.format == "PNG":
        found = re.search(rb"\0{3}[\1-\4]sBIT([\1-\x10])", data[: data.find(b"IDAT")])
        return 2 ** found[1][0] - 1 if found else 0
    bits = _tag(image, _BITS_PER_SAMPLE)
    return max(_tag(image, _MAX_SAMPLE_VALUE), 2**bits - 1 if bits < 16 else 0)


def _tag(image: Image.Image, tag: int) -> int:
    """Returns the number in a tag of a TIFF, or the first of several; 0 where there is none."""
    value = getattr(image, "tag_v2", {}).get(tag)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) and value > 0 else 0


def _layout(image: ImageFile.ImageFile) -> str:
    """Returns Pillow's name for how samples lie in a PNG or TIFF, such as RGB;16B."""
    arguments = image.tile[0][3] if image.tile else None
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _scale_colours(image: Image.Image, layout: str, data: bytes) -> None:
    """Applies `to_eight_bits` to 16-bit colours, of which Pillow keeps no more than the high byte.

    Where the high byte shows that few bits are used, the low one is decoded as if the samples were
    in the other byte order.

    Raises:
      BadImage: where the layout is not one of those of which that is possible.
    """
    high = np.asarray(image)
    colours, alpha = (high[..., :3], high[..., 3:]) if image.mode == "RGBA" else (high, high[:0])
    if min(part.max() for part in (colours, alpha) if part.size) >= 64:
        return  # more than 14 bits
    bands, _, form = layout.partition(";")
    if layout == "LA;16B":  # which Pillow makes RGBA
        low = _decode_as("RGBA", data)[..., [1, 1, 1, 3]]
    elif (
        bands in ("RGB", "RGBA", "RGBX", "CMYK")
        and form in _LOW_BYTES
        and _tag(image, _PLANAR_CONFIGURATION) != 2  # libtiff's planes have no other byte order
    ):
        low = _decode_as(f"{bands};{_LOW_BYTES[form]}", data)
    else:
        raise BadImage(
            f"16-bit colours of fewer than 15 bits in a layout that is not read: {layout}"
        )
    samples = high.astype(np.uint16) << 8 | low
    colours, alpha = samples[..., : colours.shape[-1]], samples[..., colours.shape[-1] :]
    parts = [to_eight_bits(colours, image.info[MAX_SAMPLE])]
    if alpha.size:  # opaque may be the largest value of the colours, or 65535
        parts.append(to_eight_bits(alpha))
    pixels = np.concatenate(parts, axis=-1)
    image.paste(Image.frombytes(image.mode, image.size, pixels.tobytes()))


def _decode_as(layout: str, data: bytes) -> np.ndarray:
    """Decodes a PNG or TIFF as if its samples lay in another way of as many bits."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        image.tile = [
            tile._replace(args=(layout, *tile[3][1:]) if isinstance(tile[3], tuple) else layout)
            for tile in image.tile
        ]
        return np.asarray(image)
