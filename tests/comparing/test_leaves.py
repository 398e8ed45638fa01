"""Differences of states against hand-made bits."""

import hashlib
import struct

import ml_dtypes
import numpy as np
import pytest

from vaegan_jax.comparing import leaves

FLOATS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def by_hand(a, b, dtype):
    """Ulps between two numbers, from the text of their bits in Python's whole numbers."""
    width = np.dtype(dtype).itemsize

    def place(x):
        bits = int.from_bytes(np.array(x, dtype).tobytes(), "little")
        sign, size = bits >> (8 * width - 1), bits & ((1 << (8 * width - 1)) - 1)
        return -size if sign else size

    return abs(place(a) - place(b))


@pytest.mark.parametrize("dtype", FLOATS)
def test_ulps_are_the_steps_between_floats(dtype):
    values = [0.0, -0.0, 1.0, -1.0, 1.5, -2.75, 3e-5, -6e4, 6e4, np.inf, -np.inf]
    a, b = (x.ravel().astype(dtype) for x in np.meshgrid(values, values))
    found = leaves.ulps(a, b)
    assert found.dtype == np.uint64
    assert found.tolist() == [by_hand(x, y, dtype) for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_next_float_is_an_ulp_away(dtype):
    x = np.array([0.0, 1.0, -1.0, 1e-3, -123.0, np.finfo(dtype).max], dtype)
    with np.errstate(over="ignore"):
        above = np.nextafter(x, dtype(np.inf))
    assert np.isinf(above[-1])
    assert leaves.ulps(x, above).tolist() == [1] * 6
    two = np.nextafter(np.nextafter(dtype(0), dtype(-1)), dtype(-1))
    assert leaves.ulps(two[None], np.nextafter(dtype(0), dtype(1))[None]).tolist() == [3]


def test_known_distances():
    def far(a, b, dtype=np.float32):
        return int(leaves.ulps(np.array([a], dtype), np.array([b], dtype))[0])

    assert far(1, 2) == 2**23  # a binade of float32
    assert far(1, 2, np.float64) == 2**52
    assert far(1, 2, np.float16) == 2**10
    assert far(1, 2, ml_dtypes.bfloat16) == 2**7
    assert far(0.0, -0.0) == 0
    assert far(-1, 1) == 2 * 0x3F800000
    largest = np.finfo(np.float64).max
    assert far(-largest, largest, np.float64) == 2 * 0x7FEFFFFFFFFFFFFF  # beyond int64


def test_a_leaf_says_how_far_it_is_apart():
    x = np.array([[1.0, -2.0], [3.0, 0.0]], np.float32)
    y = np.array([[1.0, -2.5], [np.nextafter(np.float32(3), np.float32(4)), -0.0]], np.float32)
    (found,) = leaves.differences({"w": x}, {"w": y})
    # -0.0 is another bit pattern, and no further away.
    assert found == ("w", "float32[2,2]", "float32[2,2]", 3, 4, 0.5, 2**21, 0)


def test_what_is_not_finite_is_counted_apart():
    x = np.array([1.0, np.nan, np.nan, np.inf, 5.0], np.float32)
    y = np.array([2.0, np.nan, 4.0, 1.0, 5.0], np.float32)
    (found,) = leaves.differences({"w": x}, {"w": y})
    assert (found.differing, found.absolute, found.ulps, found.not_finite) == (3, 1.0, 2**23, 2)
    (found,) = leaves.differences({"w": x[2:3]}, {"w": y[2:3]})
    assert (found.differing, found.absolute, found.ulps, found.not_finite) == (1, None, None, 1)
    assert leaves.differences({"w": x}, {"w": x.copy()}) == []


def test_the_largest_floats_are_too_far_apart_to_subtract():
    x = np.array([np.finfo(np.float64).max])
    (found,) = leaves.differences({"w": x}, {"w": -x})
    assert (found.absolute, found.ulps) == (np.inf, 2 * 0x7FEFFFFFFFFFFFFF)


def test_whole_numbers_have_no_ulps():
    a = {"step": np.array(7, np.int32), "seen": np.array([True, False])}
    b = {"step": np.array(4, np.int32), "seen": np.array([True, True])}
    seen, step = leaves.differences(a, b)
    assert step == ("step", "int32[]", "int32[]", 1, 1, 3.0, None, 0)
    assert (seen.differing, seen.ulps) == (1, None)


@pytest.mark.parametrize("other", [np.zeros((3, 2), np.float32), np.zeros((2, 3), np.float16)])
def test_other_shapes_and_dtypes_are_not_subtracted(other):
    (found,) = leaves.differences({"w": np.zeros((2, 3), np.float32)}, {"w": other})
    assert (found.a, found.differing, found.absolute, found.ulps) == ("float32[2,3]", *[None] * 3)
    assert found.b == f"{other.dtype}[{other.shape[0]},{other.shape[1]}]"


def test_what_only_one_has_is_told():
    a, b = {"x": np.ones(1), "y": np.ones(2)}, {"y": np.ones(2), "z": np.ones(3)}
    assert [found[:3] for found in leaves.differences(a, b)] == [
        ("x", "float64[1]", None),
        ("z", None, "float64[3]"),
    ]


def test_the_digest_is_of_names_dtypes_shapes_and_bytes():
    state = {"b": np.array([1.5, -2.0], np.float32), "a": np.array(3, np.int32)}
    text = b"a int32[]\n" + struct.pack("<i", 3) + b"b float32[2]\n" + struct.pack("<2f", 1.5, -2)
    digest = leaves.digest(state)
    assert digest == hashlib.sha256(text).hexdigest()
    assert leaves.digest(dict(reversed(state.items()))) == digest
    others = [
        state | {"a": np.array(4, np.int32)},
        state | {"a": np.array([3], np.int32)},
        state | {"a": np.array(3, np.uint32)},
        state | {"b": np.array([1.5, np.nextafter(np.float32(-2), np.float32(0))])},
        {"b": state["b"], "c": state["a"]},
    ]
    assert len({digest, *map(leaves.digest, others)}) == 6


def test_a_transposed_leaf_is_compared_by_its_elements():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    same = np.asfortranarray(x)
    assert leaves.digest({"w": x}) == leaves.digest({"w": same})
    assert leaves.differences({"w": x}, {"w": same}) == []
