"""What data costs: preparation, the second start, and streaming against the appetite of training.

    python benchmarks/data.py

Photographs are stood in for by smooth noise of 640x480 as JPEG, in a temporary folder. The set
that is streamed is made of numbers and several times larger than the limit above which sets are
streamed, so that its resident set size (Linux: /proc) shows what streaming holds in memory.
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
from vaegan_jax import layers, randomness
from vaegan_jax.data import feed, images, preparation, preprocessing, sources

BATCH = 64


def write_photographs(folder: pathlib.Path, count: int) -> None:
    """Writes JPEGs of 640x480 that compress about as photographs do."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3)).astype(np.uint8))
        pixels = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC), np.int16)
        pixels = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05}.jpg", quality=90)


def prepare_photographs(count: int) -> None:
    """Prints images a second of preparation by one thread and by all, and the second start."""
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        (root / "photographs").mkdir()
        write_photographs(root / "photographs", count)
        size = sum(path.stat().st_size for path in (root / "photographs").iterdir()) / count
        config = configuration.default_config()
        config.data.name, config.data.path = "folder", str(root / "photographs")
        config.data.directory = str(root / "prepared")
        print(f"\n{count} JPEGs of 640x480 and {size / 1e3:.0f} kB made 64x64")
        for workers in (1, os.cpu_count() or 1):
            config.data.workers = workers
            began = time.perf_counter()
            images.load(config.data)
            seconds = time.perf_counter() - began
            print(f"preparation, {workers} threads: {count / seconds:.0f} images/s")
            if workers > 1:
                break
            shutil.rmtree(root / "prepared")
        again = []
        for _ in range(3):
            began = time.perf_counter()
            images.load(config.data)
            again.append(time.perf_counter() - began)
        print(f"second start: {statistics.median(again):.2f} s")


def numbered(count: int, side: int) -> sources.Source:
    """Returns a source whose images are made of their numbers, so that no disk holds them."""
    base = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)

    def read(number: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(base ^ np.uint8(number % 256)).save(file, "BMP")
        return file.getvalue()

    names = [str(number) for number in range(count)]
    return sources.Source("numbers", names, f"{count}", read, [])


def prepare_numbered(count: int, side: int, directory: str) -> preparation.Prepared:
    """Prepares the numbered images, or finds them prepared."""
    settings = preprocessing.Settings(side, side)
    return preparation.prepare(numbered(count, side), settings, directory, 2, 0.0)


def stream(count: int, side: int, limit_mb: float) -> None:
    """Prints images a second of streaming alone, and memory after each of three epochs."""
    with tempfile.TemporaryDirectory() as directory:
        # In a process of its own, so that what preparing held does not count here.
        process = multiprocessing.get_context("spawn").Process(
            target=prepare_numbered, args=(count, side, directory)
        )
        process.start()
        process.join()
        prepared = prepare_numbered(count, side, directory)
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
            began, last = time.perf_counter(), (epoch + 1) * (count // BATCH)
            first = step
            while step < last:
                step += len(source.serve(step, last - step).indices)
                source.prefetch()
            rate = (step - first) * BATCH / (time.perf_counter() - began)
            print(
                f"epoch {epoch}: {rate:.0f} images/s, {rate * side * side * 3 / 1e6:.0f} MB/s, "
                f"resident set size {resident_mb():.0f} MB"
            )


def appetite(base_width: int) -> None:
    """Prints images a second of 64x64 that the VAE's train step takes in."""
    run = step_time.jax_steps("vae", base_width, BATCH, layers.Down, layers.Up)
    steps = 10
    run(steps)
    began = time.perf_counter()
    run(steps)
    rate = steps * BATCH / (time.perf_counter() - began)
    print(f"a VAE step at base width {base_width} takes in {rate:.0f} images/s")


def resident_mb() -> float:
    """Returns this process's resident set size in megabytes."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Measures and prints everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=int, default=2_000)
    parser.add_argument("--streamed", type=int, default=160_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--limit_mb", type=float, default=100.0)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}")
    prepare_photographs(arguments.photographs)
    stream(arguments.streamed, arguments.side, arguments.limit_mb)
    for base_width in (16, 32, 64):
        appetite(base_width)


if __name__ == "__main__":
    main()
