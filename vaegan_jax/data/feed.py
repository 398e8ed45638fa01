"""What a stage's train steps see: from memory of the device, or streamed; the same bits either way.

Both ways ask `Batches` which images a step sees, so that the order is one and the same, and any
step of any epoch can be jumped to.
"""

import functools
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import grain
import jax
import numpy as np

from vaegan_jax import randomness
from vaegan_jax.runtime import parallel

_BLOCK_BYTES = 32 * 2**20
_LAST_STEP = 2**31 - 1  # steps are int32


class ImageArray(Protocol):
    """uint8 images [N, H, W, C] that are read by index: a `Split`, or an array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""

    @property
    def nbytes(self) -> int:
        """Bytes that all of them take in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray, /) -> np.ndarray: ...


class Batches:
    """Which images each step sees: every epoch a new order, in whole batches.

    What is left over at an epoch's end differs from epoch to epoch, as the order does.
    """

    def __init__(self, seed: int, stage: randomness.Stage, batch_size: int, size: int) -> None:
        """Describes the batches of a stage."""
        self._batch_size, self._per_epoch = batch_size, size // batch_size
        order = functools.partial(randomness.order, seed, stage, size=size)
        self._order = functools.lru_cache(maxsize=2)(order)
        self._lock = threading.Lock()

    def indices(self, step: int) -> np.ndarray:
        """Returns the indices of a step's images, int32 [B]; from any thread."""
        epoch, position = divmod(step, self._per_epoch)
        with self._lock:  # once an epoch, whoever asks first
            order = self._order(epoch)
        first = position * self._batch_size
        return order[first : first + self._batch_size]


class Served(NamedTuple):
    """The images of some steps in a row.

    Attributes:
      images: uint8 [N, H, W, C] on the devices.
      places: where in `images` those of each step lie, int32 [steps, B].
      indices: which images of the data set they are, int32 [steps, B].
    """

    images: jax.Array
    places: np.ndarray
    indices: np.ndarray

    @property
    def steps(self) -> int:
        """How many."""
        return len(self.places)


class Feed(Protocol):
    """Serves the train steps of a stage, in their order."""

    def serve(self, step: int, most: int) -> Served:
        """Returns the images of one or more steps from `step` on, of no more than `most`."""

    def prefetch(self) -> None:
        """Puts what comes next on its way to the devices; called while they are busy."""


class Resident:
    """Serves from a data set that lies on the devices."""

    def __init__(
        self,
        images: ImageArray,
        batches: Batches,
        sharding: jax.sharding.NamedSharding | None = None,
    ) -> None:
        """Puts all images on the devices, whole on each or, by the sharding, a part on each."""
        sharding = sharding or parallel.replicated(parallel.make_mesh())
        parts = 1 if sharding.is_fully_replicated else sharding.mesh.size
        read = images[np.arange(len(images))]
        # Every device holds as many; what fills up the last is never asked for.
        missing = -len(read) % parts
        read = np.concatenate([read, read[:missing]])
        self._images = parallel.put(read, sharding)
        self._batches = batches

    def serve(self, step: int, most: int) -> Served:
        """See `Feed`."""
        indices = np.stack([self._batches.indices(step + i) for i in range(most)])
        return Served(self._images, indices, indices)

    def prefetch(self) -> None:
        """See `Feed`; there is nothing to do."""


class Stream:
    """Serves blocks of steps, which Grain's threads read while the devices work on others.

    A block lies on the devices as its batches will: each holds its part of every one, and each
    process reads no more than what its own devices hold. At any time there are a block on the
    devices, the next one, and about one more in the making.
    """

    def __init__(
        self,
        images: ImageArray,
        batches: Batches,
        start: int,
        block_steps: int,
        workers: int,
        mesh: jax.sharding.Mesh | None = None,
    ) -> None:
        """Begins at step `start`; every block holds `block_steps` steps."""
        mesh = mesh or parallel.make_mesh()
        self._batches, self._block_steps = batches, block_steps
        self._mesh = mesh
        own = parallel.local_shards(mesh)

        def read(step: int) -> np.ndarray:
            of_devices = np.split(batches.indices(step), mesh.size)
            return images[np.concatenate([of_devices[part] for part in own])]

        options = grain.ReadOptions(workers, prefetch_buffer_size=max(block_steps, workers))
        steps = grain.MapDataset.range(start, _LAST_STEP).map(read)
        self._blocks: Iterator[np.ndarray] = iter(steps.to_iter_dataset(options).batch(block_steps))
        self._own = len(own)
        self._first = start - block_steps
        self._images: jax.Array | None = None
        self._next: jax.Array | None = None

    def serve(self, step: int, most: int) -> Served:
        """See `Feed`."""
        if self._images is None or step >= self._first + self._block_steps:
            self.prefetch()
            self._images, self._next = self._next, None
            self._first += self._block_steps
        assert self._images is not None
        first, end = step - self._first, min(step - self._first + most, self._block_steps)
        indices = np.stack([self._batches.indices(self._first + i) for i in range(first, end)])
        places = np.arange(len(self._images), dtype=np.int32)
        places = places.reshape(self._mesh.size, self._block_steps, -1)[:, first:end]
        return Served(self._images, places.swapaxes(0, 1).reshape(indices.shape), indices)

    def prefetch(self) -> None:
        """See `Feed`."""
        if self._next is None:
            block = next(self._blocks)
            steps, images, *shape = block.shape
            parts = block.reshape(steps, self._own, images // self._own, *shape).swapaxes(0, 1)
            parts = parts.reshape(self._own, -1, *shape)
            self._next = parallel.put_shards(parts, self._mesh)


def make_feed(
    images: ImageArray,
    batches: Batches,
    start: int,
    most: int,
    limit_mb: float,
    workers: int,
    mesh: jax.sharding.Mesh | None = None,
) -> Feed:
    """Returns a `Resident` feed for a set of at most `limit_mb` megabytes a device.

    It lies on every device as a whole where that limit allows it; else, where all devices together
    can hold it, in equal parts; else it is streamed.

    Args:
      images: the training images.
      batches: which of them each step sees.
      start: the first step to be served.
      most: the most steps that will be asked for at once.
      limit_mb: in units of 10^6 bytes.
      workers: threads that read; 0 for one a core.
      mesh: the devices; all there are if none is given.
    """
    mesh = mesh or parallel.make_mesh()
    limit = limit_mb * 1e6
    if images.nbytes <= limit:
        return Resident(images, batches, parallel.replicated(mesh))
    if images.nbytes <= limit * mesh.size:
        return Resident(images, batches, parallel.sharded(mesh))
    batch_bytes = images.nbytes // len(images) * len(batches.indices(0))
    block_steps = min(most, max(1, _BLOCK_BYTES // batch_bytes))
    return Stream(images, batches, start, block_steps, thread_count(workers), mesh)


def thread_count(workers: int) -> int:
    """Returns ``data.workers``, or one thread a core where that is 0."""
    return workers or os.cpu_count() or 1
