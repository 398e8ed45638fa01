import struct
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vaegan_jax.errors import UserError
from vaegan_jax.export import codec

HASH = "0123456789abcdef" * 4
SHAPE = (16, 32, 3)


def drawn(count=30, size=6, seed=0):
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


@hypothesis.given(
    hnp.arrays(
        np.int32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
        elements=st.integers(-(2**15) + 1, 2**15 - 1) | st.integers(-2, 2),
    ),
    st.floats(2**-6, 4, width=32),
)
def test_round_trip_is_exact(integers, step):
    result = codec.unpack(codec.pack(integers, step, HASH, SHAPE))
    np.testing.assert_array_equal(result.integers, integers)
    assert result.step == np.float32(step)
    assert (result.image_shape, result.model) == (SHAPE, HASH[:16])


def test_quantisation_error_is_at_most_half_a_step():
    means = drawn()
    integers = codec.quantise(means, 0.25)
    latents = codec.unpack(codec.pack(integers, 0.25, HASH, SHAPE)).latents
    assert np.abs(latents - means).max() <= 0.125 + 1e-6


def test_size_is_near_the_entropy():
    # Entropy of a normal with standard deviation s: log2(s sqrt(2 pi e)) (Cover and Thomas, 8.3).
    means = drawn(4_000, 6)
    data = codec.pack(codec.quantise(means, 0.1), 0.1, HASH, SHAPE)
    entropy = np.log2(10 * np.sqrt(2 * np.pi * np.e)) * means.size / 8
    assert entropy < len(data) < 1.03 * entropy


def test_invalid_step_size_is_refused():
    for step in (1e-6, 0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="step-size"):
            codec.quantise(drawn(), step)


DATA = codec.pack(codec.quantise(drawn(), 0.25), 0.25, HASH, SHAPE)


@hypothesis.given(st.data())
def test_mutated_file_is_refused(data):
    mutated = bytearray(DATA)
    kind = data.draw(st.sampled_from(["flip", "cut", "longer"]))
    if kind == "flip":
        mutated[data.draw(st.integers(0, len(DATA) - 1))] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del mutated[data.draw(st.integers(0, len(DATA) - 1)) :]
    else:
        mutated += data.draw(st.binary(min_size=1, max_size=9))
    with pytest.raises(UserError):
        codec.unpack(bytes(mutated))


@hypothesis.given(st.data())
def test_forged_file_with_valid_checksum_is_refused_or_bounded(data):
    crc_begin, begin = codec._HEADER.size - 4, codec._HEADER.size
    head, payload = bytearray(DATA[:crc_begin]), bytearray(DATA[begin:])
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.sampled_from([head, payload]))
        where[data.draw(st.integers(0, len(where) - 1))] = data.draw(st.integers(0, 255))
    crc = struct.pack("<I", zlib.crc32(bytes(head + payload)))
    try:
        result = codec.unpack(bytes(head) + crc + bytes(payload))
    except UserError:
        return
    # The maximum compression ratio of deflate is 1032.
    assert result.integers.size <= 1032 * len(payload)


def test_decompression_bomb_is_refused():
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = deflate.compress(bytes(10**7)) + deflate.flush()
    for count in (1, 10**6, 2**32 - 1):
        head = codec._HEADER.pack(b"VGLC", 2, bytes(8), *SHAPE, 6, count, 0.25, 1, 0)[:-4]
        crc = struct.pack("<I", zlib.crc32(head + payload))
        with pytest.raises(UserError):
            codec.unpack(head + crc + payload)
