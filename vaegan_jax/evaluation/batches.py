"""Batched application of functions, with a constant batch size so each function compiles once."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

Progress = Callable[[Iterable[np.ndarray], int], Iterator[np.ndarray]]
"""``progress(batches, item count)`` yields the batches; may show progress or raise."""

MakeProgress = Callable[[str], Progress]
"""``make_progress(label)`` returns the progress of one loop."""


def no_progress(batches: Iterable[np.ndarray], _: int) -> Iterator[np.ndarray]:
    """Yields the batches without displaying progress."""
    return iter(batches)


def map_batches(
    count: int,
    function: Callable[[np.ndarray], Any],
    batch_size: int = 0,
    progress: Progress = no_progress,
) -> Any:
    """Applies a function to `count` >= 1 items in batches of equal size.

    `function` maps item indices, int64 [batch_size], to a tree of arrays [batch_size, ...]; the
    last batch is padded by repeating the last item. The result for an item does not depend on the
    number of items. A `batch_size` of 0 selects 8 on CPU and 128 elsewhere.

    Returns:
      A tree of NumPy arrays [count, ...].
    """
    # On CPU, small batches are fastest because activations stay in the cache.
    batch_size = batch_size or (8 if jax.default_backend() == "cpu" else 128)
    batches = (
        np.minimum(np.arange(first, first + batch_size), count - 1)
        for first in range(0, count, batch_size)
    )
    results = [jax.device_get(function(indices)) for indices in progress(batches, count)]
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *results)
