"""Batches of one fixed size, the last one padded, so that one compiled program serves any count."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

Watch = Callable[[Iterable[np.ndarray], int, str], Iterator[np.ndarray]]
"""``watch(batches, count of items, label)`` hands batches on; it may show progress, or raise."""


def unwatched(batches: Iterable[np.ndarray], count: int, label: str) -> Iterator[np.ndarray]:
    """Hands batches on, and that is all."""
    del count, label
    return iter(batches)


def map_batches(
    count: int,
    function: Callable[[np.ndarray], Any],
    batch_size: int = 0,
    watch: Watch = unwatched,
    label: str = "",
) -> Any:
    """Applies a function to all of `count` items, a batch at a time.

    Since every batch has one size, what comes of an item does not depend on how many others there
    are.

    Args:
      count: at least 1.
      function: indices int64 [batch_size] -> a tree of arrays [batch_size, ...]; the last batch
        repeats the last item until it is full.
      batch_size: items a batch; 0 for what suits the machine.
      watch: sees the batches go by.
      label: what is being done, for the watch.

    Returns:
      The same tree of NumPy arrays [count, ...].
    """
    # A CPU is quickest where what lies between two layers fits its cache.
    batch_size = batch_size or (8 if jax.default_backend() == "cpu" else 128)
    batches = (
        np.minimum(np.arange(first, first + batch_size), count - 1)
        for first in range(0, count, batch_size)
    )
    results = [jax.device_get(function(indices)) for indices in watch(batches, count, label)]
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *results)
