"""How far data parallelism carries a step: an estimate from step times and bytes of gradients.

    python benchmarks/scaling.py --base_width 64 --batch 256 --bandwidth 1.25

Measures, on one device, a step at the batch that each of N devices would have, and adds the time of
adding up the gradients in a ring, 2 (N - 1) / N times their bytes over the bandwidth of the slowest
link (gigabytes a second: 1.25 is 10 gigabit Ethernet, 50 a 400 gigabit network, 450 NVLink of an
H100), as if nothing overlapped. The efficiency is the rate over N times that of one device. Nothing
is measured of the exchange itself, and none of its latency is counted.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

import jax

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import step_time
from vaegan_jax import config as configuration
from vaegan_jax import gan, networks, vae
from vaegan_jax.runtime import environment


def gradient_bytes(stage: str, base_width: int) -> int:
    """Returns the bytes of a step's gradients, float32."""
    config = configuration.default_config()
    config.model.base_width = base_width
    if stage == "vae":
        trained = [jax.eval_shape(lambda: vae.init(config, step_time.SHAPE)).params]
    else:
        state = jax.eval_shape(
            lambda: gan.init(config, step_time.SHAPE, gan.random_init(config, step_time.SHAPE))
        )
        trained = [state.generator, state.discriminator]
    return sum(4 * leaf.size for leaf in jax.tree.leaves(trained))


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--base_width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=256, help="of all devices together")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--bandwidth", type=float, default=1.25, help="10^9 bytes a second")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=4, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    cpu = environment.facts()["cpu"]
    print(f"{jax.devices()[0].device_kind}, {cpu}, {os.cpu_count()} cores, jax {jax.__version__}")
    print(f"base width {flags.base_width}, batch {flags.batch}, {flags.bandwidth} GB/s\n")
    print("| stage | devices | batch of each | step, s | exchange, s | images/s | efficiency |")
    print("|---|---|---|---|---|---|---|", flush=True)
    layers = networks.Down, networks.Up
    for stage in step_time.STAGES:
        size, alone = gradient_bytes(stage, flags.base_width), 0.0
        for count in flags.devices:
            batch = flags.batch // count
            run = step_time.jax_steps(
                stage, flags.base_width, batch, *layers, dtype=flags.dtype
            ).run
            times = []
            for _ in range(flags.rounds):
                began = time.perf_counter()
                run(flags.steps)
                times.append((time.perf_counter() - began) / flags.steps)
            step = statistics.median(times)
            exchange = 2 * (count - 1) / count * size / (flags.bandwidth * 1e9)
            rate = flags.batch / (step + exchange)
            alone = alone or rate / count
            cells = [stage, str(count), str(batch), f"{step:.4f}", f"{exchange:.4f}"]
            cells += [f"{rate:.0f}", f"{rate / alone / count:.2f}"]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
