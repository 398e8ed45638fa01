"""Feeds batches from device memory or as a stream, with bit-identical results.

Both feeds take the order from `Batches`, so any step can be served directly.
"""

import functools
import os
from collections.abc import Iterator
from typing import NamedTuple

import grain
import jax
import numpy as np

from vaegan_jax import randomness
from vaegan_jax.data.images import Split
from vaegan_jax.runtime import parallel

_BLOCK_BYTES = 32 * 2**20
_LAST_STEP = 2**31 - 1  # steps are int32

ImageArray = Split | np.ndarray
"""uint8 images [N, H, W, C] that are read by index."""


class Batches:
    """Image indices of each step: a new permutation per epoch, in full batches.

    The remainder of an epoch is dropped; it differs between epochs.
    """

    def __init__(self, seed: int, stage: randomness.Stage, batch_size: int, size: int) -> None:
        self._batch_size, self._per_epoch = batch_size, size // batch_size
        order = functools.partial(randomness.order, seed, stage, size=size)
        self._order = functools.lru_cache(maxsize=2)(order)

    def indices(self, step: int) -> np.ndarray:
        """Returns the image indices of a step, int32 [B]; thread-safe."""
        epoch, position = divmod(step, self._per_epoch)
        return self._order(epoch)[position * self._batch_size :][: self._batch_size]


class Served(NamedTuple):
    """The images of consecutive steps.

    Attributes:
      images: uint8 [N, H, W, C] on the devices.
      places: positions in `images` of each step's batch, int32 [steps, B].
      indices: their indices in the data set, int32 [steps, B].
    """

    images: jax.Array
    places: np.ndarray
    indices: np.ndarray


class Resident:
    """Serves batches from a data set that every device holds."""

    def __init__(self, images: ImageArray, batches: Batches) -> None:
        self._images: jax.Array = parallel.put(images[np.arange(len(images))])
        self._batches = batches

    def serve(self, step: int, max_steps: int) -> Served:
        """Returns the images of `max_steps` steps, beginning at `step`."""
        indices = np.stack([self._batches.indices(step + i) for i in range(max_steps)])
        return Served(self._images, indices, indices)

    def prefetch(self) -> None:
        """Does nothing, since all images are on the devices."""


class Stream:
    """Serves blocks of steps, read by Grain's threads while the devices compute.

    Each device holds its shard of every batch of a block, and each process reads only the shards of
    its local devices. The devices hold two blocks, while about one more is being read.
    """

    def __init__(
        self, images: ImageArray, batches: Batches, start: int, block_steps: int, workers: int
    ) -> None:
        """Begins at step `start` with blocks of `block_steps` steps."""
        mesh = parallel.make_mesh()
        self._batches, self._block_steps, self._mesh = batches, block_steps, mesh
        shards = parallel.local_shards(mesh)

        def read(step: int) -> np.ndarray:
            per_device = np.split(batches.indices(step), mesh.size)
            return images[np.concatenate([per_device[shard] for shard in shards])]

        options = grain.ReadOptions(workers, prefetch_buffer_size=max(block_steps, workers))
        steps = grain.MapDataset.range(start, _LAST_STEP).map(read)
        self._blocks: Iterator[np.ndarray] = iter(steps.to_iter_dataset(options).batch(block_steps))
        self._local_shards = len(shards)
        self._first = start - block_steps
        self._images: jax.Array
        self._next: jax.Array | None = None

    def serve(self, step: int, max_steps: int) -> Served:
        """Returns the images of 1 to `max_steps` steps; each call must continue the last one."""
        if step >= self._first + self._block_steps:
            self._images, self._next = self.prefetch(), None
            self._first += self._block_steps
        first = step - self._first
        end = min(first + max_steps, self._block_steps)
        indices = np.stack([self._batches.indices(self._first + i) for i in range(first, end)])
        places = np.arange(len(self._images), dtype=np.int32)
        places = places.reshape(self._mesh.size, self._block_steps, -1)[:, first:end]
        return Served(self._images, places.swapaxes(0, 1).reshape(indices.shape), indices)

    def prefetch(self) -> jax.Array:
        """Transfers the next block to the devices, best while they are busy, and returns it."""
        if self._next is None:
            block = next(self._blocks)
            shape = block.shape[2:]
            shards = block.reshape(len(block), self._local_shards, -1, *shape).swapaxes(0, 1)
            self._next = parallel.put_shards(shards.reshape(-1, *shape), self._mesh)
        return self._next


def make_feed(
    images: ImageArray, batches: Batches, start: int, max_steps: int, limit_mb: float, workers: int
) -> Resident | Stream:
    """Returns a feed: resident if the images fit into `limit_mb` (10^6 bytes), else streamed.

    It begins at step `start` and serves at most `max_steps` steps at once. `workers` is the number
    of reader threads, 0 for one per core.
    """
    if images.nbytes <= limit_mb * 1e6:
        return Resident(images, batches)
    batch_bytes = images.nbytes // len(images) * len(batches.indices(0))
    block_steps = min(max_steps, max(1, _BLOCK_BYTES // batch_bytes))
    return Stream(images, batches, start, block_steps, workers or os.cpu_count() or 1)
