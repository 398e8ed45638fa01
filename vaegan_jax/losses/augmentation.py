"""Differentiable augmentations of what the discriminator sees, real and fake alike.

Zhao et al. 2020, arXiv 2006.10738: changes of one law on both, through which the generator's
gradient passes. Each is ``augment(images, key)``, from images float32 [B, H, W, C] in [-1, 1] to
the same shape. What happens to an image follows from the key and its place in the batch, never
from the other images.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from vaegan_jax import registry

Augment = Callable[[jax.Array, jax.Array], jax.Array]


def colour(images: jax.Array, key: jax.Array) -> jax.Array:
    """Changes each image's brightness, saturation and contrast, in this order.

    As Zhao et al. 2020, arXiv 2006.10738, have "color": brightness is added, uniform on
    [-1/2, 1/2]; saturation, uniform on [0, 2], scales the distance from the pixel's mean over the
    channels, and does nothing where there is one; contrast, uniform on [1/2, 3/2], scales the
    distance from the image's mean. The result is not clipped, and may leave [-1, 1].
    """
    shape = (3, len(images), 1, 1, 1)
    brightness, saturation, contrast = jax.random.uniform(key, shape, images.dtype)
    images = images + (brightness - 0.5)
    grey = jnp.mean(images, axis=3, keepdims=True)
    images = grey + 2 * saturation * (images - grey)
    mean = jnp.mean(images, axis=(1, 2, 3), keepdims=True)
    changed: jax.Array = mean + (contrast + 0.5) * (images - mean)
    return changed


def translation(images: jax.Array, key: jax.Array, share: float = 1 / 8) -> jax.Array:
    """Moves each image by whole pixels, and puts grey (0) where nothing is left.

    Zhao et al. 2020, arXiv 2006.10738: either way on both axes, by up to an eighth of the side.
    """
    batch, *shape = images.shape
    most = [round(side * share) for side in shape[:2]]
    corners = [
        jax.random.randint(key_of_axis, (batch,), 0, 2 * margin + 1)
        for key_of_axis, margin in zip(jax.random.split(key), most, strict=True)
    ]
    padded = jnp.pad(images, [(0, 0), *((margin, margin) for margin in most), (0, 0)])

    def cut(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (row, column, 0), shape)

    moved: jax.Array = jax.vmap(cut)(padded, *corners)
    return moved


def cutout(images: jax.Array, key: jax.Array, share: float = 1 / 2) -> jax.Array:
    """Makes a rectangle of half of each image's sides grey (0), at a random place.

    Zhao et al. 2020, arXiv 2006.10738: its centre may lie anywhere in the image, so that a part
    of it may lie outside.
    """
    rows, columns = (
        _span(key_of_axis, len(images), side, round(side * share))
        for key_of_axis, side in zip(jax.random.split(key), images.shape[1:3], strict=True)
    )
    return jnp.where(rows[:, :, None, None] & columns[:, None, :, None], 0, images)


def _span(key: jax.Array, batch: int, side: int, size: int) -> jax.Array:
    """Marks `size` neighbours out of `side`, or as many as lie inside: bool [batch, side]."""
    start = jax.random.randint(key, (batch, 1), -(size // 2), side - size + size // 2 + 1)
    place = jnp.arange(side)[None] - start
    return (place >= 0) & (place < size)


def chain(augmentations: Sequence[Augment]) -> Augment:
    """Returns one augmentation that applies several in turn, each with its own key."""

    def augment(images: jax.Array, key: jax.Array) -> jax.Array:
        for number, each in enumerate(augmentations):
            images = each(images, jax.random.fold_in(key, number))
        return images

    return augment


def make(names: str) -> Augment:
    """Returns the augmentations of ``gan.augmentations``, names with commas, as one.

    Raises:
      UserError: where one of the user's own cannot be loaded.
    """
    given = [name.strip() for name in names.split(",") if name.strip()]
    return chain([registry.load("augmentation", name) for name in given])
