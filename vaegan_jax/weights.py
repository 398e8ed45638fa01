"""Parameters as safetensors files with a JSON model card in the header.

Tensors are named by their path in the tree, such as ``generator.dense.kernel``. The card is the
metadata entry ``vaegan_jax``.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from vaegan_jax.errors import UserError, one_line

SUFFIX = ".safetensors"
FORMAT = 1
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
"""Dtypes of stored parameters, by name."""

_KEY = "vaegan_jax"


def digest(tree: Any) -> str:
    """Returns the SHA-256 of the names, shapes, dtypes and bytes of a tree of arrays."""
    sha256 = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        sha256.update(f"{name} {array.shape} {array.dtype}\n".encode())
        sha256.update(array.tobytes())
    return sha256.hexdigest()


def rounded(tree: Any, dtype: str) -> Any:
    """Rounds a tree of arrays to a dtype of `DTYPES` and returns it as float32."""
    return jax.tree.map(lambda leaf: np.asarray(leaf).astype(DTYPES[dtype]).astype("f4"), tree)


def pack(tree: Mapping[str, Any], card: Mapping[str, Any], dtype: str = "float32") -> bytes:
    """Returns the serialized parameters and model card.

    Args:
      tree: nested dictionaries of float32 arrays; keys must not contain dots.
      card: JSON-compatible model card.
      dtype: one of `DTYPES`, to which the arrays are rounded.
    """
    tensors = {
        name: np.ascontiguousarray(np.asarray(leaf).astype(DTYPES[dtype]))
        for name, leaf in flatten_dict(dict(tree), sep=".").items()
    }
    header = json.dumps({"format": FORMAT} | dict(card), allow_nan=False)
    packed: bytes = safetensors.numpy.save(tensors, metadata={_KEY: header})
    return packed


def read_card(path: pathlib.Path) -> dict[str, Any]:
    """Returns the model card of a file; reads only the header.

    Raises:
      UserError: if the file cannot be read, has no model card, or has another format version.
    """
    try:
        with safetensors.safe_open(path, "np") as file:
            card = json.loads((file.metadata() or {})[_KEY])
        version = card["format"]
    except KeyError as error:
        raise UserError(
            f"{path} has no model card of vaegan_jax in its header: name a file that "
            "`vaegan export` wrote."
        ) from error
    except (OSError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error
    if version != FORMAT:
        raise UserError(
            f"{path} has format {version}, but this version of vaegan_jax reads format {FORMAT}: "
            "use the version that wrote it."
        )
    return dict(card)


def read(path: pathlib.Path, name: str) -> Any:
    """Returns one top-level entry of the tree in a file, as float32; None if it is missing.

    Args:
      path: the file.
      name: the entry, such as "generator"; no other entry is read.

    Raises:
      UserError: if the file is damaged.
    """
    try:
        with safetensors.safe_open(path, "np") as file:
            names = [key for key in file.keys() if key == name or key.startswith(f"{name}.")]  # noqa: SIM118 - no mapping
            flat = {key: file.get_tensor(key).astype(np.float32) for key in names}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error
    return unflatten_dict(flat, sep=".").get(name)


def _unreadable(path: pathlib.Path, error: Exception) -> UserError:
    return UserError(f"{path} cannot be read as an export ({one_line(error)}): export it again.")
