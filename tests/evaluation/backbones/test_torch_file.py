"""Files in PyTorch's formats, written without PyTorch."""

import hashlib
import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from vaegan_jax.errors import UserError
from vaegan_jax.evaluation.backbones import torch_file


class Named:
    """Pickles as a global of any module and name."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Pickler(pickle._Pickler):
    """Writes globals by name and storages as PyTorch's persistent ids."""

    def persistent_id(self, value):
        return value if isinstance(value, tuple) and value[:1] == ("storage",) else None

    def save_global(self, value, name=None):
        if isinstance(value, Named):
            self.write(f"c{value.module}\n{value.name}\n".encode())
        else:
            super().save_global(value, name)

    dispatch = pickle._Pickler.dispatch | {Named: save_global}


def dumps(value):
    file = io.BytesIO()
    Pickler(file, protocol=2).dump(value)
    return file.getvalue()


class Rebuilt:
    """A tensor as PyTorch pickles it."""

    def __init__(self, key, kind, count, offset, shape, strides, function="_rebuild_tensor_v2"):
        storage = ("storage", Named("torch", kind), key, "cpu", count)
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())
        self.function = Named("torch._utils", function)

    def __reduce__(self):
        return Call(self.function), self.arguments


class Call:
    """A callable for `__reduce__` that pickles as a global."""

    def __init__(self, named):
        self.named = named

    def __call__(self):
        raise NotImplementedError


Pickler.dispatch = Pickler.dispatch | {
    Call: lambda self, value: self.save_global(value.named),
}

A = np.arange(24, dtype=np.float32)
B = np.arange(5, dtype=np.int64)
STATE = OrderedDict(
    a=Rebuilt("1", "FloatStorage", 24, 0, (2, 3, 4), (12, 4, 1)),
    transposed=Rebuilt("1", "FloatStorage", 24, 4, (4, 2), (1, 4)),
    scalar=Rebuilt("2", "LongStorage", 5, 3, (), ()),
)


def legacy(state):
    head = dumps(0x1950A86A20F9469CFC6C) + dumps(1001) + dumps({"little_endian": True})
    data = b"".join(struct.pack("<q", len(array)) + array.tobytes() for array in (A, B))
    return head + dumps(state) + dumps(["1", "2"]) + data


def zipped(state):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", dumps(state))
        archive.writestr("archive/data/1", A.tobytes())
        archive.writestr("archive/data/2", B.tobytes())
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


FORMATS = pytest.mark.parametrize("form", [legacy, zipped])


def read(path, data):
    path.write_bytes(data)
    return torch_file.read(path, hashlib.sha256(data).hexdigest())


@FORMATS
def test_tensors_are_read_with_shape_strides_and_offset(tmp_path, form):
    arrays = read(tmp_path / "x.pth", form(STATE))
    np.testing.assert_array_equal(arrays["a"], A.reshape(2, 3, 4))
    np.testing.assert_array_equal(arrays["transposed"], A[4:12].reshape(2, 4).T)
    assert arrays["scalar"] == 3
    assert arrays["a"].dtype == np.float32


@FORMATS
def test_only_tensors_are_unpickled(tmp_path, form):
    class Evil:
        def __reduce__(self):
            return Call(Named("os", "system")), ("echo oh no",)

    with pytest.raises(UserError, match=r"os\.system"):
        read(tmp_path / "x.pth", form(OrderedDict(a=Evil())))


@FORMATS
@pytest.mark.parametrize(
    ("offset", "shape", "strides"), [(20, (5,), (1,)), (0, (25,), (1,)), (-1, (2,), (1,))]
)
def test_tensors_that_exceed_their_storage_are_refused(tmp_path, form, offset, shape, strides):
    bad = Rebuilt("1", "FloatStorage", 24, offset, shape, strides)
    state = OrderedDict(a=bad, b=STATE["scalar"])
    with pytest.raises(UserError, match="storage"):
        read(tmp_path / "x.pth", form(state))


def test_missing_and_other_files_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    with pytest.raises(UserError, match=r"x\.pth"):
        torch_file.read(path, "00")
    path.write_bytes(b"something")
    with pytest.raises(UserError, match=r"3fc9b68.* 00;"):
        torch_file.read(path, "00")
