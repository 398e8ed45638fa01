"""Preprocessing of images, and conversion to and from the range of the networks.

With the default fit, the result equals torchvision's ``Resize``, ``CenterCrop``, ``ToTensor`` and
``Normalize(0.5, 0.5)`` on Pillow images.
"""

import contextlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageColor, ImageOps

from vaegan_jax.data import decoding


class Settings(NamedTuple):
    """Settings of the preprocessing.

    Attributes:
      height, width: in pixels.
      channels: 3 for RGB, 1 for grey.
      fit: "crop" covers the target size and crops the centre, "pad" fits the image within it and
        pads, "stretch" changes the aspect ratio.
      background: colour of padding and of transparent pixels, a name or "#rrggbb".
    """

    height: int
    width: int
    channels: int = 3
    fit: str = "crop"
    background: str = "white"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height, self.width, self.channels


def prepare(image: Image.Image, settings: Settings) -> np.ndarray:
    """Preprocesses an image.

    Applies the EXIF orientation, if it is valid, in place, and `to_rgb`; resizes (Pillow bilinear)
    as the fit requires, crops or pads about the centre, and converts to luma for one channel.

    Returns:
      uint8 [height, width, channels].

    Raises:
      ValueError: if the pixels have no defined range, or the aspect ratio exceeds 100 (the resized
        image could fill the memory).
    """
    height, width, channels, fit, background = settings
    with contextlib.suppress(Exception):  # Pillow raises many types on damaged EXIF data
        ImageOps.exif_transpose(image, in_place=True)
    image = to_rgb(image, background)
    if max(image.size) > 100 * min(image.size):
        raise ValueError(f"aspect ratio above 100:1: {image.width}x{image.height} pixels")
    size = resized(*image.size, width, height, fit)
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


def resized(width: int, height: int, to_width: int, to_height: int, fit: str) -> tuple[int, int]:
    """Returns the (width, height) to which an image is resized before cropping or padding.

    "crop" covers the target: for a square of `size`, as torchvision's ``Resize(size)``, the shorter
    side becomes `size` and the longer ``int(size * long / short)``. "pad" fits within the target.
    """
    if fit == "stretch":
        return to_width, to_height
    is_wider = width * to_height >= height * to_width
    if is_wider == (fit == "crop"):
        return max(1, int(to_height * width / height)), to_height
    return to_width, max(1, int(to_width * height / width))


def to_rgb(image: Image.Image, background: str) -> Image.Image:
    """Converts an image of any mode to RGB, composited over the background.

    CMYK is converted by Pillow's ``(1 - C) (1 - K)``, 16-bit grey by `decoding.to_eight_bits`.

    Raises:
      ValueError: for 32-bit integers and floats, which have no defined range.
    """
    if image.mode.startswith("I;16"):
        image = Image.fromarray(decoding.to_eight_bits(np.asarray(image)))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels without a defined range (Pillow's mode {image.mode})")
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, ImageColor.getrgb(background))
        image = Image.alpha_composite(canvas, image.convert("RGBA"))
    return image.convert("RGB")


def to_network(images: jax.Array) -> jax.Array:
    """Scales uint8 [0, 255] to float32 [-1, 1], elementwise: (x / 255 - 0.5) / 0.5."""
    return (images.astype(jnp.float32) / 255 - 0.5) / 0.5


def to_uint8(images: jax.Array) -> jax.Array:
    """Scales float [-1, 1] to uint8 [0, 255] with rounding and clipping."""
    return jnp.round((jnp.clip(images, -1, 1) + 1) * 127.5).astype(jnp.uint8)


def random_flip(images: jax.Array, indices: jax.Array, key: jax.Array) -> jax.Array:
    """Flips each image of [B, H, W, C] horizontally with probability one half.

    A flip depends only on the key and the image's index in the data set, int32 [B], not on its
    position in the batch.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
    flipped = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(flipped[:, None, None, None], images[:, :, ::-1], images)
