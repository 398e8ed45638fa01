"""The parser of FIELD=VALUE, as ``--config.``, sweeps and ``vaegan evaluate --set`` take it."""

import ast
import contextlib
from typing import Any

from ml_collections import ConfigDict

from vaegan_jax import config as configuration
from vaegan_jax.errors import UserError


def set_field(config: ConfigDict, override: str) -> str:
    """Sets one field of a config in place.

    The value is a Python literal or plain text: ``gan.steps=900``, ``data.image_size=(32, 48)``,
    ``transfer.generator=scratch``. `config.check` checks its range.

    Returns:
      The field's name.

    Raises:
      UserError: if there is no such field, or the value has another type than the field.
    """
    field, equals, text = (part.strip() for part in override.partition("="))
    if not equals:
        raise UserError(f"{override.strip()!r} does not set a field: write FIELD=VALUE.")
    if field not in configuration.FIELDS:
        raise configuration.unknown_field(field)
    default = configuration.FIELDS[field].default
    value: Any = text
    with contextlib.suppress(ValueError, SyntaxError):
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    if isinstance(default, str) and not isinstance(value, str):
        value = text
    try:
        config.update_from_flattened_dict({field: value})
    except TypeError as error:
        raise UserError(
            f"{field} cannot be {text!r}: set a value of the same type as the default, {default!r}."
        ) from error
    return field
