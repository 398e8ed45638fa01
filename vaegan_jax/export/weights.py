"""A file of parameters: safetensors, with what they are of as JSON in its header.

The tensors are named by their place in the tree, such as ``generator.dense.kernel``; the header's
metadata holds one entry, ``vaegan_jax``, the model card. Any reader of safetensors can open it.
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
"""What parameters may be stored as, by name."""

_KEY = "vaegan_jax"


def digest(tree: Any) -> str:
    """Returns the SHA-256 of a tree of arrays: of their names, shapes, dtypes and bytes."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        found.update(f"{name} {array.shape} {array.dtype}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def rounded(tree: Any, dtype: str) -> Any:
    """Returns a tree of float32 arrays as they come back from being stored as a dtype."""
    return jax.tree.map(lambda leaf: np.asarray(leaf).astype(DTYPES[dtype]).astype("f4"), tree)


def pack(tree: Mapping[str, Any], card: Mapping[str, Any], dtype: str = "float32") -> bytes:
    """Returns the file of a tree of float32 arrays: dictionaries whose names have no dots.

    Args:
      tree: parameters by name.
      card: what they are of, as JSON can hold it.
      dtype: one of `DTYPES`, to which they are rounded.
    """
    tensors = {
        name: np.ascontiguousarray(np.asarray(leaf).astype(DTYPES[dtype]))
        for name, leaf in flatten_dict(dict(tree), sep=".").items()
    }
    header = json.dumps({"format": FORMAT} | dict(card), allow_nan=False)
    packed: bytes = safetensors.numpy.save(tensors, metadata={_KEY: header})
    return packed


def read_card(path: pathlib.Path) -> dict[str, Any]:
    """Returns the model card of a file; reads its header alone.

    Raises:
      UserError: where it cannot be read, is no file of this project's, or of a newer format.
    """
    try:
        with safetensors.safe_open(path, "np") as file:
            card = json.loads((file.metadata() or {})[_KEY])
        found = card["format"]
    except KeyError as error:
        raise UserError(
            f"{path} holds no model of vaegan_jax, since its header has no model card: name a file "
            "that `vaegan export` wrote."
        ) from error
    except (OSError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error
    if found != FORMAT:
        raise UserError(
            f"{path} is of format {found}, and this version of vaegan_jax reads format {FORMAT}: "
            "use the version that wrote it."
        )
    return dict(card)


def read(path: pathlib.Path, name: str) -> Any:
    """Returns one part of the tree in a file, as float32 whatever it is stored as; None for none.

    Args:
      path: of the file.
      name: of the part, such as "generator"; nothing else is read.

    Raises:
      UserError: where the file is damaged.
    """
    try:
        with safetensors.safe_open(path, "np") as file:
            names = [key for key in file.keys() if key == name or key.startswith(f"{name}.")]  # noqa: SIM118 - no mapping
            found = {key: file.get_tensor(key).astype(np.float32) for key in names}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error
    return unflatten_dict(found, sep=".").get(name)


def _unreadable(path: pathlib.Path, error: Exception) -> UserError:
    return UserError(f"{path} cannot be read as an export ({one_line(error)}): export it again.")
