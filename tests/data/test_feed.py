"""Resident and streamed feeds serve the same bits."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from vaegan_jax import randomness
from vaegan_jax.data import feed

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 16, 32, 3)).astype(np.uint8)
STAGE = randomness.Stage.VAE


def served_batches(source, steps, max_steps, start=0):
    """The batches that a feed serves, and their indices."""
    step, batches, indices = start, [], []
    while step < steps:
        served = source.serve(step, min(max_steps, steps - step))
        images = np.asarray(served.images)
        source.prefetch()
        assert 1 <= len(served.places) <= max_steps
        batches += [images[places] for places in served.places]
        indices += list(served.indices)
        step += len(served.places)
    return np.stack(batches), np.stack(indices)


@pytest.mark.parametrize("max_steps", [1, 3, 10])
@pytest.mark.parametrize("start", [0, 8, 13])
def test_feeds_follow_epoch_permutations(max_steps, start):
    batches = feed.Batches(3, STAGE, 4, len(IMAGES))  # five full batches an epoch
    orders = [randomness.order(3, STAGE, epoch, len(IMAGES)) for epoch in range(4)]
    expected = np.stack([orders[step // 5][step % 5 * 4 :][:4] for step in range(start, 17)])
    sources = [
        feed.Resident(IMAGES, batches),
        feed.Stream(IMAGES, batches, start, block_steps=3, workers=2),
        feed.Stream(IMAGES, batches, start, block_steps=7, workers=5),
    ]
    for source in sources:
        images, indices = served_batches(source, 17, max_steps, start)
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_array_equal(images, IMAGES[expected])


ON_FOUR_DEVICES = """
import numpy as np
from tests.data.test_feed import IMAGES, STAGE
from vaegan_jax.data import feed

batches = feed.Batches(3, STAGE, 8, len(IMAGES))  # two batches an epoch
stream = feed.Stream(IMAGES, batches, 1, 3, 2)
step = 1
while step < 9:
    served = stream.serve(step, 2)
    parts = [np.asarray(shard.data) for shard in served.images.addressable_shards]
    assert [len(part) for part in parts] == [6] * 4, parts
    for places, indices in zip(served.places, served.indices, strict=True):
        np.testing.assert_array_equal(indices, batches.indices(step))
        np.testing.assert_array_equal(np.concatenate(parts)[places], IMAGES[indices])
        # Each device holds its shard of the batch.
        np.testing.assert_array_equal(places // 6, np.repeat(np.arange(4), 2))
        step += 1
print("served")
"""


def test_streamed_batches_are_sharded_over_devices():
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=4"
    result = subprocess.run(
        [sys.executable, "-c", ON_FOUR_DEVICES], cwd=ROOT, env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.stdout == "served\n", result.stderr


def test_memory_limit_selects_the_feed():
    batches = feed.Batches(3, STAGE, 4, len(IMAGES))
    megabytes = IMAGES.nbytes / 1e6
    assert isinstance(feed.make_feed(IMAGES, batches, 0, 5, megabytes, 2), feed.Resident)
    assert isinstance(feed.make_feed(IMAGES, batches, 0, 5, megabytes * 0.999, 2), feed.Stream)


def test_stream_reads_ahead_a_bounded_number_of_images():
    class Counting:
        shape, nbytes = IMAGES.shape, IMAGES.nbytes
        read = 0

        def __len__(self):
            return len(IMAGES)

        def __getitem__(self, indices):
            Counting.read += len(indices)
            return IMAGES[indices]

    source = feed.Stream(Counting(), feed.Batches(3, STAGE, 4, len(IMAGES)), 0, 3, 2)
    for step in range(0, 60, 3):
        source.serve(step, 3)
        source.prefetch()
        ahead = Counting.read - 4 * (step + 3)
        # The next block, one in preparation, and two batches per thread.
        assert ahead <= 4 * (3 + 2 * 3 + 2 * 2), ahead
