"""Differentiable augmentations of the discriminator's inputs, real and fake.

Zhao et al. 2020, arXiv 2006.10738: both are augmented with the same distribution, and the
generator's gradient passes through. Each is ``augment(images, key)``, from images float32 [B, H, W,
C] in [-1, 1] to the same shape. The change of an image depends on the key and its index, not on
other images.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vaegan_jax import registry

Augment = Callable[[jax.Array, jax.Array], jax.Array]


def colour(images: jax.Array, key: jax.Array, strength: float = 1) -> jax.Array:
    """Changes each image's brightness, saturation and contrast, in this order.

    The "color" of Zhao et al. 2020, arXiv 2006.10738: brightness is added, uniform on
    [-1/2, 1/2]; saturation, uniform on [0, 2], scales the distance from the pixel's mean over the
    channels, and has no effect on grey images; contrast, uniform on [1/2, 3/2], scales the
    distance from the image's mean. The result is not clipped, and may leave [-1, 1]. A strength
    s makes the ranges s times as wide: s times the brightness, and the factors 1 + s (f - 1).
    """
    shape = (3, len(images), 1, 1, 1)
    brightness, saturation, contrast = jax.random.uniform(key, shape, images.dtype)
    images = images + strength * (brightness - 0.5)
    grey = jnp.mean(images, axis=3, keepdims=True)
    images = grey + (1 - strength + strength * 2 * saturation) * (images - grey)
    mean = jnp.mean(images, axis=(1, 2, 3), keepdims=True)
    factor = 1 - strength + strength * (contrast + 0.5)
    changed: jax.Array = mean + factor * (images - mean)
    return changed


def translation(images: jax.Array, key: jax.Array, share: float = 1 / 8) -> jax.Array:
    """Shifts each image by whole pixels, padding with grey (0).

    Zhao et al. 2020, arXiv 2006.10738: shifts of up to 1/8 of the side along both axes.
    """
    batch, *shape = images.shape
    margins = [round(side * share) for side in shape[:2]]
    corners = [
        jax.random.randint(key_of_axis, (batch,), 0, 2 * margin + 1)
        for key_of_axis, margin in zip(jax.random.split(key), margins, strict=True)
    ]
    padded = jnp.pad(images, [(0, 0), *((margin, margin) for margin in margins), (0, 0)])

    def cut(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (row, column, 0), shape)

    moved: jax.Array = jax.vmap(cut)(padded, *corners)
    return moved


def cutout(images: jax.Array, key: jax.Array, share: float = 1 / 2) -> jax.Array:
    """Sets a randomly placed rectangle, half the image's height and width, to grey (0).

    Zhao et al. 2020, arXiv 2006.10738: the centre is anywhere in the image, so the rectangle may
    extend beyond the border.
    """
    rows, columns = (
        _span(key_of_axis, len(images), side, round(side * share))
        for key_of_axis, side in zip(jax.random.split(key), images.shape[1:3], strict=True)
    )
    return jnp.where(rows[:, :, None, None] & columns[:, None, :, None], 0, images)


def _span(key: jax.Array, batch: int, side: int, size: int) -> jax.Array:
    """Returns a mask of `size` adjacent positions, cut off at the ends: bool [batch, side]."""
    start = jax.random.randint(key, (batch, 1), -(size // 2), side - size + size // 2 + 1)
    place = jnp.arange(side)[None] - start
    return (place >= 0) & (place < size)


def make(augmentations: str) -> Augment:
    """Returns the composition of ``gan.augmentations``; each uses a separate key.

    Raises:
      UserError: if an augmentation cannot be loaded, or its options are wrong.
    """
    functions = [registry.bind("augmentation", call) for call in registry.parse(augmentations)]

    def augment(images: jax.Array, key: jax.Array) -> jax.Array:
        for index, function in enumerate(functions):
            images = function(images, jax.random.fold_in(key, index))
        return images

    return augment
