import hypothesis
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies as st

from vaegan_jax.errors import UserError
from vaegan_jax.trained import weights

TREE = {
    "generator": {"dense": {"kernel": np.linspace(-3, 3, 12, dtype=np.float32).reshape(3, 4)}},
    "latent_mean": np.asarray([0.1, 1 / 3], np.float32),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.safetensors"


def test_round_trip_is_bit_identical(path):
    path.write_bytes(weights.pack(TREE, {"config": {"seed": 3}}))
    assert weights.read_card(path) == {"format": 1, "config": {"seed": 3}}
    kernel = weights.read(path, "generator")["dense"]["kernel"]
    np.testing.assert_array_equal(kernel, TREE["generator"]["dense"]["kernel"])
    np.testing.assert_array_equal(weights.read(path, "latent_mean"), TREE["latent_mean"])
    assert weights.read(path, "encoder") is None


def test_bfloat16_parameters_are_rounded_to_even(path):
    path.write_bytes(weights.pack(TREE, {}, "bfloat16"))
    back, bits = weights.read(path, "latent_mean"), TREE["latent_mean"].view(np.uint32)
    assert back.dtype == np.float32
    # A bfloat16 is the upper half of a float32.
    expected = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    np.testing.assert_array_equal(back.view(np.uint32), expected)
    np.testing.assert_array_equal(back, weights.rounded(TREE, "bfloat16")["latent_mean"])


def test_digest_depends_on_names_shapes_dtypes_and_values():
    a = np.zeros(4)
    others = {"b": a}, {"a": a.reshape(2, 2)}, {"a": a.view(np.int64)}, {"a": a + 1e-300}
    assert len({weights.digest(tree) for tree in ({"a": a}, *others)}) == 5


def test_file_without_card_or_of_other_format_is_refused(path):
    path.write_bytes(safetensors.numpy.save(dict(TREE["generator"]["dense"])))
    with pytest.raises(UserError, match="model card"):
        weights.read_card(path)
    path.write_bytes(weights.pack(TREE, {"format": 2}))
    with pytest.raises(UserError, match=r"format 1 .*\(2\)"):
        weights.read_card(path)


@hypothesis.settings(
    max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(st.data())
def test_damaged_file_is_read_or_refused(path, data):
    packed = bytearray(weights.pack(TREE, {"config": {}}))
    if data.draw(st.booleans()):
        del packed[data.draw(st.integers(0, len(packed) - 1)) :]
    else:
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(packed))
    try:
        weights.read_card(path)
        weights.read(path, "generator")
    except UserError as error:
        message = str(error)
        assert "\n" not in message
