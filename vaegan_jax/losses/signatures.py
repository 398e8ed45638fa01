"""Checks the signatures of losses, before anything is computed."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vaegan_jax.errors import UserError, one_line
from vaegan_jax.losses import augmentation, vae
from vaegan_jax.losses import gan as objectives


def check_losses(config: ConfigDict, image_shape: tuple[int, int, int]) -> None:
    """Checks reconstruction term, objective and augmentations; `add_terms` checks the others.

    Raises:
      UserError: if one cannot be loaded or has another signature.
    """
    gan = config.gan
    logits = jax.ShapeDtypeStruct((2,), jnp.float32)
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def check(kind: str, name: str, function: Any, arguments: Any, shape: tuple[int, ...]) -> None:
        checked = functools.partial(call_checked, kind, name, function, shape=shape)
        jax.eval_shape(lambda *arguments: checked(arguments), *arguments)

    name = config.vae.reconstruction
    check("reconstruction", name, vae.make_reconstruction(name), (images, images), (2,))
    for loss in objectives.make_objective(gan.objective):
        check("objective", gan.objective, loss, (logits, logits), ())
    augment = augmentation.make(gan.augmentations)
    check("augmentation", gan.augmentations, augment, (images, key), images.shape)


def call_checked(
    kind: str,
    name: str,
    function: Callable[..., jax.Array],
    arguments: Sequence[Any],
    shape: tuple[int, ...],
) -> jax.Array:
    """Returns ``function(*arguments)``, which must be a float32 array of a shape.

    Messages name the kind of function, such as "term", and its name in the config. In a traced
    function, the check costs nothing.

    Raises:
      UserError: if the function raises, or returns anything else.
    """
    try:
        result = jnp.asarray(function(*arguments))
    except Exception as error:  # a user's function may raise anything
        raise UserError(
            f"The {kind} {name!r} cannot be called ({one_line(repr(error))}): docs/extending.md "
            "shows its signature."
        ) from error
    if (result.dtype, result.shape) != (jnp.float32, shape):
        raise UserError(
            f"The {kind} {name!r} must return float32{list(shape)}, and returns "
            f"{result.dtype}{list(result.shape)}: docs/extending.md shows its signature."
        )
    return result
