"""Estimates the scaling efficiency of data parallelism from step times and gradient sizes.

    python benchmarks/scaling.py --base_width 64 --batch 256 --bandwidth 1.25

Measures a step on one device at the batch size per device of N devices, and adds the time of a
ring all-reduce of the gradients: 2 (N - 1) / N times their bytes, divided by the bandwidth of the
slowest link in GB/s (1.25 is 10 gigabit Ethernet, 50 a 400 gigabit network, 450 NVLink of an H100),
without overlap. The efficiency is the throughput divided by N times that of one device.
Communication is not measured, and its latency is ignored.
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
from vaegan_jax import gan, vae
from vaegan_jax.runtime import environment


def gradient_bytes(stage: str, base_width: int) -> int:
    """Returns the bytes of the float32 gradients of a step."""
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
    parser.add_argument("--batch", type=int, default=256, help="global batch size")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--bandwidth", type=float, default=1.25, help="GB/s")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=4, help="per round")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    cpu = environment.facts()["cpu"]
    print(f"{jax.devices()[0].device_kind}, {cpu}, {os.cpu_count()} cores, jax {jax.__version__}")
    print(f"base width {args.base_width}, batch {args.batch}, {args.bandwidth} GB/s\n")
    print("| stage | devices | batch per device | step, s | exchange, s | images/s | efficiency |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for stage in step_time.STAGES:
        size, single_rate = gradient_bytes(stage, args.base_width), 0.0
        for count in args.devices:
            batch = args.batch // count
            run = step_time.jax_steps(
                stage, args.base_width, batch, step_time.OURS, dtype=args.dtype
            ).run
            times = []
            for _ in range(args.rounds):
                began = time.perf_counter()
                run(args.steps)
                times.append((time.perf_counter() - began) / args.steps)
            step = statistics.median(times)
            exchange = 2 * (count - 1) / count * size / (args.bandwidth * 1e9)
            rate = args.batch / (step + exchange)
            single_rate = single_rate or rate / count
            cells = [stage, str(count), str(batch), f"{step:.4f}", f"{exchange:.4f}"]
            cells += [f"{rate:.0f}", f"{rate / single_rate / count:.2f}"]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
