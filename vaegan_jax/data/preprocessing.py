"""The one preprocessing, and the way to the networks' range and back.

With the default fit, the arithmetic is that of torchvision's ``Resize``, ``CenterCrop``,
``ToTensor`` and ``Normalize(0.5, 0.5)`` on Pillow images, so that figures can be compared with
other people's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageColor

from vaegan_jax.data import decoding

CHANNELS = (1, 3)
MAX_ASPECT_RATIO = 100
"""How many times its shorter side an image's longer side may be."""

# The EXIF tag, and what undoes each of its values (EXIF 2.32, section 4.6.5).
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


class Settings(NamedTuple):
    """What images are made into.

    Attributes:
      height: in pixels.
      width: in pixels.
      channels: 3 for RGB, 1 for grey.
      fit: "crop" covers the target and cuts off what is beyond it, "pad" fits the whole image
        into it, "stretch" gives up the image's shape.
      background: a colour by name or as "#rrggbb", under transparent pixels and around padded
        images.
    """

    height: int
    width: int
    channels: int = 3
    fit: str = "crop"
    background: str = "white"


def prepare(image: Image.Image, settings: Settings) -> np.ndarray:
    """Returns an image as `settings` want it.

    The steps are `upright`, `to_rgb`, a resize (Pillow bilinear) to the size that the fit asks
    for, the crop or the padding about the centre, and for one channel Pillow's luma.

    Args:
      image: of any mode that `to_rgb` takes.
      settings: size, channels, fit and background.

    Returns:
      uint8 [height, width, channels].

    Raises:
      ValueError: for pixels of no defined range, and for an image more than 100 times as long as
        it is wide, whose resize could fill the memory.
    """
    height, width, channels, fit, background = settings
    image = to_rgb(upright(image), background)
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        raise ValueError(
            f"aspect ratio above {MAX_ASPECT_RATIO}:1: {image.width}x{image.height} pixels"
        )
    size = FITS[fit](*image.size, width, height)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    # torchvision's offsets: Python's round, half to even.
    left = round((image.width - width) / 2)
    top = round((image.height - height) / 2)
    if fit == "pad":
        canvas = Image.new("RGB", (width, height), ImageColor.getrgb(background))
        canvas.paste(image, (-left, -top))
        image = canvas
    else:
        image = image.crop((left, top, left + width, top + height))
    if channels == 1:
        return np.asarray(image.convert("L"))[..., None]
    return np.asarray(image)


def covering_size(width: int, height: int, to_width: int, to_height: int) -> tuple[int, int]:
    """Returns the (width, height) of the smallest resize that covers the target.

    For a square target this is torchvision's ``Resize(size)``: the shorter side becomes `size`,
    the longer ``int(size * long / short)``.
    """
    if width * to_height >= height * to_width:
        return max(to_width, int(to_height * width / height)), to_height
    return to_width, max(to_height, int(to_width * height / width))


def fitting_size(width: int, height: int, to_width: int, to_height: int) -> tuple[int, int]:
    """Returns the (width, height) of the largest resize that lies within the target."""
    if width * to_height >= height * to_width:
        return to_width, max(1, int(to_width * height / width))
    return max(1, int(to_height * width / height)), to_height


def stretched_size(width: int, height: int, to_width: int, to_height: int) -> tuple[int, int]:
    """Returns the target's (width, height), whatever the image's."""
    del width, height
    return to_width, to_height


FITS = {"crop": covering_size, "pad": fitting_size, "stretch": stretched_size}


def upright(image: Image.Image) -> Image.Image:
    """Turns or mirrors an image as its EXIF orientation asks for; none or a broken one is none."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # whatever a broken header makes Pillow raise; the pixels are fine
        return image
    transpose = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if transpose is None else image.transpose(transpose)


def to_rgb(image: Image.Image, background: str) -> Image.Image:
    """Converts an image of any mode to RGB; transparent pixels show the background.

    Palettes are looked up, grey is repeated, CMYK is converted by Pillow's
    ``(1 - C) (1 - K)``, and 16-bit grey becomes 8-bit by `decoding.to_eight_bits`.

    Raises:
      ValueError: for 32-bit integers and floats, which have no defined range.
    """
    if image.mode.startswith("I;16"):
        declared = image.info.get(decoding.MAX_SAMPLE, 0)
        image = Image.fromarray(decoding.to_eight_bits(np.asarray(image), declared))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels without a defined range (Pillow's mode {image.mode})")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        under = Image.new("RGBA", image.size, ImageColor.getrgb(background))
        image = Image.alpha_composite(under, image.convert("RGBA"))
    return image.convert("RGB")


def to_network(images: jax.Array) -> jax.Array:
    """Scales uint8 [0, 255] to float32 [-1, 1], elementwise: (x / 255 - 0.5) / 0.5."""
    return (images.astype(jnp.float32) / 255 - 0.5) / 0.5


def to_uint8(images: jax.Array) -> jax.Array:
    """Scales float [-1, 1] to uint8 [0, 255] with rounding; values beyond are clipped."""
    return jnp.round((jnp.clip(images, -1, 1) + 1) * 127.5).astype(jnp.uint8)


def random_flip(images: jax.Array, indices: jax.Array, key: jax.Array) -> jax.Array:
    """Mirrors each image, left to right, with probability one half.

    Args:
      images: [B, H, W, C].
      indices: int32 [B], which image of the data set each is. An image's flip depends on the key
        and on its index alone, not on its place in the batch.
      key: of this step and this purpose.

    Returns:
      The images, of the same shape and dtype.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
    flipped = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(flipped[:, None, None, None], images[:, :, ::-1], images)
