"""Seconds per train step and peak memory by image size.

    python benchmarks/sizes.py

Each size is measured in a separate process, with the automatic recipe.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys

import equal_cost
import jax

from vaegan_jax import config as configuration
from vaegan_jax import networks
from vaegan_jax.config import recipe
from vaegan_jax.runtime import environment

SIZES = ((32, 32), (64, 64), (64, 96), (128, 128), (256, 256))
ROUNDS = 3


def measure(height: int, width: int) -> str:
    """Returns a row of the table for the automatic recipe at an image size."""
    config = configuration.default_config()
    config.data.image_size = (height, width)
    shape = (height, width, 3)
    config = recipe.resolve(config, 5_000, shape)
    timers = {stage: equal_cost.make_timer(config, stage) for stage in ("vae", "gan")}
    seconds = {
        stage: statistics.median(timer() for _ in range(ROUNDS)) for stage, timer in timers.items()
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    widths = " ".join(map(str, networks.widths(config.model, shape)))
    times = f"{seconds['vae']:.3f} | {seconds['gan']:.3f}"
    return f"| {height}x{width} | {widths} | {times} | {peak:.0f} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, nargs=2, help="only this size, without a heading")
    args = parser.parse_args()
    if args.size:
        print(measure(*args.size), flush=True)
        return
    print(f"{environment.facts()['cpu']}, {os.cpu_count()} cores, jax {jax.__version__}\n")
    print("| size | widths | VAE, s per step | GAN, s per step | peak memory, MB |")
    print("|---|---|---|---|---|", flush=True)
    for height, width in SIZES:
        subprocess.run([sys.executable, __file__, "--size", str(height), str(width)], check=True)


if __name__ == "__main__":
    main()
