"""Throughput of data preparation and streaming, the time of a second start, and memory.

    python benchmarks/data.py

Preparation is timed with 640x480 JPEGs of smooth noise in a temporary folder. Streaming is timed
with a synthetic data set several times larger than the limit for streaming, so that the resident
set size (Linux: /proc) shows the memory that streaming needs.
"""

import argparse
import io
import multiprocessing
import os
import pathlib
import platform
import shutil
import statistics
import tempfile
import time

import numpy as np
import step_time
from PIL import Image

from vaegan_jax import config as configuration
from vaegan_jax import randomness
from vaegan_jax.data import feed, images, preparation, preprocessing, sources

BATCH = 64


def write_photographs(folder: pathlib.Path, count: int) -> None:
    """Writes 640x480 JPEGs that compress about as well as photographs."""
    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3)).astype(np.uint8))
        pixels = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC), np.int16)
        pixels = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:05}.jpg", quality=90)


def prepare_photographs(count: int) -> None:
    """Prints images/s of preparation, with one thread and with all, and the second start's time."""
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        (root / "photographs").mkdir()
        write_photographs(root / "photographs", count)
        size = sum(path.stat().st_size for path in (root / "photographs").iterdir()) / count
        config = configuration.default_config()
        config.data.name, config.data.path = "folder", str(root / "photographs")
        config.data.directory = str(root / "prepared")
        print(f"\n{count} 640x480 JPEGs of {size / 1e3:.0f} kB, resized to 64x64")
        for workers in (1, os.cpu_count() or 1):
            config.data.workers = workers
            began = time.perf_counter()
            images.load(config.data)
            seconds = time.perf_counter() - began
            print(f"preparation, {workers} threads: {count / seconds:.0f} images/s")
            if workers > 1:
                break
            shutil.rmtree(root / "prepared")
        times = []
        for _ in range(3):
            began = time.perf_counter()
            images.load(config.data)
            times.append(time.perf_counter() - began)
        print(f"second start: {statistics.median(times):.2f} s")


def synthetic_source(count: int, side: int) -> sources.Source:
    """Returns a source whose images are computed from their indices instead of read from disk."""
    base = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)

    def read(index: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(base ^ np.uint8(index % 256)).save(file, "BMP")
        return file.getvalue()

    names = [str(index) for index in range(count)]
    return sources.Source("synthetic", names, f"{count}", read)


def prepare_synthetic(count: int, side: int, directory: str) -> preparation.Prepared:
    """Returns the prepared synthetic images; prepares them on first use."""
    settings = preprocessing.Settings(side, side)
    return preparation.prepare(synthetic_source(count, side), settings, directory, 2, 0.0)


def stream(count: int, side: int, limit_mb: float) -> None:
    """Prints images/s of streaming without training, and memory after each of three epochs."""
    with tempfile.TemporaryDirectory() as directory:
        # In a separate process, so that the memory of the preparation is not counted.
        process = multiprocessing.get_context("spawn").Process(
            target=prepare_synthetic, args=(count, side, directory)
        )
        process.start()
        process.join()
        prepared = prepare_synthetic(count, side, directory)
        split = images.Split(prepared, np.arange(count), (side, side, 3))
        print(
            f"\n{count} images of {side}x{side}, {split.nbytes / 1e6:.0f} MB, streamed "
            f"(limit {limit_mb:.0f} MB), batches of {BATCH}"
        )
        batches = feed.Batches(0, randomness.Stage.VAE, BATCH, count)
        source = feed.make_feed(split, batches, 0, 100, limit_mb, 0)
        assert isinstance(source, feed.Stream)
        before = resident_mb()
        print(f"resident set size before: {before:.0f} MB")
        step = 0
        for epoch in range(3):
            began, first, last = time.perf_counter(), step, (epoch + 1) * (count // BATCH)
            while step < last:
                step += len(source.serve(step, last - step).indices)
                source.prefetch()
            rate = (step - first) * BATCH / (time.perf_counter() - began)
            print(
                f"epoch {epoch}: {rate:.0f} images/s, {rate * side * side * 3 / 1e6:.0f} MB/s, "
                f"resident set size {resident_mb():.0f} MB"
            )


def train_step(base_width: int) -> None:
    """Prints images/s of the VAE's train step at 64x64."""
    run = step_time.jax_steps("vae", base_width, BATCH, step_time.OURS).run
    steps = 10
    run(steps)
    began = time.perf_counter()
    run(steps)
    rate = steps * BATCH / (time.perf_counter() - began)
    print(f"VAE train step, base width {base_width}: {rate:.0f} images/s")


def resident_mb() -> float:
    """Returns this process's resident set size in megabytes."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Runs all measurements."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photographs", type=int, default=2_000)
    parser.add_argument("--streamed", type=int, default=160_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--limit_mb", type=float, default=100.0)
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}")
    prepare_photographs(args.photographs)
    stream(args.streamed, args.side, args.limit_mb)
    for base_width in (16, 32, 64):
        train_step(base_width)


if __name__ == "__main__":
    main()
