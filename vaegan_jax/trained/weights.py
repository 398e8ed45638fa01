"""Parameters as safetensors files with a JSON model card in the header.

Tensors are named by their path in the tree, such as ``generator.dense.kernel``. The card is the
metadata entry ``vaegan_jax``.
"""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
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
    """Returns a file's content: a tree of arrays, rounded to a dtype of `DTYPES`, and a model card.

    The tree is nested dictionaries of float32 arrays, whose keys have no dots.
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
      UserError: if the file cannot be read, or has no model card of this format.
    """
    with _open(path) as file:
        card = json.loads((file.metadata() or {}).get(_KEY, "{}"))
        version = card.get("format", "none")
    if version != FORMAT:
        raise UserError(
            f"{path} has no model card of format {FORMAT} in its header ({version!r}): name a file "
            "that `vaegan export` wrote, or use the version of vaegan_jax that wrote it."
        )
    return dict(card)


def read(path: pathlib.Path, name: str) -> Any:
    """Returns one top-level entry of the tree in a file, as float32; None if it is missing.

    Raises:
      UserError: if the file is damaged.
    """
    with _open(path) as file:
        names = [key for key in file.keys() if key == name or key.startswith(f"{name}.")]  # noqa: SIM118 - no mapping
        flat = {key: file.get_tensor(key).astype(np.float32) for key in names}
    return unflatten_dict(flat, sep=".").get(name)


@contextlib.contextmanager
def _open(path: pathlib.Path) -> Iterator[Any]:
    """Opens a file; what is wrong with it is a `UserError`."""
    try:
        with safetensors.safe_open(path, "np") as file:
            yield file
    except (OSError, ValueError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise UserError(
            f"{path} cannot be read as an export ({one_line(error)}): export it again."
        ) from error
