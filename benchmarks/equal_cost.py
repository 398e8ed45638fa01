"""GAN steps that cost as much as the VAE of a config, for a comparison with runs without a VAE.

    python benchmarks/equal_cost.py --config configs/unbalanced.py

Train steps of both stages are timed alternately, on random images: the VAE's, and the GAN's after
the discriminator's warm-up. The ratio is the median over rounds. It depends on the machine.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import common
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vaegan_jax import gan, randomness, recipe, vae
from vaegan_jax.data import images
from vaegan_jax.runtime import parallel
from vaegan_jax.training import loop

STEPS = 16


def make_timer(config: ConfigDict, name: str) -> Callable[[], float]:
    """Returns a function that takes `STEPS` steps of a stage and returns the seconds per step."""
    shape = images.settings(config.data).image_shape
    if name == "vae":
        number, module = randomness.Stage.VAE, vae
        state = jax.jit(functools.partial(vae.init, config, shape))()
    else:
        number, module = randomness.Stage.GAN, gan
        generator = jax.jit(functools.partial(gan.random_init, config, shape))()
        state = jax.jit(functools.partial(gan.init, config, shape))(generator)
        state = state.replace(step=state.step + config.gan.discriminator_warmup_steps)
    step, batch = module.make_train_step(config, shape), config[name].batch_size
    stage = loop.Stage(number, 0, batch, state, lambda: state, step, lambda _: {}, ())
    call = loop.make_call(stage, STEPS, config.data.flip)
    state = parallel.put_state(state, parallel.replicated(parallel.make_mesh()))
    pixels = jnp.asarray(np.random.default_rng(0).integers(0, 256, (512, *shape)), jnp.uint8)
    indices = jnp.arange(STEPS * batch, dtype=jnp.int32).reshape(STEPS, batch) % len(pixels)
    block = loop.Block(pixels, indices, indices, jnp.int32(STEPS), jnp.uint32(0))

    def measure() -> float:
        nonlocal state
        began = time.perf_counter()
        state, *_ = jax.block_until_ready(call(state, block))
        return (time.perf_counter() - began) / STEPS

    measure()  # compiles
    return measure


def main() -> None:
    """Prints the seconds per step and the number of GAN steps."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--images", type=int, default=6_706, help="training images")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    config = common.load_config(args.config)
    config = recipe.resolve(config, args.images, images.settings(config.data).image_shape)
    measure = {name: make_timer(config, name) for name in ("vae", "gan")}
    rounds = [{name: of() for name, of in measure.items()} for _ in range(args.rounds)]
    ratios = sorted(each["vae"] / each["gan"] for each in rounds)
    ratio = statistics.median(ratios)
    print(common.machine())
    for name in measure:
        print(f"{name}: {statistics.median(each[name] for each in rounds):.4f} s per step")
    print(f"vae / gan: {ratio:.3f} (quartiles {ratios[len(ratios) // 4]:.3f}, ", end="")
    print(f"{ratios[-1 - len(ratios) // 4]:.3f})")
    extra = round(ratio * config.vae.steps)
    print(f"{config.vae.steps} VAE steps cost {extra} GAN steps: ", end="")
    print(f"transfer.generator=scratch; gan.steps={config.gan.steps + extra}")


if __name__ == "__main__":
    main()
