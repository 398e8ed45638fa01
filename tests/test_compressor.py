import struct
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vaegan_jax import compressor
from vaegan_jax.errors import UserError

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
def test_any_integers_come_back(integers, step):
    found = compressor.unpack(compressor.pack(integers, step, HASH, SHAPE))
    np.testing.assert_array_equal(found.integers, integers)
    assert found.step == np.float32(step)
    assert (found.image_shape, found.model) == (SHAPE, HASH[:16])


def test_latents_are_within_half_a_step():
    means = drawn()
    integers = compressor.quantise(means, 0.25)
    latents = compressor.unpack(compressor.pack(integers, 0.25, HASH, SHAPE)).latents
    assert np.abs(latents - means).max() <= 0.125 + 1e-6


def test_many_images_take_about_their_entropy():
    # Of a normal with deviation s in steps: log2(s sqrt(2 pi e)) bits (Cover and Thomas, 8.3).
    rng, deviations = np.random.default_rng(1), np.asarray([1.0, 0.5, 2.0, 1.5])
    means = (rng.normal(size=(4_000, 4)) * deviations).astype(np.float32)
    data = compressor.pack(compressor.quantise(means, 0.1), 0.1, HASH, SHAPE)
    entropy = np.log2(deviations / 0.1 * np.sqrt(2 * np.pi * np.e)).sum() * len(means) / 8
    assert entropy < len(data) < 1.02 * entropy


def test_it_is_smaller_than_zlib():
    integers = compressor.quantise(drawn(500, 32), 0.25)
    squeezed = zlib.compress(integers.astype(np.int8).tobytes(), 9)
    assert len(compressor.pack(integers, 0.25, HASH, SHAPE)) < 0.9 * len(squeezed)


def test_steps_that_do_not_fit_are_refused():
    for step in (1e-6, 0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="step-size"):
            compressor.quantise(drawn(), step)


DATA = compressor.pack(compressor.quantise(drawn(), 0.25), 0.25, HASH, SHAPE)


@hypothesis.given(st.data())
def test_a_mutated_file_is_refused(data):
    mutated = bytearray(DATA)
    kind = data.draw(st.sampled_from(["flip", "cut", "longer"]))
    if kind == "flip":
        mutated[data.draw(st.integers(0, len(DATA) - 1))] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del mutated[data.draw(st.integers(0, len(DATA) - 1)) :]
    else:
        mutated += data.draw(st.binary(min_size=1, max_size=9))
    with pytest.raises(UserError):
        compressor.unpack(bytes(mutated))


@hypothesis.given(st.data())
def test_a_forged_file_whose_checksum_fits_is_refused_or_read(data):
    head, payload = bytearray(DATA[:32]), bytearray(DATA[36:])
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.sampled_from([head, payload]))
        where[data.draw(st.integers(0, len(where) - 1))] = data.draw(st.integers(0, 255))
    crc = struct.pack("<I", zlib.crc32(bytes(head + payload)))
    try:
        found = compressor.unpack(bytes(head) + crc + bytes(payload))
    except UserError:
        return
    # No few bytes make more than they could hold.
    assert found.integers.size * 0.018 <= 8 * len(payload) + 64
