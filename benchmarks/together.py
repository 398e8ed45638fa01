"""Many seeds in one program against as many programs: seconds a step and member, side by side.

    python benchmarks/together.py --members 8 --base_width 16

"alone" is one run's jitted call, for each member in its turn; `map` and `vmap` are the two ways of
`training.together_by`. Compiling, which runs apart pay each for itself, is told apart. The
contenders take turns, and medians are compared.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import config as configuration
from vaegan_jax import environment, parallel, pipeline, training
from vaegan_jax.data import images


def contenders(
    make_stage: Any, arguments: argparse.Namespace, data: images.Images
) -> dict[str, tuple[float, Callable[[], None]]]:
    """Returns, by name, the seconds that compiling took, and what takes all members' steps."""
    config = configuration.default_config()
    config.transfer.generator = "scratch"
    config.gan.discriminator_warmup_steps = 0
    config.data.image_size = arguments.image_size
    config.model.base_width, config.model.dtype = arguments.base_width, arguments.dtype
    config.vae.batch_size = config.gan.batch_size = arguments.batch
    stage = make_stage(config, data, None)
    members, steps = arguments.members, arguments.steps
    resident = jnp.asarray(data.train[np.arange(len(data.train))])
    rng = np.random.default_rng(0)
    shape = (members, steps, arguments.batch)
    places = jnp.asarray(rng.integers(0, len(resident), shape), jnp.int32)
    # Each member of its own, since a call takes the state that it is given for good.
    states = [stage.init() for _ in range(members)]
    seeds = list(range(members))
    one = training.make_call(stage, 0, steps)
    count = jnp.int32(steps)

    def alone() -> None:
        for member in range(members):
            states[member], _ = one(states[member], resident, places[member], places[member], count)
        jax.block_until_ready(states)

    found = {"alone": (_seconds(alone), alone)}
    for way in ("map", "vmap"):
        config.training.together_by = way
        mesh = parallel.leading(members, parallel.make_mesh())
        call = training.make_call_together(stage, seeds, steps, config, mesh)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(stage.init() for _ in seeds))
        held = [jax.device_put(stacked, parallel.split(mesh))]

        def together(call: Any = call, held: list[Any] = held) -> None:
            held[0], _ = call(held[0], resident, places, places, count)
            jax.block_until_ready(held)

        found[way] = (_seconds(together), together)
    return found


def _seconds(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--base_width", type=int, default=16)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=4, help="of a call")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    config = configuration.default_config()
    config.data.image_size = arguments.image_size
    data = images.load(config.data)
    cpu = environment.facts()["cpu"]
    print(f"{jax.devices()[0].device_kind}, {cpu}, {os.cpu_count()} cores, jax {jax.__version__}")
    print(f"{arguments}\n")
    print("| stage | way | s a step and member | over alone | first call, s |")
    print("|---|---|---|---|---|", flush=True)
    for name, make_stage in (("vae", pipeline.vae_stage), ("gan", pipeline.gan_stage)):
        ways = contenders(make_stage, arguments, data)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(arguments.rounds):
            for way, (_, run) in ways.items():
                times[way].append(_seconds(run) / arguments.members / arguments.steps)
        medians = {way: statistics.median(values) for way, values in times.items()}
        for way, (first, _) in ways.items():
            ratio = medians[way] / medians["alone"]
            print(
                f"| {name} | {way} | {medians[way]:.4f} | {ratio:.2f} | {first:.1f} |", flush=True
            )


if __name__ == "__main__":
    main()
