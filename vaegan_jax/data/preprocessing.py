"""The one preprocessing function, and the way to the networks' range and back.

The arithmetic is that of torchvision's ``Resize``, ``CenterCrop``, ``ToTensor`` and
``Normalize(0.5, 0.5)`` on Pillow images, so that figures can be compared with other people's.
"""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image


def resized_size(width: int, height: int, to_width: int, to_height: int) -> tuple[int, int]:
    """Returns the (width, height) of the smallest resize that covers the target.

    For a square target this is torchvision's ``Resize(size)``: the shorter side becomes `size`,
    the longer ``int(size * long / short)``.
    """
    if width * to_height >= height * to_width:
        return max(to_width, int(to_height * width / height)), to_height
    return to_width, max(to_height, int(to_width * height / width))


def prepare(image: Image.Image, height: int, width: int) -> np.ndarray:
    """Resizes (Pillow bilinear) and crops an image about its centre.

    Args:
      image: any mode; it is converted to RGB first, since palette indices and the like would
        pass for grey values otherwise.
      height: of the result.
      width: of the result.

    Returns:
      uint8 [height, width, 3].
    """
    image = image.convert("RGB")
    size = resized_size(*image.size, width, height)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    # torchvision's offsets: Python's round, half to even.
    left = round((image.width - width) / 2)
    top = round((image.height - height) / 2)
    return np.asarray(image)[top : top + height, left : left + width]


def to_network(images: jax.Array) -> jax.Array:
    """Scales uint8 [0, 255] to float32 [-1, 1], elementwise: (x / 255 - 0.5) / 0.5."""
    return (images.astype(jnp.float32) / 255 - 0.5) / 0.5


def to_uint8(images: jax.Array) -> jax.Array:
    """Scales float [-1, 1] to uint8 [0, 255] with rounding; values beyond are clipped."""
    return jnp.round((jnp.clip(images, -1, 1) + 1) * 127.5).astype(jnp.uint8)
