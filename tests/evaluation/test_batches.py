import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaegan_jax.evaluation.batches import map_batches, unwatched


def results(indices):
    """A tree of results, none of which two items share."""
    return {"square": indices**2, "pairs": (np.stack([indices, -indices], axis=1), indices * 0.5)}


@given(count=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_the_parts_are_the_whole(count, batch_size):
    found = map_batches(count, results, batch_size)
    expected = results(np.arange(count))
    np.testing.assert_array_equal(found["square"], expected["square"])
    np.testing.assert_array_equal(found["pairs"][0], expected["pairs"][0])
    np.testing.assert_array_equal(found["pairs"][1], expected["pairs"][1])


@given(count=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_every_batch_has_the_one_size_and_the_last_item_fills_the_last(count, batch_size):
    seen = []
    map_batches(count, lambda indices: seen.append(indices) or indices, batch_size)
    assert [len(indices) for indices in seen] == [batch_size] * -(-count // batch_size)
    padding = len(seen) * batch_size - count
    expected = [*range(count), *[count - 1] * padding]
    np.testing.assert_array_equal(np.concatenate(seen), expected)
    assert all(indices.dtype == np.int64 for indices in seen)


@pytest.mark.parametrize("count", [1, 7, 300])
def test_the_machines_own_size_is_one_size_too(count):
    sizes = set()
    found = map_batches(count, lambda indices: sizes.add(len(indices)) or indices)
    np.testing.assert_array_equal(found, np.arange(count))
    assert len(sizes) == 1


def test_what_lies_on_the_device_comes_back_as_numpy():
    found = map_batches(5, lambda indices: jnp.asarray(indices, jnp.int32) * 2, 3)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, [0, 2, 4, 6, 8])


def test_the_watch_sees_the_batches_the_count_and_the_label():
    seen = []

    def watch(batches, count, label):
        seen.append((count, label))
        for indices in batches:
            seen.append(indices.tolist())
            yield indices

    map_batches(5, lambda indices: indices, 2, watch, "features of samples")
    assert seen == [(5, "features of samples"), [0, 1], [2, 3], [4, 4]]


def test_the_watch_ends_it_where_it_raises():
    done = []

    def watch(batches, count, label):
        for number, indices in enumerate(batches):
            if number == 2:
                raise KeyboardInterrupt
            yield indices

    with pytest.raises(KeyboardInterrupt):
        map_batches(10, lambda indices: done.append(len(indices)) or indices, 2, watch)
    assert done == [2, 2]


def test_no_watch_hands_everything_on():
    batches = [np.arange(2), np.arange(3)]
    assert [len(batch) for batch in unwatched(batches, 5, "anything")] == [2, 3]
