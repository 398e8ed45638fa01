"""Saved states held against each other, bit by bit."""

import hashlib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

State = dict[str, np.ndarray]
"""The leaves of a state by name, as `checkpoints.load` returns them."""


class LeafDifference(NamedTuple):
    """How one leaf differs between two states, A and B.

    Attributes:
      name: such as "params.decoder.bias".
      a: its dtype and shape in A, such as "float32[3,4]", or None where A has no such leaf.
      b: the same of B.
      differing: elements whose bits differ; None where dtype or shape do, or one has none.
      size: elements in all.
      absolute: the largest difference between finite elements; None where there is none.
      ulps: the largest distance between finite elements, in numbers of their format; None for
        what is no float.
      not_finite: differing elements that are not finite in A or in B.
    """

    name: str
    a: str | None
    b: str | None
    differing: int | None = None
    size: int | None = None
    absolute: float | None = None
    ulps: int | None = None
    not_finite: int | None = None


def digest(state: State) -> str:
    """Returns the SHA-256 of the leaves' names, dtypes, shapes and bytes, in hexadecimal."""
    sha256 = hashlib.sha256()
    for name, leaf in sorted(state.items()):
        sha256.update(f"{name} {_describe(leaf)}\n".encode())
        sha256.update(np.ascontiguousarray(leaf).tobytes())
    return sha256.hexdigest()


def differences(a: State, b: State) -> list[LeafDifference]:
    """Returns how the leaves differ whose bits do, in the order of their names."""
    found = []
    for name in sorted(a.keys() | b.keys()):
        difference = _difference(name, a.get(name), b.get(name))
        if difference is not None:
            found.append(difference)
    return found


def ulps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns how many steps from one number of their format to the next lie between floats.

    Both zeros are one number, and infinity is the step after the largest. A bit pattern without
    its sign rises with the size of the float, so that patterns can be subtracted, as Dawson,
    Comparing Floating Point Numbers (2012), explains. What is not a number has no place on this
    line, and the result means nothing there.

    Args:
      a: floats of 16, 32 or 64 bits, of any shape.
      b: of the same dtype and shape.

    Returns:
      uint64 of the same shape.
    """
    places_a, places_b = _places(a), _places(b)
    apart: np.ndarray = np.maximum(places_a, places_b) - np.minimum(places_a, places_b)
    return apart


def _places(x: np.ndarray) -> np.ndarray:
    """Returns the place of each float among all of its format: uint64, 2^(bits - 1) for zero."""
    width = x.dtype.itemsize
    bits = np.ascontiguousarray(x).view(f"u{width}").reshape(x.shape).astype(np.uint64)
    zero = np.uint64(1 << (8 * width - 1))
    return np.where(bits >= zero, zero - (bits - zero), zero + bits)


def _difference(name: str, a: np.ndarray | None, b: np.ndarray | None) -> LeafDifference | None:
    described = None if a is None else _describe(a), None if b is None else _describe(b)
    if a is None or b is None or described[0] != described[1]:
        return LeafDifference(name, *described)
    changed = (_bytes(a) != _bytes(b)).any(axis=1)
    if not changed.any():
        return None
    count = int(changed.sum())
    x, y = a.reshape(-1)[changed], b.reshape(-1)[changed]
    floats = bool(jnp.issubdtype(a.dtype, jnp.floating))
    finite = np.ones(count, bool)
    if floats:
        finite = np.isfinite(x) & np.isfinite(y)
    # In float64 the difference of two float32 is exact, or nearly so.
    with np.errstate(over="ignore"):
        apart = np.abs(x[finite].astype(np.float64) - y[finite].astype(np.float64))
    some = bool(finite.any())
    return LeafDifference(
        name,
        *described,
        differing=count,
        size=a.size,
        absolute=float(apart.max()) if some else None,
        ulps=int(ulps(x[finite], y[finite]).max()) if some and floats else None,
        not_finite=int((~finite).sum()),
    )


def _bytes(x: np.ndarray) -> np.ndarray:
    """Returns the bytes of each element: uint8 [N, bytes]."""
    return np.frombuffer(np.ascontiguousarray(x).tobytes(), np.uint8).reshape(x.size, -1)


def _describe(leaf: np.ndarray) -> str:
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
