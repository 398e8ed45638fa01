import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vaegan_jax.evaluation.batches import map_batches


@given(count=st.integers(1, 40), batch_size=st.integers(0, 50))
def test_batched_results_match_single_call_with_constant_batch_size(count, batch_size):
    def function(indices):
        seen.append(indices)
        square = jnp.asarray(indices, jnp.int32) ** 2
        return {"square": square, "pairs": (np.stack([indices, -indices], axis=1), indices * 0.5)}

    seen = []
    results = map_batches(count, function, batch_size)
    rows = np.arange(count)
    assert isinstance(results["square"], np.ndarray)
    np.testing.assert_array_equal(results["square"], rows**2)
    np.testing.assert_array_equal(results["pairs"][0], np.stack([rows, -rows], axis=1))
    np.testing.assert_array_equal(results["pairs"][1], rows * 0.5)
    sizes = {len(indices) for indices in seen}
    assert len(sizes) == 1
    assert not batch_size or sizes == {batch_size}
    padding = len(seen) * sizes.pop() - count
    np.testing.assert_array_equal(np.concatenate(seen), [*rows, *[count - 1] * padding])


def test_progress_sees_batches_and_count():
    seen = []

    def progress(batches, count):
        seen.append(count)
        for indices in batches:
            seen.append(indices.tolist())
            yield indices

    map_batches(5, lambda indices: indices, 2, progress)
    assert seen == [5, [0, 1], [2, 3], [4, 4]]
