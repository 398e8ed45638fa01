"""Checks the signatures of user-defined functions without calling them on data."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vaegan_jax.errors import UserError, one_line


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
