"""Checks the signatures of all losses of a config, before anything is computed."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vaegan_jax import registry
from vaegan_jax.errors import UserError, one_line
from vaegan_jax.losses import augmentation, penalties


def check_losses(config: ConfigDict, image_shape: tuple[int, int, int]) -> None:
    """Checks reconstruction term, objective, penalties and augmentations.

    Raises:
      UserError: if one cannot be loaded or has another signature.
    """
    gan = config.gan
    logits = jax.ShapeDtypeStruct((2,), jnp.float32)
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    name = config.vae.reconstruction
    term = registry.load("reconstruction", name)
    check_signature("reconstruction", name, term, (images, images), (2,))
    for loss in registry.load("objective", gan.objective):
        check_signature("objective", gan.objective, loss, (logits, logits), ())
    for name, _, function in penalties.make_terms(gan):
        penalty = functools.partial(function, lambda x: jnp.sum(x, axis=(1, 2, 3)))
        name = gan.penalty if name == "penalty" else name
        check_signature("penalty", name, penalty, (images, images, key), (2,))
    augment = augmentation.make(gan.augmentations)
    check_signature("augmentation", gan.augmentations, augment, (images, key), images.shape)


def check_signature(
    kind: str,
    name: str,
    function: Callable[..., Any],
    arguments: Sequence[Any],
    shape: tuple[int, ...],
) -> None:
    """Checks with `jax.eval_shape` that a function accepts its arguments and returns float32.

    Args:
      kind: the kind of function in error messages, such as "penalty".
      name: the name of the function in the config.
      function: the function.
      arguments: `jax.ShapeDtypeStruct`s or other arguments.
      shape: the expected output shape.

    Raises:
      UserError: if the function raises, or returns another shape or dtype.
    """
    try:
        result = jax.eval_shape(function, *arguments)
        returned = f"{result.dtype}{list(result.shape)}"
    except Exception as error:  # a user's function may raise anything
        raise UserError(
            f"The {kind} {name!r} cannot be called ({one_line(repr(error))}): docs/extending.md "
            "shows its signature."
        ) from error
    if (result.dtype, result.shape) != (jnp.float32, shape):
        raise UserError(
            f"The {kind} {name!r} must return float32{list(shape)}, and returns {returned}: "
            "docs/extending.md shows its signature."
        )
